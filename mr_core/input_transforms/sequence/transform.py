"""One input transform after another."""

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.input_transforms.module import InputTransform, JacobianFactor


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

    def jacobian_factors(
        self, images: Float[Tensor, "n 3 k k"], gradients: Float[Tensor, "n 3 s s"]
    ) -> list[JacobianFactor] | None:
        """Those of every step, from the gradient at its own canvas; None where one step knows none."""
        steps = [cast(InputTransform, step) for step in self.transforms]
        with torch.no_grad():
            read = list(itertools.accumulate(steps[:-1], lambda given, step: step(given), initial=images))
        factors: list[JacobianFactor] = []
        for index, step in reversed(list(enumerate(steps))):
            own = step.jacobian_factors(read[index], gradients)
            if own is None:
                return None
            names = [tuple(f"transforms.{index}.{name}" for name in factor.parameters) for factor in own]
            factors = [factor._replace(parameters=n) for factor, n in zip(own, names, strict=True)] + factors
            if index:
                gradients = _at_the_image(step, read[index], gradients)
        return factors

    def picture(self) -> Float[Tensor, "3 s s"] | None:
        return cast(InputTransform, self.transforms[-1]).picture()


def _at_the_image(
    step: InputTransform, images: Float[Tensor, "n 3 k k"], gradients: Float[Tensor, "n 3 s s"]
) -> Float[Tensor, "n 3 k k"]:
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        (pulled,) = torch.autograd.grad(step(leaf), leaf, gradients)
    return pulled
