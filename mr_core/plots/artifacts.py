"""The files that a finished job leaves beside its result: each picture as svg and png, and the report."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mr_core.jobs.outcome import Artifact, SpectrumContent
from mr_core.plots.confusion import confusion_figure
from mr_core.plots.curves import curves_figure, predicted_figure
from mr_core.plots.figure import MEDIA_TYPES, render
from mr_core.plots.mapping import mapping_figure
from mr_core.plots.prompt import prompt_figure
from mr_core.plots.ranking import ranking_figure
from mr_core.plots.search import search_figure
from mr_core.plots.spectrum import spectrum_figure
from mr_core.report import diagnose_report, reprogram_report, train_source_report

_FORMS: tuple[Literal["svg", "png"], ...] = ("svg", "png")


def reprogram_artifacts(
    *,
    result: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    frame: NDArray[np.floating] | None,
    mapping: NDArray[np.floating] | None,
    mapping_rows: Sequence[str],
    classes: Sequence[str],
    confusion: NDArray[np.integer],
    spec: Mapping[str, Any],
    provenance: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]] = (),
) -> list[Artifact]:
    """Pictures and report of a training.

    `history` has a row an epoch (see `curves_figure`), `frame` is the prompt's canvas `(s, s, 3)` in [0, 1], `mapping`
    the map `(d, c)` with a name for each of its rows, `confusion` the test split's counts `(c, c)`, true classes down.
    `trials` are those of the search that chose what was trained.
    """
    figures = {"curves": curves_figure(history), "confusion": confusion_figure(confusion, classes)}
    if frame is not None:
        figures["prompt"] = prompt_figure(frame)
    if mapping is not None:
        figures["mapping"] = mapping_figure(mapping, mapping_rows, classes)
    if trials:
        figures["search"] = search_figure(trials)
    pictures = _rendered(figures)
    report = reprogram_report(
        result=result, pictures=_svgs(pictures), classes=classes, spec=spec, provenance=provenance
    )
    return [*pictures, Artifact("report.html", "text/html", report.encode())]


def diagnose_artifacts(
    *,
    result: Mapping[str, Any],
    spectrum: SpectrumContent,
    classes: Sequence[str],
    spec: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> list[Artifact]:
    """Pictures and report of a diagnosis; the predicted curve is drawn where `result` has rows for it."""
    figures = {"spectrum": spectrum_figure(spectrum)}
    predicted = result.get("predicted", {})
    if predicted.get("training_curve"):
        figures["curves"] = predicted_figure(predicted["training_curve"], predicted.get("first_steps", []))
    pictures = _rendered(figures)
    report = diagnose_report(result=result, pictures=_svgs(pictures), classes=classes, spec=spec, provenance=provenance)
    return [*pictures, Artifact("report.html", "text/html", report.encode())]


def evaluate_artifacts(*, classes: Sequence[str], confusion: NDArray[np.integer]) -> list[Artifact]:
    """The confusion `(c, c)` of an evaluation, true classes down."""
    return _rendered({"confusion": confusion_figure(confusion, classes)})


def train_source_artifacts(
    *,
    result: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    confusion: NDArray[np.integer],
    spectrum: SpectrumContent | None,
    spec: Mapping[str, Any],
) -> list[Artifact]:
    """Pictures and report of a source model's training, with the spectrum of its kernel where it was taken."""
    figures = {"curves": curves_figure(history), "confusion": confusion_figure(confusion, classes)}
    if spectrum is not None:
        figures["spectrum"] = spectrum_figure(spectrum)
    pictures = _rendered(figures)
    report = train_source_report(
        result=result, pictures=_svgs(pictures), classes=classes, spec=spec, provenance=result["provenance"]
    )
    return [*pictures, Artifact("report.html", "text/html", report.encode())]


def rank_artifacts(rows: Sequence[Mapping[str, Any]]) -> list[Artifact]:
    """The picture of a ranking, from the rows of its result."""
    return _rendered({"ranking": ranking_figure(rows)})


def _rendered(figures: Mapping[str, Figure]) -> list[Artifact]:
    return [
        Artifact(f"plots/{name}.{form}", MEDIA_TYPES[form], render(figure, form))
        for name, figure in figures.items()
        for form in _FORMS
    ]


def _svgs(pictures: Sequence[Artifact]) -> dict[str, str]:
    return {
        picture.name.removeprefix("plots/").removesuffix(".svg"): picture.content.decode()
        for picture in pictures
        if picture.name.endswith(".svg")
    }
