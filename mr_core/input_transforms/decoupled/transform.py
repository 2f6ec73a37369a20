"""A frame prompt for each group of texts."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.input_transforms.module import InputTransform, JacobianFactor
from mr_core.input_transforms.padding.transform import PaddingTransform


class DecoupledTransform(InputTransform):
    """`a_1(x), ..., a_v(x)`, each a frame of its own around the same image (arXiv:2506.01000, section 4)."""

    def __init__(self, *, image_size: int, canvas_size: int, n_prompts: int) -> None:
        super().__init__(image_size=image_size, canvas_size=canvas_size)
        self.views = n_prompts
        self.prompts = nn.ModuleList(
            PaddingTransform(image_size=image_size, canvas_size=canvas_size) for _ in range(n_prompts)
        )

    def frames(self) -> list[PaddingTransform]:
        """The prompts in order."""
        return [cast(PaddingTransform, prompt) for prompt in self.prompts]

    def forward(self, images: Float[Tensor, "n 3 k k"]) -> Float[Tensor, "m 3 s s"]:
        return torch.stack([frame(images) for frame in self.frames()], 1).flatten(0, 1)

    def picture(self) -> Float[Tensor, "3 s w"]:
        """The frames beside each other."""
        return torch.cat([frame.picture() for frame in self.frames()], 2)

    def jacobian_factors(
        self, images: Float[Tensor, "n 3 k k"], gradients: Float[Tensor, "m 3 s s"]
    ) -> tuple[JacobianFactor, ...]:
        of_views = [gradients[view :: self.views] for view in range(self.views)]
        factors = []
        for index, (frame, gradient) in enumerate(zip(self.frames(), of_views, strict=True)):
            (factor,) = frame.jacobian_factors(images, gradient)
            factors.append(factor._replace(parameters=(f"prompts.{index}.delta",)))
        return tuple(factors)
