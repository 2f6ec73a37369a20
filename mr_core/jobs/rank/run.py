"""The run of a ranking: screen the grid, have the best cells diagnosed as sub-jobs, order them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mr_core.errors import SpecError
from mr_core.jobs.context import JobContext
from mr_core.jobs.diagnose.spec import DiagnoseSpec
from mr_core.jobs.diagnose.subject import chosen_samples
from mr_core.jobs.outcome import JobOutcome
from mr_core.jobs.rank.screening import Cell, screen
from mr_core.jobs.rank.spec import RankSpec
from mr_core.jobs.stopwatch import Stopwatch
from mr_core.ntk.prediction import accuracy_interval
from mr_core.plots import rank_artifacts
from mr_core.sub_jobs import SubJobEnd

DRAWS = 20_000
_NOTHING_TO_TRAIN = {
    "label": "nothing_to_train",
    "reason": "Neither transform nor mapping has parameters: this is the held-out accuracy of the mapping alone.",
}


def rank(spec: RankSpec, context: JobContext) -> JobOutcome:
    """The grid in order: by predicted accuracy, then undiagnosed cells by their cheap scores, then impossible ones.

    A cell without parameters needs no diagnosis: its held-out accuracy stands beside the predictions.

    The probability of being the best is that of the accuracy on the sample's held-out folds, each cell's drawn from
    its Beta posterior (Jeffreys' prior) independently of the others: cells share their images, so it is a cautious
    one. It says nothing of how far the linearised model is from a trained one (see `mr_core.ntk.prediction`).

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
    rows = order(spec, cells, ends)
    result = {
        "cells": rows,
        "verdict": _verdict(rows),
        "timing": {"seconds": watch.total(), "phases": watch.phases()},
    }
    return JobOutcome(result=result, artifacts=rank_artifacts(rows))


def order(spec: RankSpec, cells: Sequence[Cell], ends: Mapping[str, SubJobEnd]) -> list[dict[str, Any]]:
    """A row a cell, the best first; `ends` are the diagnoses, by the cell's name."""
    rows = [_row(spec, cell, ends.get(cell.name)) for cell in cells]
    predicted = [row for row in rows if row["predicted"] is not None]
    shares = probability_of_being_best(
        [(row["predicted"]["accuracy"], row["n_samples"]) for row in predicted], seed=spec.seed
    )
    for row, share in zip(predicted, shares, strict=True):
        row["probability_best"] = share
    return sorted(rows, key=_merit, reverse=True)


def probability_of_being_best(accuracies: Sequence[tuple[float, int]], *, seed: int) -> list[float]:
    """For each (accuracy, number of samples) the share of draws of its posterior that is above all others'."""
    if not accuracies:
        return []
    generator = np.random.default_rng(seed)
    draws = np.stack(
        [generator.beta(share * n + 0.5, (1 - share) * n + 0.5, size=DRAWS) for share, n in accuracies], axis=1
    )
    wins = np.bincount(draws.argmax(1), minlength=len(accuracies))
    return [float(count) / DRAWS for count in wins]


def _diagnosis(spec: RankSpec, cell: Cell) -> DiagnoseSpec:
    return DiagnoseSpec(
        dataset=spec.dataset,
        backbone=spec.backbones[cell.backbone],
        input_transform=spec.input_transforms[cell.input_transform],
        label_mapping=spec.label_mappings[cell.label_mapping],
        samples=spec.samples,
        kernel=spec.kernel,
        device=spec.device,
        seed=spec.seed,
        budget=spec.budget,
    )


def _row(spec: RankSpec, cell: Cell, end: SubJobEnd | None) -> dict[str, Any]:
    diagnosis = (end.result if end is not None else None) or {}
    predicted, n_samples = diagnosis.get("predicted"), diagnosis["spectrum"]["n_samples"] if diagnosis else None
    if predicted is not None:
        n_samples = predicted.get("n_samples", n_samples)  # fewer, or none, where the kernel is too large
        predicted = predicted if n_samples else None
    if not cell.trains and cell.untrained is not None and cell.n_samples:
        interval = accuracy_interval(round(cell.untrained * cell.n_samples), cell.n_samples)
        predicted, n_samples = {"accuracy": cell.untrained, "accuracy_interval": list(interval)}, cell.n_samples
    return {
        "backbone": spec.backbones[cell.backbone],
        "input_transform": spec.input_transforms[cell.input_transform].model_dump(mode="json"),
        "label_mapping": spec.label_mappings[cell.label_mapping].model_dump(mode="json"),
        "scores": {"untrained_accuracy": cell.untrained, **cell.scores},
        "predicted": predicted and {key: predicted[key] for key in ("accuracy", "accuracy_interval")},
        "probability_best": None,
        "baselines": diagnosis.get("baselines"),
        "verdict": diagnosis.get("verdict") if cell.trains else _NOTHING_TO_TRAIN,
        "n_samples": n_samples,
        "error": cell.error or (dict(end.error or {"code": end.status}) if end and end.result is None else None),
    }


def _merit(row: Mapping[str, Any]) -> tuple[int, float, float]:
    predicted, scores = row["predicted"], row["scores"]
    known = 2 if predicted else 0 if row["error"] else 1
    first = predicted["accuracy"] if predicted else scores["untrained_accuracy"] or 0.0
    return known, first, scores["logme"] or 0.0


def _verdict(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    best = rows[0]
    if best["predicted"] is None:
        return {"label": "undecided", "reason": "No cell could be diagnosed: the order is that of the cheap scores."}
    low, high = best["predicted"]["accuracy_interval"]
    cell = f"{best['backbone']} with {best['input_transform']['kind']} and {best['label_mapping']['kind']}"
    n_predicted = sum(row["predicted"] is not None for row in rows)
    reason = (
        f"Of {len(rows)} cells, {n_predicted} predicted, {cell} is predicted best: {best['predicted']['accuracy']:.1%} "
        f"(90 % interval {low:.1%} to {high:.1%}), with a probability of {best['probability_best']:.0%}. "
        f"{best['verdict']['reason']}"
    )
    return {"label": best["verdict"]["label"], "reason": reason}
