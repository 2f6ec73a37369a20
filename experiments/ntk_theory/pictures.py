"""Curves over depth, one panel a quantity."""

from collections.abc import Mapping
from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mr_core.plots.figure import SERIES, blank, panel


def depth_figure(panels: Mapping[str, Mapping[str, Mapping[int, list[float]]]]) -> Figure:
    """A panel a quantity, a line a series: the mean over draws by depth, the draws as points."""
    figure = blank(4.2 * len(panels), 3.4)
    for axes, (title, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        panel(axes, title=title, x="depth of the source")
        for colour, (name, values) in zip(SERIES, series.items(), strict=False):
            if not values:
                continue
            axes.plot(
                list(values), [fmean(draws) for draws in values.values()], color=colour, linewidth=1.6, label=name
            )
            points = [(depth, value) for depth, draws in values.items() for value in draws]
            axes.scatter(*zip(*points, strict=True), color=colour, s=10, alpha=0.5)
        if "lambda" in title and any(series.values()):
            axes.set_yscale("log")
        if any(series.values()):
            axes.legend(fontsize=7, frameon=False)
        axes.grid(alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
