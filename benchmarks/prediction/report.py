"""What the grid says: how well each predictor orders and hits what training reached, with bootstrap intervals."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import rankdata

from mr_core.ntk.calibration import COVERAGE, FEATURES, Measured, fit, left_out, share_of

DRAWS = 2000
FEWEST_TEST_IMAGES = 200  # for errors in points

Outcomes = Mapping[str, Mapping[str, Any]]
Statistic = Callable[[Sequence["Row"]], float]


@dataclass(frozen=True)
class Row:
    """A combination: what training reached, and what each predictor said before (NaN where it says nothing)."""

    name: str
    data: str
    reached: float
    n_test: int
    said: Mapping[str, float]
    covered: bool


ACCURACIES = ("predicted", "linearised", "untrained", "linear probe")
SCORES = ("probe, validation", "LogME", "H-score", "LEEP", "KTA")


def measured(name: str, outcome: Mapping[str, Any]) -> Measured:
    """A row of the grid as the calibration takes it."""
    return Measured(
        group=name.split("/")[0],
        shares={
            "linearised": outcome["linearised"],
            "untrained": outcome["scores"]["untrained_accuracy"],
            "linear_probe": outcome["baselines"]["linear_probe"],
        },
        n_classes=outcome["n_classes"],
        reached=outcome["reached"][0],
    )


def rows_of(outcomes: Outcomes) -> list[Row]:
    """Every row with the prediction of a calibration that never saw its dataset."""
    inputs = {name: measured(name, outcome) for name, outcome in outcomes.items()}
    names = {id(row): name for name, row in inputs.items()}
    guesses = {names[id(row)]: guess for row, guess in left_out(list(inputs.values()))}
    widths = {
        group: fit([row for row in inputs.values() if row.group != group], version="left out").half_width
        for group in {row.group for row in inputs.values()}
    }
    rows = []
    for name, outcome in outcomes.items():
        group, c = inputs[name].group, outcome["n_classes"]
        low, high = (share_of(guesses[name] + side * widths[group], c) for side in (-1, 1))
        scores = outcome["scores"]
        said = {
            "predicted": share_of(guesses[name], c),
            "linearised": outcome["linearised"],
            "untrained": scores["untrained_accuracy"],
            "linear probe": outcome["baselines"]["linear_probe"],
            "probe, validation": outcome["probe_validation"],
            "LogME": scores["logme"],
            "H-score": scores["h_score"],
            "LEEP": math.nan if scores["leep"] is None else scores["leep"],
            "KTA": scores["kernel_target_alignment"],
        }
        reached = outcome["reached"][0]
        rows.append(Row(name, group, reached, outcome["n_test"], said, low <= reached <= high))
    return rows


def page(outcomes: Outcomes, *, settings: str) -> str:
    """The results as markdown."""
    rows = rows_of(outcomes)
    trained = [row for row in rows if "/random:" not in row.name]
    calibration = fit([measured(name, outcome) for name, outcome in outcomes.items()], version="all")
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in calibration.weights.items())
    lines = [
        "# Predicted against reached accuracy",
        "",
        settings,
        "",
        f"{len(rows)} combinations on {len({row.data for row in rows})} datasets. *Predicted*: log odds of {weights},",
        f"intercept {calibration.intercept:.2f} (features: {', '.join(FEATURES)}); here always fitted without the",
        "dataset it is judged on. Intervals are 90 %, from 2,000 bootstrap draws over datasets.",
        "",
        *_table("All rows", rows),
        "",
        *_table("Without random backbones", trained),
        "",
        "## Rows",
        "",
        "| combination | reached | predicted | linearised | untrained | linear probe | in its interval |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row.data, -row.reached)):
        said = " | ".join(f"{100 * row.said[name]:.1f}" for name in ACCURACIES)
        lines.append(f"| {row.name} | {100 * row.reached:.1f} | {said} | {'yes' if row.covered else 'no'} |")
    return "\n".join(lines) + "\n"


def _table(title: str, rows: Sequence[Row]) -> list[str]:
    lines = [
        f"## {title}",
        "",
        "| predictor | Spearman, all | Spearman within a dataset | mean absolute error, points | regret, points |",
        "|---|---|---|---|---|",
    ]
    for name in (*ACCURACIES, *SCORES):
        known = [row for row in rows if not math.isnan(row.said[name])]
        cells = [
            _with_interval(partial(overall, name=name), known),
            _with_interval(partial(within, name=name), known),
            _with_interval(partial(error, name=name), known, scale=100) if name in ACCURACIES else "-",
            _with_interval(partial(regret, name=name), known, scale=100),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    share = float(np.mean([row.covered for row in rows]))
    lines += ["", f"Inside its {COVERAGE:.0%} interval: {_with_interval(coverage, rows, scale=100)} % ({share:.0%})."]
    return lines


def overall(rows: Sequence[Row], *, name: str) -> float:
    """Spearman's rank correlation over all rows."""
    return _spearman([row.said[name] for row in rows], [row.reached for row in rows])


def within(rows: Sequence[Row], *, name: str) -> float:
    """Its mean over datasets, each dataset's own."""
    return float(np.nanmean([overall(inside, name=name) for inside in _by_data(rows)]))


def error(rows: Sequence[Row], *, name: str) -> float:
    """Mean absolute error of the accuracy, on sets with enough test images."""
    errors = [abs(row.said[name] - row.reached) for row in rows if row.n_test >= FEWEST_TEST_IMAGES]
    return float(np.mean(errors)) if errors else math.nan


def regret(rows: Sequence[Row], *, name: str) -> float:
    """What the first choice loses against the best of its dataset, mean over datasets."""
    losses = []
    for inside in _by_data(rows):
        first = max(inside, key=lambda row: row.said[name])
        losses.append(max(row.reached for row in inside) - first.reached)
    return float(np.mean(losses))


def coverage(rows: Sequence[Row]) -> float:
    """Share of rows inside their interval."""
    return float(np.mean([row.covered for row in rows]))


def _with_interval(statistic: Statistic, rows: Sequence[Row], *, scale: float = 1) -> str:
    if not rows:
        return "-"
    groups = _by_data(rows)
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        chosen = generator.integers(0, len(groups), len(groups))
        # A dataset that is drawn twice stays two groups.
        drawn = [
            Row(row.name, f"{row.data} {place}", row.reached, row.n_test, row.said, row.covered)
            for place, index in enumerate(chosen)
            for row in groups[index]
        ]
        draws.append(statistic(drawn))
    low, high = np.nanquantile(draws, [0.05, 0.95])
    digits = 1 if scale == 100 else 2
    return f"{scale * statistic(rows):.{digits}f} ({scale * low:.{digits}f} to {scale * high:.{digits}f})"


def _by_data(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.data, []).append(row)
    return list(groups.values())


def _spearman(first: Sequence[float], second: Sequence[float]) -> float:
    if len(set(first)) < 2 or len(set(second)) < 2:
        return math.nan
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])
