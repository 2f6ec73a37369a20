"""Training without gradients of the backbone, by perturbing all parameters at once."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.trainers.directions import dimension, generator_of, leave_gradient, moved
from mr_core.trainers.epochs import EpochTrainer
from mr_core.trainers.optimizer import OptimizerRule
from mr_core.trainers.rules import BatchLoss, StepRule
from mr_core.trainers.spsa.spec import SpsaSpec


class SpsaTrainer(EpochTrainer):
    """Steps along simultaneous perturbations; nothing is back-propagated."""

    def __init__(self, spec: SpsaSpec) -> None:
        super().__init__(spec, forward_passes=spec.forward_passes)
        self._perturbing = spec

    def rule(self, parameters: Mapping[str, nn.Parameter], *, seed: int) -> StepRule:
        return _Spsa(list(parameters.values()), self._perturbing, seed=seed)


class _Spsa(OptimizerRule):
    """`m <- beta m + g`, then a step along `g + beta m`: torch's Nesterov momentum (arXiv:2303.14773, section 3.3)."""

    def __init__(self, parameters: Sequence[nn.Parameter], spec: SpsaSpec, *, seed: int) -> None:
        beta = spec.correction
        super().__init__(parameters, torch.optim.SGD(parameters, lr=spec.rate, momentum=beta, nesterov=beta > 0))
        self._spec, self._seed = spec, seed

    def learning_rate(self, *, step: int, steps_per_epoch: int) -> float:
        return float(self._spec.rate / (step + 1 + self._spec.offset) ** self._spec.rate_decay)

    def gradient(self, loss: BatchLoss, *, step: int) -> float:
        value, estimate = simultaneous_estimate(
            loss.value,
            self.parameters,
            n_draws=self._spec.draws,
            width=self._spec.width / (step + 1) ** self._spec.width_decay,
            generator=generator_of(self._seed, step),
        )
        leave_gradient(self.parameters, estimate)
        return value


def simultaneous_estimate(
    loss: Callable[[], float],
    parameters: Sequence[nn.Parameter],
    *,
    n_draws: int,
    width: float,
    generator: torch.Generator,
) -> tuple[float, Float[Tensor, " d"]]:
    """The mean of all losses taken, and of `(f(w + c D) - f(w - c D)) / (2 c D)`, the division entry by entry.

    Entries of D are uniform on [-1, -1/2] and [1/2, 1] (arXiv:2303.14773, section 3.3), away from 0 because of the
    division. The mean over draws is the gradient up to terms of c^2, since D_i / D_j has mean 0 for i != j.
    """
    d = dimension(parameters)
    estimate, losses = torch.zeros(d), []
    for _ in range(n_draws):
        sizes = 0.5 + 0.5 * torch.rand(d, generator=generator)
        direction = torch.where(torch.rand(d, generator=generator) < 0.5, -sizes, sizes)
        sides = []
        for sign in (1, -1):
            with moved(parameters, direction, by=sign * width):
                sides.append(loss())
        losses += sides
        estimate += (sides[0] - sides[1]) / (2 * width * n_draws) / direction
    return sum(losses) / len(losses), estimate
