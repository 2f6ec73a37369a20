"""What the linearised model would learn: accuracy on held-out samples, and the loss as training goes on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mr_core.ntk.spectrum import Eigen, resolution_limit

RIDGES = (*(10.0 ** (power / 2) for power in range(-8, 5)), 1e4)  # times the mean eigenvalue of the kernel
LABEL_NORM = 3.0  # times the norm of the initial logits; chosen among 1, 3 and 10 on two datasets, not calibrated
CURVE_STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


@dataclass(frozen=True)
class HeldOut:
    """Kernel ridge regression at the ridge that cross-validation chose: each sample's logits while held out."""

    logits: Float[Tensor, "n c"]
    ridge: float  # times the mean eigenvalue


def held_out_logits(
    eigen: Eigen,
    targets: Float[Tensor, "n c"],
    folds: Sequence[Int[Tensor, " _"]],
    initial_logits: Callable[[Int[Tensor, " _"]], Float[Tensor, "n c"]],
    *,
    beat: Callable[[], None] = lambda: None,
) -> HeldOut:
    """Cross-validated predictions of the model linearised at its parameters, `f(x) = f_0(x) + J(x) (theta - theta_0)`.

    Squared-loss training of it ends in kernel ridge regression on the residual `R = Y - F_0` (Jacot et al., 2018,
    arXiv:1806.07572, section 5). With `A = K + ridge I` the error on a held-out fold S is
    `[A^-1]_SS^-1 [A^-1 R]_S`, in closed form: one eigen-decomposition serves all folds and ridges. The ridge
    with the smallest squared held-out error is taken; the largest one leaves `f_0` as it is.

    `targets` is one-hot. They are centred over classes and scaled to 3 times the norm of `f_0`'s logits, centred over
    classes likewise: an argmax knows neither offset nor scale, and cross-entropy training raises margins above those
    it starts from. Where `f_0` is 0 the scale is 1. `initial_logits(fold)` gives `f_0` of all samples with whatever
    is estimated from labels estimated without the fold. `beat` is called once a ridge and fold, and may raise.

    An (n, n) kernel stands for itself times the identity over classes. For a prompt that is no good approximation:
    outputs share its parameters, and it overestimates (MNIST, 200 images, frame prompt on mini-clip: trace kernel
    0.92, full kernel 0.52, trained 0.71 after 30 epochs).
    """
    n, c = targets.shape
    m = len(eigen.values)
    per_sample = m // n
    centred = targets.to(torch.float64) - 1 / c
    mean_eigenvalue = max(float(eigen.values.mean()), torch.finfo(torch.float64).tiny)
    errors = torch.zeros(len(RIDGES), n, c, dtype=torch.float64)
    predictions = torch.zeros(len(RIDGES), n, c, dtype=torch.float64)
    for fold in folds:
        logits = centred_over_classes(initial_logits(fold).to(torch.float64))
        scaled = label_scale(logits, centred) * centred
        rows = (fold[:, None] * per_sample + torch.arange(per_sample)).flatten()
        coefficients = eigen.vectors.T @ (scaled - logits).reshape(m, -1)
        basis = eigen.vectors[rows]
        for index, ridge in enumerate(RIDGES):
            inverse = 1 / (eigen.values + ridge * mean_eigenvalue)
            beat()
            weighted = basis * inverse
            error = torch.linalg.solve(weighted @ basis.T, weighted @ coefficients).view(len(fold), c)
            errors[index, fold] = error
            predictions[index, fold] = scaled[fold] - error
    best = int(errors.square().sum((1, 2)).argmin())
    return HeldOut(predictions[best], RIDGES[best])


def centred_over_classes(logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Each row less its mean, which no softmax or argmax sees."""
    return logits - logits.mean(1, keepdim=True)


def label_scale(logits: Float[Tensor, "n c"], centred_targets: Float[Tensor, "n c"]) -> float:
    """The factor that gives the labels `LABEL_NORM` times the norm of the logits; 1 where the logits are 0."""
    norm = float(logits.norm())
    return LABEL_NORM * norm / float(centred_targets.norm()) if norm > 0 else 1.0


def training_targets(initial_logits: Float[Tensor, "n c"], targets: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """The one-hot labels on the scale of `held_out_logits`: centred, and `LABEL_NORM` times the logits' norm."""
    centred = targets.to(torch.float64) - 1 / targets.shape[1]
    return label_scale(centred_over_classes(initial_logits.to(torch.float64)), centred) * centred


def training_curve(
    eigen: Eigen, initial_logits: Float[Tensor, "n c"], targets: Float[Tensor, "n c"]
) -> list[dict[str, int | float]]:
    """Squared loss of the linearised model after t full-batch steps at the learning rate `N / lambda_max`.

    `loss(t) = (1 / 2N) sum_i exp(-2 eta t lambda_i / N) (u_i . r_0)^2` (arXiv:2506.00620, proposition 1, in its
    standard form), with labels and logits on the scale of `held_out_logits` and the loss in units of one-hot labels.
    Exact for the squared loss, a fixed kernel and gradient flow; a cross-entropy run with Adam differs.
    Eigenvalues that float64 does not resolve count as 0: their share of the loss stays.
    """
    n, c = targets.shape
    centred = targets.to(torch.float64) - 1 / c
    logits = centred_over_classes(initial_logits.to(torch.float64))
    scale = label_scale(logits, centred)
    residual = (logits / scale - centred).reshape(len(eigen.values), -1)
    energies = (eigen.vectors.T @ residual).square().sum(1)
    largest = float(eigen.values[0])
    limit = resolution_limit(len(eigen.values), largest)
    rates = torch.where(eigen.values > limit, eigen.values, 0.0) / (largest if largest > 0 else 1.0)
    return [
        {"step": step, "loss": float(((-2 * step * rates).exp() * energies).sum()) / (2 * n)} for step in CURVE_STEPS
    ]


def stratified_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], *, n_folds: int, seed: int
) -> list[Int[Tensor, " _"]]:
    """Disjoint folds that cover all samples, classes spread evenly; samples of a group (duplicates) share a fold.

    Empty folds are left out, so fewer may come back.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    members: list[list[int]] = [[] for _ in range(n_folds)]
    order = generator.permutation(len(labels))
    seen: set[int] = set()
    turn = 0
    for label in np.unique(labels):
        for sample in order[labels[order] == label]:
            if (group := int(groups[sample])) in seen:
                continue
            seen.add(group)
            members[turn % n_folds].extend(np.flatnonzero(groups == group).tolist())
            turn += 1
    return [torch.tensor(sorted(fold)) for fold in members if fold]


def accuracy_interval(n_right: int, n: int) -> tuple[float, float]:
    """Wilson's 90 % interval of a share, `n_right` of `n` (Wilson, 1927).

    The sampling error of n held-out samples alone: not that of a different training set, nor of the linearisation.
    """
    z2 = 1.6448536269514722**2
    share = n_right / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * (share * (1 - share) / n + z2 / (4 * n * n))) ** 0.5 / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)
