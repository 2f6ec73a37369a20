"""Which of the backbone's outputs speak for which target class."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mr_core.plots.figure import blank, label, panel

_ROWS, _NAMED_CLASSES = 40, 60


def mapping_figure(matrix: NDArray[np.floating], rows: Sequence[str], classes: Sequence[str]) -> Figure:
    """The map `(d, c)` as a heat map, classes across; of many rows, those with the greatest weights.

    Rows are ordered by the class they weigh most for, so a one-to-one mapping is a diagonal.
    """
    strength = np.abs(matrix).max(axis=1)
    kept = np.argsort(-strength, kind="stable")[:_ROWS]
    kept = kept[strength[kept] > 0]
    strongest = np.abs(matrix[kept]).argmax(axis=1)
    kept = kept[np.lexsort((kept, strongest))]
    shown = matrix[kept]
    figure = blank(min(14, 3.2 + 0.28 * len(classes)), min(12, 1.8 + 0.2 * max(len(kept), 4)))
    count = f", {len(kept)} of {matrix.shape[0]} outputs" if len(kept) < matrix.shape[0] else ""
    axes = panel(figure.subplots(), title=f"Label mapping{count}", x="target class", y="backbone output")
    if len(kept) == 0:
        axes.text(0.5, 0.5, "every weight is 0", transform=axes.transAxes, ha="center")
        return figure
    limit = float(np.abs(shown).max())
    signed = bool((shown < 0).any())
    image = axes.imshow(
        shown, aspect="auto", interpolation="nearest", cmap="RdBu_r" if signed else "Blues",
        vmin=-limit if signed else 0, vmax=limit,
    )  # fmt: skip
    figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)
    axes.set_yticks(range(len(kept)), [label(rows[index]) for index in kept], fontsize=7)
    if len(classes) <= _NAMED_CLASSES:
        axes.set_xticks(range(len(classes)), [label(name) for name in classes], rotation=90, fontsize=7)
    return figure
