import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mr_core.jobs.outcome import SpectrumContent
from mr_core.plots.confusion import confusion_figure
from mr_core.plots.curves import curves_figure, predicted_figure
from mr_core.plots.figure import label, render
from mr_core.plots.mapping import mapping_figure
from mr_core.plots.prompt import prompt_figure
from mr_core.plots.search import search_figure
from mr_core.plots.spectrum import spectrum_figure

HOSTILE = ["a", "$x^2$", "<script>", "猫", "bell\x07", "n" * 300]


def spectrum(eigenvalues, limit=None):
    values = np.asarray(eigenvalues, dtype=np.float64)
    energy = np.linspace(0.1, 1, values.size)
    return SpectrumContent(values, energy, {"resolution": {"limit": limit, "reason": None}})


def trial(number, *accuracies, name="padding + iterative"):
    rungs = [{"epochs": 3**n, "validation_accuracy": accuracy} for n, accuracy in enumerate(accuracies)]
    trainer = None if name == "linear_probe" else {"kind": "gradient"}
    return {
        "number": number,
        "name": name,
        "trainer": trainer,
        "rungs": rungs,
        "validation_accuracy": max(accuracies, default=None),
    }


def figures():
    confusion = np.arange(len(HOSTILE) ** 2).reshape(len(HOSTILE), -1)
    return {
        "spectrum": spectrum_figure(spectrum([10.0, 1.0, 1e-13, -1e-16], limit=1e-12)),
        "curves": curves_figure([{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.0}]),
        "prompt": prompt_figure(np.full((12, 12, 3), 1.5)),
        "mapping": mapping_figure(np.eye(9, len(HOSTILE)), [str(row) for row in range(9)], HOSTILE),
        "confusion": confusion_figure(confusion, HOSTILE),
        "search": search_figure([trial(0, 0.5, name="linear_probe"), trial(1, 0.4, 0.6), trial(2)]),
    }


@pytest.mark.parametrize("form", ["svg", "png"])
@pytest.mark.parametrize("name", ["spectrum", "curves", "prompt", "mapping", "confusion", "search"])
def test_the_same_data_gives_the_same_bytes(name, form):
    assert render(figures()[name], form) == render(figures()[name], form)


@pytest.mark.parametrize("name", ["mapping", "confusion"])
def test_hostile_class_names_stay_text(name):
    svg = render(figures()[name], "svg")
    ElementTree.fromstring(svg)
    assert b"<script>" not in svg
    assert b"$x^2$" in svg


def test_labels_are_short_and_printable():
    assert label("n" * 300).endswith("…")
    assert len(label("n" * 300)) == 24
    assert "\x07" not in label("bell\x07")


def test_eigenvalues_under_the_resolution_are_told_apart():
    axes = spectrum_figure(spectrum([10.0, 1.0, 1e-13], limit=1e-12)).axes[0]
    points = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert points["resolved"] == [10.0, 1.0]
    assert points["not resolved"] == [1e-13]
    assert points["resolution 1.0e-12"] == [1e-12, 1e-12]


def test_eigenvalues_not_above_zero_are_counted():
    assert "2 of 3 are 0 or below" in spectrum_figure(spectrum([1.0, 0.0, -1e-9])).axes[0].get_xlabel()


@pytest.mark.parametrize("eigenvalues", [[0.0, -1.0], []])
def test_a_spectrum_without_positive_eigenvalues_is_drawn(eigenvalues):
    assert render(spectrum_figure(spectrum(eigenvalues)), "svg")


def test_a_long_spectrum_keeps_its_ends_and_few_points():
    axes = spectrum_figure(spectrum(np.geomspace(1e3, 1e-3, 20_000))).axes[0]
    ranks = axes.get_lines()[0].get_xdata()
    assert (ranks[0], ranks[-1]) == (1, 20_000)
    assert len(ranks) <= 400


def test_losses_and_accuracies_have_a_panel_each():
    rows = [{"epoch": 1, "train_loss": 2.0, "validation_accuracy": None, "learning_rate": 0.1},
            {"epoch": 2, "train_loss": 1.0, "validation_accuracy": 0.5, "learning_rate": 0.1}]  # fmt: skip
    loss, accuracy = curves_figure(rows).axes
    assert list(loss.get_lines()[0].get_ydata()) == [2.0, 1.0]
    assert list(accuracy.get_lines()[0].get_xdata()) == [2]


def test_a_prediction_stands_beside_what_was_measured_of_it():
    curve = [{"step": 0, "loss": 0.45}, {"step": 10, "loss": 0.2}]
    steps = [
        {"step": 0, "predicted_loss": 1.0, "measured_loss": 1.0},
        {"step": 1, "predicted_loss": 0.8, "measured_loss": 0.9},
    ]
    whole, first = predicted_figure(curve, steps).axes
    assert list(whole.get_lines()[0].get_ydata()) == [0.45, 0.2]
    assert [list(line.get_ydata()) for line in first.get_lines()] == [[1.0, 0.8], [1.0, 0.9]]
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["predicted", "measured"]
    assert len(predicted_figure(curve, []).axes) == 1


def test_an_empty_history_says_so():
    assert curves_figure([]).axes[0].texts[0].get_text() == "nothing was trained"


def test_a_one_to_one_mapping_is_a_diagonal_of_the_chosen_outputs():
    matrix = np.zeros((100, 3))
    matrix[[70, 5, 40], [0, 1, 2]] = 1
    axes = mapping_figure(matrix, [f"source {row}" for row in range(100)], ["a", "b", "c"]).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["source 70", "source 5", "source 40"]
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), np.eye(3))
    assert "3 of 100" in axes.get_title(loc="left")


def test_a_mapping_of_zeros_is_drawn():
    assert render(mapping_figure(np.zeros((4, 2)), list("wxyz"), ["a", "b"]), "png")


def test_confusion_is_shaded_by_the_share_of_the_true_class():
    axes = confusion_figure(np.array([[3, 1], [0, 0]]), ["a", "b"]).axes[0]
    np.testing.assert_allclose(axes.get_images()[0].get_array(), [[0.75, 0.25], [0, 0]])
    assert [text.get_text() for text in axes.texts] == ["3", "1"]


def test_a_search_shows_each_rung_and_the_probe():
    svg = render(figures()["search"], "svg").decode()
    assert all(text in svg for text in ("1 epoch", "3 epochs", "linear probe", "best so far"))
    assert "no trial succeeded" in render(search_figure([trial(0)]), "svg").decode()
