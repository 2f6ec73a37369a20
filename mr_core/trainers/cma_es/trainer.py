"""Training without gradients of the backbone, by an evolution strategy."""

import math
from collections.abc import Callable, Mapping, Sequence

import cma
import numpy as np
import torch
from torch import Tensor, nn

from mr_core.errors import SpecError
from mr_core.parameters import put_back
from mr_core.trainers.cma_es.spec import CmaEsSpec
from mr_core.trainers.directions import dimension, split
from mr_core.trainers.epochs import EpochTrainer
from mr_core.trainers.rules import BatchLoss, StepRule

MOST_CORRELATED = 2_000  # the full covariance of so many parameters takes 32 MB, its eigenvectors seconds


class CmaEsTrainer(EpochTrainer):
    """Moves the mean of candidates; nothing is back-propagated."""

    def __init__(self, spec: CmaEsSpec) -> None:
        super().__init__(spec, forward_passes=spec.forward_passes)
        self._strategy = spec

    def rule(self, parameters: Mapping[str, nn.Parameter], *, seed: int) -> StepRule:
        return _Generations(list(parameters.values()), self._strategy, seed=seed)


class _Generations(StepRule):
    """A generation a step. The strategy is a function of its start, seed and past losses, which are all it remembers.

    SpecError where all correlations of too many parameters are asked for.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], spec: CmaEsSpec, *, seed: int) -> None:
        n = dimension(parameters)
        if spec.covariance == "full" and n > MOST_CORRELATED:
            raise SpecError(
                f"the adapter has {n} parameters, a full covariance is kept of at most {MOST_CORRELATED}: take the "
                "diagonal one, or a transform with fewer",
                param="trainer.covariance",
            )
        self._parameters, self._spec, self._seed = parameters, spec, seed
        self._losses: list[Tensor] = []  # of each generation's candidates
        self.begin()

    def begin(self) -> None:
        self._start = torch.cat([parameter.detach().flatten().double().cpu() for parameter in self._parameters])
        self._evolution = self._from_start()

    def learning_rate(self, *, step: int, steps_per_epoch: int) -> float:
        """The strategy's overall deviation as it is now."""
        return float(self._evolution.sigma)

    def move(self, loss: BatchLoss, *, step: int, steps_per_epoch: int) -> float:
        candidates = self._evolution.ask()
        losses = []
        with put_back(self._parameters):
            for candidate in candidates:
                self._place(candidate)
                losses.append(loss.value())
                if not math.isfinite(losses[-1]):
                    return losses[-1]
        self._evolution.tell(candidates, losses)
        self._losses.append(torch.tensor(losses, dtype=torch.float64))
        self._place(self._evolution.mean)
        return sum(losses) / len(losses)

    def tensors(self) -> dict[str, Tensor]:
        return {"start": self._start, "losses": torch.stack(self._losses)} if self._losses else {"start": self._start}

    def restore(self, tensors: dict[str, Tensor], *, beat: Callable[[], None]) -> None:
        self._start, self._losses = tensors["start"], list(tensors.get("losses", ()))
        self._evolution = self._from_start()
        for losses in self._losses:
            self._evolution.tell(self._evolution.ask(), losses.tolist())
            beat()

    def _from_start(self) -> cma.CMAEvolutionStrategy:
        options = {
            "popsize": self._spec.population,
            "CMA_diagonal": self._spec.covariance == "diagonal",
            "randn": np.random.RandomState(self._seed).randn,
            "seed": math.nan,  # the global generator stays as it is
            "verbose": -9,
        }
        return cma.CMAEvolutionStrategy(self._start.numpy(), self._spec.deviation, options)

    @torch.no_grad()
    def _place(self, vector: np.ndarray) -> None:
        parts = split(self._parameters, torch.from_numpy(np.asarray(vector)))
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.copy_(part)
