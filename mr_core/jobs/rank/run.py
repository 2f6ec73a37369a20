"""The run of a ranking: screen the grid, have the best cells diagnosed and perhaps trained as sub-jobs, order them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mr_core.errors import SpecError
from mr_core.jobs.context import JobContext
from mr_core.jobs.diagnose.spec import DiagnoseSpec
from mr_core.jobs.diagnose.subject import chosen_samples
from mr_core.jobs.outcome import JobOutcome
from mr_core.jobs.rank.screening import Cell, screen
from mr_core.jobs.rank.spec import RankSpec
from mr_core.jobs.stopwatch import Stopwatch
from mr_core.jobs.trial.spec import TrialSpec
from mr_core.ntk import calibration
from mr_core.ntk.prediction import accuracy_interval
from mr_core.plots import rank_artifacts
from mr_core.sub_jobs import SubJobEnd

DRAWS = 20_000
PREDICTED = ("accuracy", "accuracy_interval", "calibration")
_NOTHING_TO_TRAIN = {
    "label": "nothing_to_train",
    "reason": "Neither transform nor mapping has parameters: this is the held-out accuracy of the mapping alone.",
}


def rank(spec: RankSpec, context: JobContext) -> JobOutcome:
    """The grid in order: cells that were trained by what they reached, then the others by predicted accuracy, then
    undiagnosed cells by their cheap scores, then impossible ones.

    A cell without parameters needs no diagnosis: its held-out accuracy stands beside the predictions.

    The probability of being the best is over draws of every cell's accuracy, independent of each other: cells share
    their images, so it is a cautious one. A calibrated prediction is drawn from the normal distribution of log odds
    that has its interval, any other, and what a training reached, from the Beta posterior (Jeffreys' prior) of its
    held-out samples.

    Raises SpecError (fewer samples than classes, no cell that can be), DatasetError.
    """
    watch = Stopwatch(context.observer)
    watch.begin("embedding")
    cells = screen(spec, context, chosen_samples(spec, context))
    possible = [cell for cell in cells if cell.error is None]
    if not possible:
        raise SpecError(f"no cell of the grid can be: {cells[0].error['detail']}", param="backbones")  # type: ignore[index]
    trained = [cell for cell in possible if cell.trains]
    survivors = sorted(trained, key=lambda cell: cell.promise, reverse=True)[: spec.survivors]
    watch.begin("diagnosing")
    ends = context.sub_jobs.run({cell.name: _diagnosis(spec, cell) for cell in survivors}, context)
    by_name = {cell.name: _row(spec, cell, ends.get(cell.name)) for cell in cells}
    predicted = [cell for cell in survivors if by_name[cell.name]["predicted"]]
    finalists = sorted(predicted, key=lambda cell: _merit(by_name[cell.name]), reverse=True)[: spec.finalists]
    if finalists:
        watch.begin("training")
        ends = context.sub_jobs.run({_trained_name(cell): _trial(spec, cell) for cell in finalists}, context)
        for cell in finalists:
            by_name[cell.name] |= _reached(ends[_trained_name(cell)])
    rows = order(list(by_name.values()), seed=spec.seed)
    result = {
        "cells": rows,
        "verdict": _verdict(rows),
        "timing": {"seconds": watch.total(), "phases": watch.phases()},
    }
    return JobOutcome(result=result, artifacts=rank_artifacts(rows))


def order(rows: Sequence[Mapping[str, Any]], *, seed: int) -> list[dict[str, Any]]:
    """The rows, the best first, with their probabilities of being the best.

    What is measured leads where a cell was trained: cells that were, and those that have nothing to train.
    """
    predicted = [row for row in rows if row["predicted"]]
    generator = np.random.default_rng(seed)
    shares = iter(probability_of_being_best([accuracy_draws(row, generator) for row in predicted]))
    told = [{**row, "probability_best": next(shares) if row["predicted"] else None} for row in rows]
    if not any(row["trained"] for row in rows):
        return sorted(told, key=_merit, reverse=True)
    return sorted(told, key=lambda row: (_is_measured(row), *_merit(row)), reverse=True)


def probability_of_being_best(draws: Sequence[Float[np.ndarray, " draws"]]) -> list[float]:
    """For each the share of draws in which it is above all others."""
    if not draws:
        return []
    wins = np.bincount(np.stack(draws, axis=1).argmax(1), minlength=len(draws))
    return [float(count) / len(draws[0]) for count in wins]


def accuracy_draws(row: Mapping[str, Any], generator: np.random.Generator) -> Float[np.ndarray, " draws"]:
    """What a predicted row may reach, as `rank` says."""
    share, n = _estimate(row), row["trained"]["n_validation"] if row["trained"] else row["n_samples"]
    coefficients = calibration.in_force()
    if coefficients is not None and row["predicted"]["calibration"] is not None and not row["trained"]:
        return coefficients.draws(share, DRAWS, generator=generator)
    return generator.beta(share * n + 0.5, (1 - share) * n + 0.5, size=DRAWS)


def _diagnosis(spec: RankSpec, cell: Cell) -> DiagnoseSpec:
    return DiagnoseSpec(
        **_alone(spec, cell), samples=spec.samples, kernel=spec.kernel, short_training=spec.short_training
    )


def _trained_name(cell: Cell) -> str:
    return f"{cell.name}-trained"


def _trial(spec: RankSpec, cell: Cell) -> TrialSpec:
    return TrialSpec(**_alone(spec, cell), trainer=spec.trainer)


def _alone(spec: RankSpec, cell: Cell) -> dict[str, Any]:
    """What a job on one cell has of the ranking's spec."""
    return {
        "dataset": spec.dataset,
        "backbone": spec.backbones[cell.backbone],
        "input_transform": spec.input_transforms[cell.input_transform],
        "label_mapping": spec.label_mappings[cell.label_mapping],
        "device": spec.device,
        "seed": spec.seed,
        "budget": spec.budget,
    }


def _reached(end: SubJobEnd) -> dict[str, Any]:
    """What a row says after its cell was trained."""
    if end.result is None:
        return {"error": dict(end.error or {"code": end.status})}
    validation, training = end.result["validation"], end.result["training"]
    return {
        "trained": {
            "validation_accuracy": validation["accuracy"],
            "n_validation": validation["n"],
            "epochs": training["epochs"],
        }
    }


def _row(spec: RankSpec, cell: Cell, end: SubJobEnd | None) -> dict[str, Any]:
    diagnosis = (end.result if end is not None else None) or {}
    predicted, n_samples = diagnosis.get("predicted"), diagnosis["spectrum"]["n_samples"] if diagnosis else None
    if predicted is not None:
        n_samples = predicted.get("n_samples", n_samples)  # fewer, or none, where the kernel is too large
        predicted = predicted if n_samples else None
    if not cell.trains and cell.untrained is not None and cell.n_samples:
        interval = accuracy_interval(round(cell.untrained * cell.n_samples), cell.n_samples)
        predicted = {"accuracy": cell.untrained, "accuracy_interval": list(interval), "calibration": None}
        n_samples = cell.n_samples
    return {
        "backbone": spec.backbones[cell.backbone],
        "input_transform": spec.input_transforms[cell.input_transform].model_dump(mode="json"),
        "label_mapping": spec.label_mappings[cell.label_mapping].model_dump(mode="json"),
        "scores": {"untrained_accuracy": cell.untrained, **cell.scores},
        "predicted": predicted and {key: predicted[key] for key in PREDICTED},
        "trained": None,
        "baselines": diagnosis.get("baselines"),
        "verdict": diagnosis.get("verdict") if cell.trains else _NOTHING_TO_TRAIN,
        "n_samples": n_samples,
        "error": cell.error or (dict(end.error or {"code": end.status}) if end and end.result is None else None),
    }


def _merit(row: Mapping[str, Any]) -> tuple[int, float, float]:
    known = 2 if row["predicted"] else 0 if row["error"] else 1
    return known, _estimate(row), row["scores"]["logme"] or 0.0


def _estimate(row: Mapping[str, Any]) -> float:
    if row["trained"]:
        return float(row["trained"]["validation_accuracy"])
    return float(row["predicted"]["accuracy"] if row["predicted"] else row["scores"]["untrained_accuracy"] or 0.0)


def _is_measured(row: Mapping[str, Any]) -> bool:
    return bool(row["trained"]) or row["verdict"] is _NOTHING_TO_TRAIN


def _verdict(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    best = rows[0]
    if best["predicted"] is None:
        return {"label": "undecided", "reason": "No cell could be diagnosed: the order is that of the cheap scores."}
    cell = f"{best['backbone']} with {best['input_transform']['kind']} and {best['label_mapping']['kind']}"
    n_predicted = sum(row["predicted"] is not None for row in rows)
    reason = (
        f"Of {len(rows)} cells, {n_predicted} predicted, {cell} is {_found(best)}, with a probability of "
        f"{best['probability_best']:.0%}. {best['verdict']['reason']}"
    )
    return {"label": best["verdict"]["label"], "reason": reason}


def _found(best: Mapping[str, Any]) -> str:
    if trained := best["trained"]:
        return (
            f"best after {trained['epochs']} epochs of training: {trained['validation_accuracy']:.1%} of "
            f"{trained['n_validation']} validation images"
        )
    low, high = best["predicted"]["accuracy_interval"]
    return f"predicted best: {best['predicted']['accuracy']:.1%} (90 % interval {low:.1%} to {high:.1%})"
