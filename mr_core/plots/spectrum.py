"""The kernel's eigenvalues, and how much of the labels they explain."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mr_core.jobs.outcome import SpectrumContent
from mr_core.plots.figure import ACCENT, CONTRAST, FAINT, blank, panel


def spectrum_figure(spectrum: SpectrumContent) -> Figure:
    """Eigenvalues on log axes with the line below which they are not resolved; beside it the cumulative label energy.

    Eigenvalues of zero or less have no place on a log axis: they are counted under the axis instead.
    """
    figure = blank(9, 3.6)
    left, right = figure.subplots(1, 2)
    _eigenvalues(left, spectrum)
    ranks = _shown_ranks(spectrum.label_energy.size)
    panel(right, title="Label energy", x="eigenvectors, largest first", y="share of the labels explained")
    right.plot(ranks, spectrum.label_energy[ranks - 1], color=CONTRAST, linewidth=1.8)
    right.set_xscale("log")
    right.set_ylim(-0.02, 1.02)
    right.grid(alpha=0.25)
    return figure


def _eigenvalues(axes: Axes, spectrum: SpectrumContent) -> None:
    ranks = _shown_ranks(spectrum.eigenvalues.size)
    values = spectrum.eigenvalues[ranks - 1]
    hidden = int((spectrum.eigenvalues <= 0).sum())
    limit = (spectrum.summary.get("resolution") or {}).get("limit")
    positive = values > 0
    note = f" ({hidden} of {spectrum.eigenvalues.size} are 0 or below)" if hidden else ""
    panel(axes, title="Eigenvalues of the tangent kernel", x=f"rank{note}", y="eigenvalue")
    axes.set_xscale("log")
    if not positive.any():
        axes.text(0.5, 0.5, "no eigenvalue above 0", transform=axes.transAxes, ha="center", color=FAINT)
        return
    axes.set_yscale("log")
    resolved = positive & (values > (limit or 0))
    axes.plot(ranks[resolved], values[resolved], ".", color=ACCENT, markersize=4, label="resolved")
    below = positive & ~resolved
    if below.any():
        axes.plot(ranks[below], values[below], ".", color=FAINT, markersize=3, label="not resolved")
    if limit and limit > 0:
        axes.axhline(limit, color=CONTRAST, linestyle="--", linewidth=1, label=f"resolution {limit:.1e}")
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    axes.grid(alpha=0.25)


def _shown_ranks(n: int, points: int = 400) -> NDArray[np.int64]:
    """Ranks from 1 to `n`, thinned evenly on the log axis: a picture of 50 000 points would weigh megabytes."""
    return np.unique(np.geomspace(1, n, min(n, points)).round().astype(np.int64)) if n else np.arange(0)
