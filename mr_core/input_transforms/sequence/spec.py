"""One input transform after another."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.base import InputTransformSpec
from mr_core.input_transforms.fully_connected.spec import FullyConnectedSpec
from mr_core.input_transforms.padding.spec import PaddingSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.sequence.transform import SequenceTransform

    AnyStepSpec = InputTransformSpec  # the family gives the union of all that are no composites themselves


class SequenceSpec(InputTransformSpec):
    """Input transforms in order: the canvas of each is the image of the next, the last fills the backbone's canvas.

    A fully connected map inside a frame is the VP+FC of the tangent-kernel theory of reprogramming
    (arXiv:2506.00620).
    """

    is_composite: ClassVar[bool] = True

    kind: Literal["sequence"] = "sequence"
    transforms: Annotated[tuple[AnyStepSpec, ...], Field(min_length=1, max_length=8)] = Field(
        (FullyConnectedSpec(), PaddingSpec()), description="First to last."
    )

    def size_on(self, canvas_size: int) -> int:
        return self._canvas_sizes(canvas_size)[0]

    def check(self, canvas_size: int) -> None:
        for transform, size in zip(self.transforms, self._canvas_sizes(canvas_size)[1:], strict=True):
            transform.check(size)

    def choices(self, canvas_size: int) -> tuple[SequenceSpec, ...]:
        """Every combination of the steps' choices that fits together."""
        sizes = self._canvas_sizes(canvas_size)[1:]
        steps = [transform.choices(size) for transform, size in zip(self.transforms, sizes, strict=True)]
        return tuple(
            spec
            for spec in (self.model_copy(update={"transforms": chosen}) for chosen in product(*steps))
            if spec.fits(canvas_size)
        ) or (self,)

    def fits(self, canvas_size: int) -> bool:
        """Whether `check` has nothing to say."""
        try:
            self.check(canvas_size)
        except SpecError:
            return False
        return True

    def build(self, canvas: Preprocessing) -> SequenceTransform:
        from mr_core.input_transforms.sequence.transform import SequenceTransform

        self.check(canvas.size)
        sizes = self._canvas_sizes(canvas.size)[1:]
        return SequenceTransform([
            transform.build(canvas.model_copy(update={"size": size}))
            for transform, size in zip(self.transforms, sizes, strict=True)
        ])  # fmt: skip

    def _canvas_sizes(self, canvas_size: int) -> list[int]:
        """Sides of the image of the first, and of the canvas of each."""
        sizes = [canvas_size]
        for transform in reversed(self.transforms):
            sizes.insert(0, transform.size_on(sizes[0]))
        return sizes
