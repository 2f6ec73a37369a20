"""One input transform after another."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mr_core.input_transforms.module import InputTransform


class SequenceTransform(InputTransform):
    """`a_n(... a_1(x))`; what is shown is the last prompt that can be."""

    def __init__(self, transforms: Sequence[InputTransform]) -> None:
        super().__init__(image_size=transforms[0].image_size, canvas_size=transforms[-1].canvas_size)
        self.fit = transforms[0].fit
        self.transforms = nn.ModuleList(transforms)

    def forward(self, images: Float[Tensor, "n 3 k k"]) -> Float[Tensor, "n 3 s s"]:
        for transform in self.transforms:
            images = transform(images)
        return images

    def picture(self) -> Float[Tensor, "3 s s"] | None:
        last = self.transforms[-1]
        assert isinstance(last, InputTransform)
        return last.picture()
