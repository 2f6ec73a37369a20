"""The module every label mapping is: one of the backbone's outputs in, target logits out."""

from abc import ABC, abstractmethod
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from mr_core.backbones.description import Output

Refit = Literal["never", "once", "each_epoch", "from_training"]
FittingOutputs = tuple[Tensor, Tensor]  # backbone outputs (n, d) and labels (n,)


class LabelMapping(nn.Module, ABC):
    """Maps backbone outputs `(n, d)` to target logits `(n, n_targets)`.

    Parameters train together with the input transform; what is estimated by counting is a buffer set by `fit`.
    """

    reads: Output  # which of the backbone's outputs
    refit: Refit = "never"
    """When the trainer calls `fit`, with the outputs of all training images.

    `from_training`: once before training, and after each epoch `fit_tally` with what that epoch's own passes tallied.
    """
    fits_on_validation: bool = False  # whether `fit` has a choice to make that validation images decide
    views: int = 1  # of an image, whose outputs are read side by side: d is that many times the output's width
    is_linear: bool = True  # whether it is `matrix` but for a constant

    @abstractmethod
    def forward(self, outputs: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """The target logits."""

    def fit(
        self, outputs: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, validation: FittingOutputs | None = None
    ) -> None:
        """Estimate the mapping from the outputs and labels of training images; nothing to do by default.

        `validation` comes where `fits_on_validation` and there are such images: only for choosing, never to count.
        """

    def tally(self, outputs: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Tensor:
        """All that `fit_tally` needs of these samples; the tallies of parts add up to that of the whole."""
        raise NotImplementedError(f"{type(self).__name__} is not estimated from sums over samples")

    def fit_tally(self, tally: Tensor) -> None:
        """Estimate the mapping from the tally of training images."""
        raise NotImplementedError(f"{type(self).__name__} is not estimated from sums over samples")

    def chosen_texts(self) -> list[str] | None:
        """The text that each class was given, where the mapping chooses one among many."""
        return None

    @abstractmethod
    def matrix(self) -> Float[Tensor, "d c"]:
        """The linear map from outputs to target logits (its bias aside): the `b` of the kernel's sandwich form.

        Of a mapping that is not linear, one that stands for it in pictures.
        """
