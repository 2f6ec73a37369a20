"""How a search went."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mr_core.plots.figure import FAINT, INK, SERIES, blank, label, panel

_BASELINES = ("linear_probe", "zero_shot")


def search_figure(trials: Sequence[Mapping[str, Any]]) -> Figure:
    """What each trial reached on validation images at each of its rungs, and the best of all until then.

    Each row is a trial of the result: `number`, `name`, `trainer` (None where there was nothing to train), and `rungs`
    with `epochs` and `validation_accuracy`. The baselines among them are lines.
    """
    figure = blank(9, 3.6)
    axes = panel(figure.subplots(), title="Trials", x="trial", y="validation accuracy in %")
    judged = [row for row in trials if row["rungs"]]
    if not judged:
        axes.text(0.5, 0.5, "no trial succeeded", transform=axes.transAxes, ha="center", color=FAINT)
        return figure
    found = [row for row in judged if row["name"] not in _BASELINES]
    points: dict[int, list[tuple[int, float]]] = {}  # by epochs, 0 of what was not trained
    for row in found:
        for rung in row["rungs"]:
            at = rung["epochs"] if row["trainer"] is not None else 0
            points.setdefault(at, []).append((row["number"], 100 * rung["validation_accuracy"]))
    for n, at in enumerate(sorted(points)):
        text = f"{at} epoch{'s' if at > 1 else ''}" if at else "untrained"
        colour = SERIES[n % len(SERIES)]
        axes.plot(*zip(*points[at], strict=True), "o", color=colour, markersize=4, label=text)
    for row in found:
        reached = [100 * rung["validation_accuracy"] for rung in row["rungs"]]
        axes.plot([row["number"]] * len(reached), reached, color=FAINT, linewidth=0.8, zorder=0)
    for row, style in zip((row for row in judged if row["name"] in _BASELINES), ("--", ":"), strict=False):
        accuracy = 100 * row["validation_accuracy"]
        axes.axhline(accuracy, color=INK, linestyle=style, linewidth=1, label=label(row["name"].replace("_", " ")))
    best, steps = 0.0, []
    for row in judged:
        best = max(best, 100 * row["validation_accuracy"])
        steps.append((row["number"], best))
    axes.step(*zip(*steps, strict=True), where="post", color=FAINT, linewidth=1.6, label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
