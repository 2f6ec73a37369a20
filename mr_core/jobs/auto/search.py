"""The search: rounds of trials as sub-jobs, each told to the study before the next is proposed.

A job of sub-jobs is run from its start again and again. So nothing here is a memory but the study, and that for what it
has proposed alone: who goes on is worked out anew from the answers, round by round, and comes out the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mr_core.jobs.auto.halving import rungs, survives
from mr_core.jobs.auto.space import Candidate, Space
from mr_core.jobs.auto.spec import AutoSpec, SearchBudget
from mr_core.jobs.base import Budget
from mr_core.jobs.context import JobContext
from mr_core.jobs.trial.spec import TrialSpec
from mr_core.sub_jobs import SubJobEnd

if TYPE_CHECKING:
    import optuna
    from optuna.trial import Trial

State = Literal["running", "complete", "halved", "stopped", "repeats", "failed"]


@dataclass(frozen=True)
class Judged:
    """What a training of so many epochs reached."""

    epochs: int
    result: Mapping[str, Any]

    @property
    def accuracy(self) -> float:
        return float(self.result["validation"]["accuracy"])

    @property
    def seconds(self) -> float:
        return float(self.result["timing"]["seconds"])


@dataclass(eq=False)
class Tried:
    """A trial, with what it reached at each of its rungs; its best is the fewest epochs that reached most.

    One that `repeats` an earlier candidate is not trained again. One is `stopped` where the budget did it.
    """

    number: int
    candidate: Candidate
    judged: list[Judged] = field(default_factory=list)
    state: State = "running"
    error: Mapping[str, Any] | None = None
    lost_s: float = 0.0  # in trainings that failed

    @property
    def best(self) -> Judged | None:
        return max(self.judged, key=lambda judged: (judged.accuracy, -judged.epochs), default=None)

    @property
    def merit(self) -> tuple[float, int]:
        """By accuracy, and of equals the earlier: the baselines come first."""
        return self.best.accuracy if self.best is not None else -1.0, -self.number

    @property
    def seconds(self) -> float:
        return sum(judged.seconds for judged in self.judged) + self.lost_s

    def fail(self, end: SubJobEnd) -> None:
        """A training of it ended without a result."""
        self.state, self.error = "failed", dict(end.error or {"code": end.status})
        self.lost_s += end.seconds


class Search:
    """One run of the search from its start; `tried` are the trials by number."""

    def __init__(self, spec: AutoSpec, space: Space, study: optuna.Study, context: JobContext) -> None:
        self.tried: list[Tried] = []
        self.ended_by: Literal["trials", "seconds"] = "trials"
        self._spec, self._space, self._context = spec, space, context
        self._proposals = Proposals(spec, space, study)
        self._rungs = rungs(least=spec.min_epochs, most=spec.max_epochs, reduction=spec.reduction)
        self._at_rung: dict[int, list[Tried]] = {epochs: [] for epochs in self._rungs}

    @property
    def seconds(self) -> float:
        """What all trials together took."""
        return sum(one.seconds for one in self.tried)

    def run(self) -> None:
        """Round after round until the budget is spent, or nothing is left to try."""
        while batch := self._batch():
            specs = {self._part(one): self._trial(one) for one in batch}
            ends = self._context.sub_jobs.run(specs, self._context)
            for one in batch:
                self._take(one, ends[self._part(one)])
            for one in batch:
                self._decide(one)
                self._proposals.tell(one)
        for one in self.tried:
            if one.state == "running":
                one.state = "stopped"
                self._proposals.tell(one)

    def _batch(self) -> list[Tried]:
        """Those that go on, then new ones."""
        left = _left(self._spec.budget, self.seconds)
        if left is not None and left <= 0:
            self.ended_by = "seconds"
            return []
        width = self._width(left)
        batch = [one for one in self.tried if one.state == "running"][:width]
        most = self._spec.budget.max_trials if self._space.cells else len(self._space.fixed)
        while len(batch) < width and len(self.tried) < min(most, self._spec.budget.max_trials):
            one = Tried(len(self.tried), self._proposals.candidate(len(self.tried)))
            if any(one.candidate == earlier.candidate for earlier in self.tried):
                one.state = "repeats"
                self._proposals.tell(one)
            else:
                batch.append(one)
            self.tried.append(one)
        return batch

    def _width(self, left: float | None) -> int:
        """Of a round: as many as what is left has room for, if they take what trainings took on average."""
        n_trained = sum(len(one.judged) + (one.state == "failed") for one in self.tried)
        if left is None or not self.seconds:
            return self._spec.parallel
        return min(self._spec.parallel, max(1, int(left * n_trained / self.seconds)))

    def _epochs(self, one: Tried) -> int:
        """Of its next training."""
        return self._rungs[len(one.judged)] if one.candidate.trains else 1

    def _part(self, one: Tried) -> str:
        return f"trial-{one.number}-{self._epochs(one)}"

    def _trial(self, one: Tried) -> TrialSpec:
        budget = Budget(max_seconds=_left(self._spec.budget, self.seconds))
        return trial_spec(self._spec, one.candidate, epochs=self._epochs(one), budget=budget)

    def _take(self, one: Tried, end: SubJobEnd) -> None:
        if end.result is None:
            one.fail(end)
            return
        one.judged.append(Judged(self._epochs(one), end.result))
        if one.candidate.trains:
            self._at_rung[one.judged[-1].epochs].append(one)

    def _decide(self, one: Tried) -> None:
        """Once the whole round has been taken, so that its trials are judged beside each other."""
        if one.state != "running":
            return
        if not one.candidate.trains or len(one.judged) == len(self._rungs):
            one.state = "complete"
            return
        rung = self._at_rung[one.judged[-1].epochs]
        values = [other.judged[len(one.judged) - 1].accuracy for other in rung]
        if not survives(rung.index(one), values, reduction=self._spec.reduction):
            one.state = "halved"


class Proposals:
    """What the study proposes: by number, each once, however often it is asked."""

    def __init__(self, spec: AutoSpec, space: Space, study: optuna.Study) -> None:
        self._spec, self._space, self._study = spec, space, study
        new = max(0, spec.budget.max_trials - len(space.fixed))
        self._n_starts = min(len(space.cells), (new + 1) // 2)

    def candidate(self, number: int) -> Candidate:
        """Of a trial: what is fixed, then the most promising cells as they are, then what Optuna makes of the rest."""
        fixed, start = self._space.fixed, number - len(self._space.fixed)
        if start < 0:
            self._trial(number, {})
            return fixed[number]
        return self._space.suggest(self._trial(number, self._space.start(start) if start < self._n_starts else None))

    def tell(self, one: Tried) -> None:
        """What became of a trial so far, unless the study knows."""
        from optuna.trial import Trial, TrialState

        known = self._known(one.number)
        if known.state.is_finished():
            return
        for judged in one.judged:
            if judged.epochs not in known.intermediate_values:
                Trial(self._study, known._trial_id).report(judged.accuracy, judged.epochs)
        if one.state == "halved":
            self._study.tell(one.number, state=TrialState.PRUNED)
        elif one.state != "running":
            best = one.best
            state = TrialState.FAIL if best is None else TrialState.COMPLETE
            self._study.tell(one.number, None if best is None else best.accuracy, state=state)

    def _trial(self, number: int, begins_with: Mapping[str, Any] | None) -> Trial:
        """The study's trial of this number, made where it is not there yet.

        The sampler is seeded by the number, so a proposal depends on what the study was told, and not on how often
        the job was begun.
        """
        from optuna.samplers import TPESampler
        from optuna.trial import Trial, TrialState

        seed = int(np.random.SeedSequence([self._spec.seed, number]).generate_state(1)[0])
        self._study.sampler = TPESampler(seed=seed, multivariate=False)
        n_known = len(self._study.get_trials(deepcopy=False))
        if n_known == number and begins_with is not None:
            self._study.enqueue_trial(dict(begins_with))
        if n_known == number or self._known(number).state == TrialState.WAITING:
            self._study.ask()
        return Trial(self._study, self._known(number)._trial_id)

    def _known(self, number: int) -> optuna.trial.FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]


def trial_spec(
    spec: AutoSpec, candidate: Candidate, *, epochs: int, budget: Budget | None = None, repeats: int = 1
) -> TrialSpec:
    """The sub-job that trains a candidate."""
    return TrialSpec(
        dataset=spec.dataset,
        backbone=spec.backbone,
        device=spec.device,
        seed=spec.seed,
        evaluation=spec.evaluation.model_copy(update={"random_backbone": False}),
        budget=budget or Budget(),
        repeats=repeats,
        **candidate.methods(epochs=epochs),
    )


def _left(budget: SearchBudget, spent: float) -> float | None:
    return None if budget.max_seconds is None else budget.max_seconds - spent


def row(one: Tried) -> dict[str, Any]:
    """A trial as the result tells it."""
    best = one.best
    return {
        "number": one.number,
        "name": one.candidate.name,
        "state": one.state,
        "input_transform": one.candidate.input_transform.model_dump(mode="json"),
        "label_mapping": one.candidate.label_mapping.model_dump(mode="json"),
        "trainer": one.candidate.trainer.model_dump(mode="json", exclude={"epochs"}) if one.candidate.trains else None,
        "validation_accuracy": None if best is None else best.accuracy,
        "epochs": None if best is None else best.epochs,
        "seconds": one.seconds,
        "rungs": [
            {"epochs": judged.epochs, "validation_accuracy": judged.accuracy, "seconds": judged.seconds}
            for judged in one.judged
        ],
        "error": one.error,
    }


def rows(tried: Sequence[Tried]) -> list[dict[str, Any]]:
    """All of them, in the order in which they were begun."""
    return [row(one) for one in tried]
