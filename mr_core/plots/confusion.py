"""Which classes are taken for which."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mr_core.plots.figure import blank, label, panel

_NAMED_CLASSES, _COUNTED_CLASSES = 60, 20


def confusion_figure(counts: NDArray[np.integer], classes: Sequence[str]) -> Figure:
    """Counts `(c, c)`, true classes down, predicted across; shaded by the share of the true class."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    side = min(12, 2.6 + 0.3 * len(classes))
    figure = blank(side + 0.6, side)
    axes = panel(figure.subplots(), title="Confusion on the test split", x="predicted class", y="true class")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.75, label="share of the true class").ax.tick_params(labelsize=7)
    if len(classes) <= _NAMED_CLASSES:
        names = [label(name) for name in classes]
        axes.set_xticks(range(len(classes)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(classes)), names, fontsize=7)
    if len(classes) <= _COUNTED_CLASSES:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(int(count)), ha="center", va="center", fontsize=6, color=colour)
    return figure
