"""How a training went, or is predicted to go."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mr_core.plots.figure import FAINT, SERIES, blank, panel

_ABSCISSAE = ("epoch", "step", "time")


def curves_figure(history: Sequence[Mapping[str, Any]], *, title: str = "Training") -> Figure:
    """Every series whose name holds `loss` in one panel, every `accuracy` in another; other keys are not drawn.

    Each row is one point: `epoch`, `step` or `time` and the values, null where a series has none there.
    """
    figure = blank(9, 3.4)
    abscissa = next((name for name in _ABSCISSAE if any(name in row for row in history)), "epoch")
    names = list(dict.fromkeys(name for row in history for name in row if name != abscissa))
    families = [(word, [name for name in names if word in name]) for word in ("loss", "accuracy")]
    shown = [(word, series) for word, series in families if series] or [("", [])]
    for axes, (word, series) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        panel(axes, title=f"{title}: {word}" if word else title, x=abscissa, y=word)
        for name, colour in zip(series, SERIES, strict=False):
            points = [(row.get(abscissa, n), row[name]) for n, row in enumerate(history) if row.get(name) is not None]
            marker = "o" if len(points) <= 40 else None
            text = name.replace(word, "").strip("_- ").replace("_", " ") or word
            x, y = zip(*points, strict=True) if points else ((), ())
            axes.plot(x, y, color=colour, marker=marker, markersize=3, linewidth=1.6, label=text)
        if series:
            axes.legend(fontsize=8, frameon=False)
        else:
            axes.text(0.5, 0.5, "nothing was trained", transform=axes.transAxes, ha="center", color=FAINT)
        axes.grid(alpha=0.25)
        if abscissa != "time":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def predicted_figure(curve: Sequence[Mapping[str, Any]], first_steps: Sequence[Mapping[str, Any]]) -> Figure:
    """What a diagnosis predicts of the loss: over a whole training, and over the steps that it measured too.

    `curve` has `step` and `loss`, `first_steps` has `step`, `predicted_loss` and `measured_loss`; without the latter
    there is one panel.
    """
    figure = blank(9 if first_steps else 5, 3.4)
    axes = figure.subplots(1, 2 if first_steps else 1, squeeze=False)[0]
    panel(axes[0], title="Predicted training: loss", x="step", y="loss")
    axes[0].plot(
        [row["step"] for row in curve], [row["loss"] for row in curve], color=SERIES[0], marker="o", markersize=3
    )
    axes[0].set_xscale("symlog", linthresh=1)
    if first_steps:
        panel(axes[1], title="First steps, measured against predicted", x="step", y="share of the first loss")
        steps = [row["step"] for row in first_steps]
        for name, colour, style in (("predicted", SERIES[0], "--"), ("measured", SERIES[1], "-")):
            values = [row[f"{name}_loss"] for row in first_steps]
            axes[1].plot(steps, values, style, color=colour, marker="o", markersize=3, linewidth=1.6, label=name)
        axes[1].legend(fontsize=8, frameon=False)
        axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for each in axes:
        each.grid(alpha=0.25)
    return figure
