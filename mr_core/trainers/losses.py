"""Training losses, one value a sample."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mr_core.trainers.fields import TrainsInEpochs


def sample_losses(
    spec: TrainsInEpochs, logits: Float[Tensor, "n c"], targets: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The spec's loss of each sample.

    `cross_entropy`; `focal`, `-(1 - p)^gamma log p` of the true class's probability p (Lin et al., 2017,
    arXiv:1708.02002, equation 4); `squared`, half the squared distance of the logits from the one-hot target, as the
    tangent-kernel theory has it (arXiv:2506.00620).
    """
    if spec.loss == "squared":
        one_hot = functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
        return 0.5 * (logits - one_hot).square().sum(1)
    losses = functional.cross_entropy(logits, targets, reduction="none")
    if spec.loss == "focal":
        return (1 - (-losses).exp()).clamp(min=0).pow(spec.focal_gamma) * losses
    return losses
