"""What the grid says: how well each predictor orders and hits what training reached, with bootstrap intervals."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mr_core.ntk.calibration import COVERAGE, FEATURES, Measured, fit, left_out, share_of

DRAWS = 1000
FEWEST_TEST_IMAGES = 200  # for errors in points

Outcomes = Mapping[str, Mapping[str, Any]]
Groups = Sequence[Sequence["Row"]]  # by dataset
Statistic = Callable[[NDArray[np.int64]], float]  # of the datasets drawn, by their places


@dataclass(frozen=True)
class Row:
    """A combination: what training reached, and what each predictor said before (NaN where it says nothing)."""

    name: str
    data: str
    reached: float
    n_test: int
    said: Mapping[str, float]
    covered: bool


ACCURACIES = ("predicted", "linearised", "short training", "untrained", "linear probe")
SCORES = ("probe, validation", "LogME", "H-score", "LEEP", "KTA")


def measured(name: str, outcome: Mapping[str, Any]) -> Measured:
    """A row of the grid as the calibration takes it."""
    return Measured(
        group=name.split("/")[0],
        shares={
            "linearised": outcome["linearised"],
            "short_training": outcome["short_training"],
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
            "short training": outcome["short_training"],
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
        f"dataset it is judged on. Intervals are 90 %, from {DRAWS} bootstrap draws over datasets.",
        "",
        *_table("All rows", rows),
        "",
        *_table("Without random backbones", trained),
        "",
        "## Rows",
        "",
        f"| combination | reached | {' | '.join(ACCURACIES)} | in its interval |",
        "|---|---|" + "---|" * len(ACCURACIES) + "---|",
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
        groups = _by_data([row for row in rows if not math.isnan(row.said[name])])
        cells = [
            _with_interval(overall(groups, name=name), len(groups)),
            _with_interval(within(groups, name=name), len(groups)),
            _with_interval(error(groups, name=name), len(groups), scale=100) if name in ACCURACIES else "-",
            _with_interval(regret(groups, name=name), len(groups), scale=100),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    groups = _by_data(rows)
    lines += ["", f"Inside its {COVERAGE:.0%} interval: {_with_interval(coverage(groups), len(groups), scale=100)} %."]
    return lines


def overall(groups: Groups, *, name: str) -> Statistic:
    """Spearman's rank correlation over all rows."""
    said = [np.array([row.said[name] for row in group]) for group in groups]
    reached = [np.array([row.reached for row in group]) for group in groups]
    return lambda drawn: _spearman(*(np.concatenate([values[i] for i in drawn]) for values in (said, reached)))


def within(groups: Groups, *, name: str) -> Statistic:
    """Its mean over datasets, each dataset's own; a dataset on which all rows agree has none."""
    each = np.array([overall([group], name=name)(np.array([0])) for group in groups])
    return lambda drawn: float(np.nanmean(each[drawn])) if np.isfinite(each[drawn]).any() else math.nan


def error(groups: Groups, *, name: str) -> Statistic:
    """Mean absolute error of the accuracy, on sets with enough test images."""
    return _mean_of_rows(
        [[abs(row.said[name] - row.reached) for row in group if row.n_test >= FEWEST_TEST_IMAGES] for group in groups]
    )


def regret(groups: Groups, *, name: str) -> Statistic:
    """What the first choice loses against the best of its dataset, mean over datasets."""
    firsts = [max(group, key=lambda row: row.said[name]) for group in groups]
    losses = [max(row.reached for row in group) - first.reached for group, first in zip(groups, firsts, strict=True)]
    return lambda drawn: float(np.array(losses)[drawn].mean())


def coverage(groups: Groups) -> Statistic:
    """Share of rows inside their interval."""
    return _mean_of_rows([[float(row.covered) for row in group] for group in groups])


def _mean_of_rows(values: Sequence[Sequence[float]]) -> Statistic:
    sums, counts = (np.array([count(group) for group in values]) for count in (sum, len))
    return lambda drawn: float(sums[drawn].sum() / counts[drawn].sum()) if counts[drawn].any() else math.nan


def _with_interval(statistic: Statistic, n_groups: int, *, scale: float = 1) -> str:
    if not n_groups:
        return "-"
    generator = np.random.default_rng(0)
    # A dataset that is drawn twice stays two groups.
    draws = [statistic(generator.integers(0, n_groups, n_groups)) for _ in range(DRAWS)]
    low, high = np.nanquantile(draws, [0.05, 0.95])
    digits = 1 if scale == 100 else 2
    known = scale * statistic(np.arange(n_groups))
    return f"{known:.{digits}f} ({scale * low:.{digits}f} to {scale * high:.{digits}f})"


def _by_data(rows: Sequence[Row]) -> Groups:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.data, []).append(row)
    return list(groups.values())


def _spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean ranks of ties; scipy's own takes ten times as long on so few."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])
