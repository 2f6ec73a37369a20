"""The frame prompt: image in the middle, a learnable border in pixel space."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mr_core.input_transforms.module import InputTransform, JacobianFactor


class PaddingTransform(InputTransform):
    """`pad(x) + sigmoid(delta)` on the border, 3 (S^2 - k^2) parameters (arXiv:2211.11635, section 3).

    Only the border's entries are parameters: the published code keeps a full canvas and masks it, which
    counts and stores k^2 entries that never act. `delta` starts at 0, a grey frame of 0.5. Pixels of the image that are
    `covered`, `(k, k)`, are part of the frame and not of what the backbone sees.
    """

    border: Bool[Tensor, "3 s s"]
    entries: Int[Tensor, " p"]  # of the flattened canvas, in the order of delta

    kept: Bool[Tensor, "k k"] | None

    def __init__(self, *, image_size: int, canvas_size: int, covered: Bool[Tensor, "k k"] | None = None) -> None:
        super().__init__(image_size=image_size, canvas_size=canvas_size)
        before = (canvas_size - image_size + 1) // 2
        after = (canvas_size - image_size) // 2
        self._padding = (before, after, before, after)
        border = torch.ones(3, canvas_size, canvas_size, dtype=torch.bool)
        border[:, before : canvas_size - after, before : canvas_size - after] = False if covered is None else covered
        self.register_buffer("kept", None if covered is None else ~covered, persistent=False)
        self.register_buffer("border", border, persistent=False)
        self.register_buffer("entries", border.flatten().nonzero().squeeze(1), persistent=False)
        self.delta = nn.Parameter(torch.zeros(int(border.sum())))

    def frame(self) -> Float[Tensor, "3 s s"]:
        """The frame in [0, 1] on a canvas that is 0 where the image goes."""
        canvas = self.delta.new_zeros(self.border.numel())
        canvas = canvas.index_copy(0, self.entries, torch.sigmoid(self.delta))
        return canvas.view_as(self.border)

    def forward(self, images: Float[Tensor, "n 3 k k"]) -> Float[Tensor, "n 3 s s"]:
        shown = images if self.kept is None else images * self.kept
        return functional.pad(shown, self._padding) + self.frame()

    def picture(self) -> Float[Tensor, "3 s s"]:
        return self.frame().detach()

    def jacobian_factors(
        self, images: Float[Tensor, "n 3 k k"], gradients: Float[Tensor, "n 3 s s"]
    ) -> tuple[JacobianFactor]:
        sigmoid = torch.sigmoid(self.delta.detach())
        return (JacobianFactor(("delta",), gradients.flatten(1)[:, self.entries] * (sigmoid * (1 - sigmoid))),)
