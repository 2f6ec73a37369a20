"""Which of the best trials wins: over several seeds where they are asked for, and against the linear probe."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mr_core.errors import SpecError
from mr_core.jobs.auto.search import Tried, trial_spec
from mr_core.jobs.auto.space import PROBE
from mr_core.jobs.auto.spec import AutoSpec
from mr_core.jobs.base import Budget
from mr_core.jobs.context import JobContext
from mr_core.jobs.trial.run import hits_of
from mr_core.paired_bootstrap import Comparison, paired_bootstrap

N_FINALISTS = 2


@dataclass(frozen=True)
class Finalist:
    """A trial with its accuracy on validation images, of each seed; how often each image was answered right."""

    tried: Tried
    accuracies: Sequence[float]
    hits: NDArray[np.float64]
    seconds: float = 0.0  # of the trainings from further seeds

    @property
    def validation(self) -> dict[str, Any]:
        """Its metrics on validation images, from the first seed."""
        assert self.tried.best is not None
        return {name: self.tried.best.result["validation"][name] for name in ("n", "accuracy", "loss")}

    @property
    def mean(self) -> float:
        return fmean(self.accuracies)

    def told(self) -> dict[str, Any]:
        deviation = stdev(self.accuracies) if len(self.accuracies) > 1 else None
        return {
            "trial": self.tried.number,
            "name": self.tried.candidate.name,
            "accuracies": list(self.accuracies),
            "mean": self.mean,
            "deviation": deviation,
        }


@dataclass(frozen=True)
class Decision:
    """Who won, why in words, and the comparisons that it rests on."""

    winner: Finalist
    finalists: Sequence[Finalist]
    comparisons: Sequence[Mapping[str, Any]]
    reason: str


def finalists_of(spec: AutoSpec, tried: Sequence[Tried], context: JobContext) -> list[Finalist]:
    """The two best trials that succeed from every seed, and the linear probe where it is none of them.

    A trial that fails from a further seed gives way to the next, and says why. SpecError where none is left.
    """
    waiting = sorted((one for one in tried if one.best is not None), key=lambda one: one.merit, reverse=True)
    chosen: list[Finalist] = []
    while waiting and len(chosen) < N_FINALISTS:
        n_open = N_FINALISTS - len(chosen)
        chosen += _from_every_seed(spec, waiting[:n_open], context)
        del waiting[:n_open]
    chosen += [_finalist(one, None) for one in waiting if one.candidate.name == PROBE]
    if not chosen:
        error = next(one.error for one in tried if one.best is not None and one.error is not None)
        raise SpecError(f"no trial succeeds from all of {spec.seeds} seeds: {error.get('detail') or error['code']}")
    return chosen


def decide(spec: AutoSpec, finalists: Sequence[Finalist]) -> Decision:
    """The highest mean accuracy, of equals the earlier trial; the linear probe where that does not lead it clearly."""
    ordered = sorted(finalists, key=lambda one: (one.mean, -one.tried.number), reverse=True)
    ahead, probe = ordered[0], next((one for one in ordered if one.tried.candidate.name == PROBE), None)
    compared = [(ahead, other) for other in ordered[1:]]
    comparisons = [(first, second, _compare(spec, first, second)) for first, second in compared]
    told = [_told(*comparison) for comparison in comparisons]
    name, share = ahead.tried.candidate.name, f"{ahead.mean:.1%}"
    if probe is None or probe is ahead:
        return Decision(ahead, ordered, told, f"The search found nothing better than {_in_words(ahead)}, {share}.")
    against = next(comparison for _, second, comparison in comparisons if second is probe)
    sure = f"on {against.probability_better:.0%} of resampled validation sets"
    if against.probability_better < spec.confidence:
        reason = (
            f"The search's best, {name}, {share}, beats the linear probe, {probe.mean:.1%}, {sure}, and "
            f"{spec.confidence:.0%} are asked for: the adapter is the linear probe itself."
        )
        return Decision(probe, ordered, told, reason)
    noise = "beyond" if against.beyond_noise else "within"
    reason = f"The search's winner is {_in_words(ahead)}, {share}: ahead of the linear probe {sure}, {noise} noise."
    return Decision(ahead, ordered, told, reason)


def _from_every_seed(spec: AutoSpec, trials: Sequence[Tried], context: JobContext) -> list[Finalist]:
    """Those that succeed, in order; each training may take as long as the winner's."""
    budget = Budget(max_seconds=spec.budget.max_seconds)
    specs = {
        _part(one): trial_spec(spec, one.candidate, epochs=one.best.epochs, budget=budget, repeats=spec.seeds)
        for one in trials
        if one.best is not None and one.candidate.trains and spec.seeds > 1
    }
    ends = context.sub_jobs.run(specs, context) if specs else {}
    steady = []
    for one in trials:
        end = ends.get(_part(one))
        if end is None or end.result is not None:
            steady.append(_finalist(one, None if end is None else end.result))
        else:
            one.fail(end)
    return steady


def _part(one: Tried) -> str:
    return f"trial-{one.number}-seeds"


def _finalist(one: Tried, repeated: Mapping[str, Any] | None) -> Finalist:
    assert one.best is not None
    answers = (repeated or {}).get("seeds") or [one.best.result["validation"]]
    hits = np.mean([hits_of(answer["hits"], answer["n"]) for answer in answers], axis=0)
    seconds = float(repeated["timing"]["seconds"]) if repeated is not None else 0.0
    return Finalist(one, [float(answer["accuracy"]) for answer in answers], hits, seconds)


def _compare(spec: AutoSpec, first: Finalist, second: Finalist) -> Comparison:
    return paired_bootstrap(first.hits, second.hits, seed=spec.seed)


def _told(first: Finalist, second: Finalist, comparison: Comparison) -> dict[str, Any]:
    names = {"first": first.tried.number, "second": second.tried.number}
    return names | asdict(comparison) | {"interval": list(comparison.interval)}


def _in_words(one: Finalist) -> str:
    candidate = one.tried.candidate
    known = {PROBE: "the linear probe, which the adapter is", "zero_shot": "zero-shot, which the adapter is"}
    return known.get(candidate.name, f"{candidate.name} (trial {one.tried.number})")
