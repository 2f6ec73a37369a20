"""Cells of a ranking, the best on top."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from mr_core.plots.figure import ACCENT, CONTRAST, FAINT, blank, label, panel

SHOWN = 30


def ranking_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Predicted accuracy of each diagnosed cell with its interval, beside its linear probe and what a short training
    reached; at most 30 cells.
    """
    shown = [row for row in rows if row["predicted"] is not None][:SHOWN]
    figure = blank(8, 1.4 + 0.32 * max(len(shown), 1))
    axes = panel(figure.subplots(), title="Predicted accuracy, with its 90 % interval", x="accuracy in %")
    if not shown:
        axes.text(0.5, 0.5, "no cell was diagnosed", transform=axes.transAxes, ha="center", color=FAINT)
        return figure
    places = range(len(shown))
    for place, row in zip(places, shown, strict=True):
        low, high = row["predicted"]["accuracy_interval"]
        axes.plot([100 * low, 100 * high], [place, place], color=ACCENT, linewidth=1.6)
    accuracies = [100 * row["predicted"]["accuracy"] for row in shown]
    axes.plot(accuracies, places, "o", color=ACCENT, markersize=5, label="adapter, predicted")
    probes = [(100 * row["baselines"]["linear_probe"], place) for place, row in enumerate(shown) if row["baselines"]]
    if probes:
        axes.plot(*zip(*probes, strict=True), "|", color=CONTRAST, markersize=9, label="linear probe")
    trained = [(100 * row["trained"]["validation_accuracy"], at) for at, row in enumerate(shown) if row["trained"]]
    if trained:
        axes.plot(*zip(*trained, strict=True), "D", color=CONTRAST, markersize=5, label="trained, validation")
    axes.set_yticks(list(places), [_name(row) for row in shown], fontsize=8)
    axes.invert_yaxis()
    axes.grid(alpha=0.25, axis="x")
    axes.legend(fontsize=8, frameon=False)
    return figure


def _name(row: Mapping[str, Any]) -> str:
    parts = (row["backbone"], row["input_transform"]["kind"], row["label_mapping"]["kind"])
    share = row["probability_best"]
    return f"{' · '.join(label(part) for part in parts)}  ({share:.0%})"
