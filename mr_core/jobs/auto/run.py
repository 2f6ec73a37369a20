"""The run of a search: screen, try, decide, and train the winner as `reprogram` does."""

from collections.abc import Mapping, Sequence
from typing import Any

from mr_core.errors import SpecError
from mr_core.jobs.auto.finalists import Decision, decide, finalists_of
from mr_core.jobs.auto.search import Search, Tried, rows
from mr_core.jobs.auto.space import Space, search_space
from mr_core.jobs.auto.spec import AutoSpec
from mr_core.jobs.base import Budget
from mr_core.jobs.context import JobContext
from mr_core.jobs.outcome import JobOutcome
from mr_core.jobs.reprogram.run import Selection, reprogram
from mr_core.jobs.reprogram.spec import ReprogramSpec
from mr_core.jobs.stopwatch import Stopwatch


def auto(spec: AutoSpec, context: JobContext) -> JobOutcome:
    """The result of a reprogramming with the winner's spec, and under `search` everything that was tried.

    Trainings repeat to the byte, so the winner's is the one that was judged. Raises SpecError where no trial succeeds,
    and what a reprogramming raises.
    """
    watch = Stopwatch(context.observer)
    watch.begin("embedding")
    space = search_space(spec, context)
    watch.begin("training")
    with context.studies.open() as study:
        search = Search(spec, space, study, context)
        search.run()
    if all(one.best is None for one in search.tried):
        raise SpecError(f"none of {len(search.tried)} trials succeeded: {_first_error(space, search.tried)}")
    decision = decide(spec, finalists_of(spec, search.tried, context))
    seconds = watch.total()
    selection = Selection(
        reason=decision.reason,
        trials=rows(search.tried),
        validation=decision.winner.validation,
        retrain=spec.retrain,
    )
    outcome = reprogram(_winner(spec, decision), context, selection=selection)
    found = _found(space, search, decision)
    timing = outcome.result["timing"]
    timing = timing | {"seconds": timing["seconds"] + seconds, "trials_seconds": found["seconds"]}
    return JobOutcome(
        result={**outcome.result, "timing": timing, "search": found},
        adapter=outcome.adapter,
        artifacts=outcome.artifacts,
    )


def _winner(spec: AutoSpec, decision: Decision) -> ReprogramSpec:
    one = decision.winner.tried
    assert one.best is not None
    return ReprogramSpec(
        dataset=spec.dataset,
        backbone=spec.backbone,
        device=spec.device,
        seed=spec.seed,
        metadata=spec.metadata,
        budget=Budget(max_seconds=spec.budget.max_seconds),
        evaluation=spec.evaluation,
        repeats=spec.seeds if one.candidate.trains else 1,
        **one.candidate.methods(epochs=one.best.epochs),
    )


def _found(space: Space, search: Search, decision: Decision) -> dict[str, Any]:
    """What the result tells of the search."""
    one = decision.winner.tried
    assert one.best is not None
    methods = one.candidate.methods(epochs=one.best.epochs)
    return {
        "winner": {
            "trial": one.number,
            "name": one.candidate.name,
            **{family: method.model_dump(mode="json") for family, method in methods.items()},
        },
        "finalists": [finalist.told() for finalist in decision.finalists],
        "comparisons": list(decision.comparisons),
        "trials": rows(search.tried),
        "cells": list(space.screened),
        "seconds": search.seconds + sum(finalist.seconds for finalist in decision.finalists),
        "ended_by": search.ended_by,
    }


def _first_error(space: Space, tried: Sequence[Tried]) -> str:
    """Of a trial, or where there was none to begin of a cell."""
    errors: list[Mapping[str, Any]] = [one.error for one in tried if one.error is not None]
    errors += [cell["error"] for cell in space.screened if cell["error"] is not None]
    return str(errors[0].get("detail") or errors[0]["code"])
