"""The learned prompt as the backbone sees it."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mr_core.plots.figure import blank, panel


def prompt_figure(canvas: NDArray[np.floating]) -> Figure:
    """The canvas `(s, s, 3)`, values in [0, 1], pixel for pixel; values outside are clipped."""
    figure = blank(4.2, 4.4)
    axes = panel(figure.subplots(), title=f"Learned prompt, {canvas.shape[0]} pixels a side")
    axes.imshow(np.clip(canvas, 0, 1), interpolation="nearest")
    axes.set_axis_off()
    return figure
