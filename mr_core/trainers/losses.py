"""Training losses, one value a sample."""

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mr_core.trainers.fields import TrainsInEpochs


class TrainingLoss:
    """The spec's loss of each sample, times its class's weight by the counts among the training labels.

    `cross_entropy`; `focal`, `-(1 - p)^gamma log p` of the true class's probability p (Lin et al., 2017,
    arXiv:1708.02002, equation 4); `squared`, half the squared distance of the logits from the one-hot target, as the
    tangent-kernel theory has it (arXiv:2506.00620). Balanced weights have mean 1 over the training samples; a class
    without any counts as if it had one.
    """

    def __init__(self, spec: TrainsInEpochs, labels: NDArray[np.int64]) -> None:
        self._spec = spec
        self._labels = labels

    def __call__(self, logits: Float[Tensor, "n c"], targets: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        losses = self._unweighted(logits, targets)
        if self._spec.class_weights == "uniform":
            return losses
        counts = np.bincount(self._labels, minlength=logits.shape[1])
        weights = len(self._labels) / ((counts > 0).sum() * np.maximum(counts, 1))
        return losses * torch.from_numpy(weights).to(losses)[targets]

    def _unweighted(self, logits: Float[Tensor, "n c"], targets: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        if self._spec.loss == "squared":
            one_hot = functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
            return 0.5 * (logits - one_hot).square().sum(1)
        losses = functional.cross_entropy(logits, targets, reduction="none")
        if self._spec.loss == "focal":
            missed = -torch.expm1(-losses)  # 1 - p, whose power below 1 has no derivative at 0
            return missed.clamp(min=torch.finfo(losses.dtype).tiny).pow(self._spec.focal_gamma) * losses
        return losses
