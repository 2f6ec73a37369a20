"""Training without gradients of the backbone, by differences along random directions."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.trainers.directions import dimension, generator_of, leave_gradient, moved
from mr_core.trainers.epochs import EpochTrainer
from mr_core.trainers.optimizer import ScheduledRule
from mr_core.trainers.rules import BatchLoss, StepRule
from mr_core.trainers.zeroth_order.spec import ZerothOrderSpec


class ZerothOrderTrainer(EpochTrainer):
    """The optimiser steps along an estimate; nothing is back-propagated."""

    def __init__(self, spec: ZerothOrderSpec) -> None:
        super().__init__(spec, forward_passes=spec.forward_passes)
        self._estimator = spec

    def rule(self, parameters: Mapping[str, nn.Parameter], *, seed: int) -> StepRule:
        return _Estimated(parameters, self._estimator, seed=seed)


class _Estimated(ScheduledRule):
    def __init__(self, parameters: Mapping[str, nn.Parameter], spec: ZerothOrderSpec, *, seed: int) -> None:
        super().__init__(parameters, spec)
        self._estimator, self._seed = spec, seed

    def gradient(self, loss: BatchLoss, *, step: int) -> float:
        value, estimate = one_sided_estimate(
            loss.value,
            self.parameters,
            n_directions=self._estimator.directions,
            smoothing=self._estimator.smoothing,
            generator=generator_of(self._seed, step),
        )
        leave_gradient(self.parameters, estimate)
        return value


def one_sided_estimate(
    loss: Callable[[], float],
    parameters: Sequence[nn.Parameter],
    *,
    n_directions: int,
    smoothing: float,
    generator: torch.Generator,
) -> tuple[float, Float[Tensor, " d"]]:
    """The loss, and `mean_j d (f(w + beta u_j) - f(w)) / beta u_j` for u_j uniform on the unit sphere of R^d.

    BAR's estimator (Tsai et al., 2020, arXiv:2007.08714, section 3.3) with its constant b = d, for which the mean over
    directions is the gradient of f averaged over a ball of radius beta (Flaxman et al., 2005, arXiv:cs/0408007, lemma
    2.1). Its squared error falls as d over the number of directions.
    """
    d, before = dimension(parameters), loss()
    estimate = torch.zeros(d)
    for _ in range(n_directions):
        direction = torch.randn(d, generator=generator)
        direction /= direction.norm()
        with moved(parameters, direction, by=smoothing):
            difference = loss() - before
        estimate.add_(direction, alpha=d * difference / (smoothing * n_directions))
    return before, estimate
