"""What every picture shares: a blank figure without pyplot's global state, safe labels, the same bytes each time."""

import io
import warnings
from typing import Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, ACCENT, CONTRAST, FAINT = "#1f2937", "#2563eb", "#d97706", "#9ca3af"
SERIES = (ACCENT, CONTRAST, "#059669", "#7c3aed", "#dc2626", "#0891b2")
MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png"}


def blank(width: float, height: float) -> Figure:
    """An empty white figure of `width` by `height` inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def panel(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> Axes:
    """Give axes their words and the house's thin look."""
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def label(name: str, limit: int = 24) -> str:
    """A class name as plain text: no formula between dollar signs, nothing unprintable, at most `limit` characters."""
    shown = "".join(character if character.isprintable() else "\ufffd" for character in name)
    shown = shown if len(shown) <= limit else shown[: limit - 1] + "…"
    return shown.replace("$", r"\$")


def render(figure: Figure, form: Literal["svg", "png"]) -> bytes:
    """The picture's bytes; the same figure gives the same bytes, with no date inside."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {"Software": None}
    # Text stays text in an svg (small, searchable, any script); a salt makes its ids repeat from run to run.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mr"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # measured only, not drawn
        figure.savefig(buffer, format=form, dpi=144, metadata=metadata)
    return buffer.getvalue()
