import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mr_core.jobs.outcome import SpectrumContent
from mr_core.plots import diagnose_artifacts, reprogram_artifacts

HOSTILE = "</pre><script>alert(1)</script>"
TRAINED = {
    "metrics": {"validation": {"accuracy": 0.91, "loss": 0.3}, "test": {"accuracy": 0.9, "loss": 0.31}},
    "baselines": {
        "majority": {"validation": 0.1, "test": 0.11},
        "mapping_only": {"validation": {"accuracy": 0.3}, "test": {"accuracy": 0.29}},
        "linear_probe": {"validation": 0.953, "test": 0.941},
        "zero_shot": None,
        "random_backbone": None,
    },
    "verdict": {"use": "linear_probe", "reason": "the probe is better"},
    "timing": {"seconds": 12.0, "images_per_second": None},
    "trainable_parameters": 20736,
    "backbone_unchanged": True,
}
DIAGNOSED = {
    "spectrum": {"n_samples": 2, "lambda_min": None, "label_energy": [[1, 0.5]], "resolution": {"limit": 1e-9}},
    "predicted": {"accuracy": 0.85, "accuracy_interval": [0.8, 0.9], "training_curve": [{"step": 1, "loss": 0.5}]},
    "verdict": {"label": "promising", "reason": "labels lie on top"},
}


class Reader(HTMLParser):
    """Collects tags, attributes and table cells."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.cells, self.open_cell = [], [], [], False

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag in {"td", "th"}:
            self.cells.append("")
            self.open_cell = True

    def handle_endtag(self, tag):
        self.open_cell = self.open_cell and tag not in {"td", "th"}

    def handle_data(self, data):
        if self.open_cell:
            self.cells[-1] += data


def training(classes=("a", "b"), result=TRAINED):
    return reprogram_artifacts(
        result=result, history=[{"epoch": 1, "train_loss": 1.0}], frame=np.zeros((8, 8, 3)), mapping=np.eye(3, 2),
        mapping_rows=["x", "y", "z"], classes=classes, confusion=np.eye(2, dtype=int),
        spec={"kind": "reprogram", "backbone": "builtin/mini-clip", "dataset": HOSTILE},
        provenance={"mr_core": HOSTILE},
    )  # fmt: skip


def diagnosis():
    content = SpectrumContent(np.array([2.0, 1.0]), np.array([0.5, 1.0]), {})
    return diagnose_artifacts(result=DIAGNOSED, spectrum=content, classes=["a", "b"], spec={}, provenance={})


def read(artifacts):
    page = artifacts[-1].content.decode()
    reader = Reader()
    reader.feed(page)
    return page, reader


def test_a_training_leaves_each_picture_twice_and_the_report():
    assert [artifact.name for artifact in training()] == [
        *(f"plots/{name}.{form}" for name in ("curves", "confusion", "prompt", "mapping") for form in ("svg", "png")),
        "report.html",
    ]


def test_a_diagnosis_leaves_spectrum_predicted_curve_and_report():
    names = {artifact.name: artifact.media_type for artifact in diagnosis()}
    assert names["plots/spectrum.svg"] == "image/svg+xml"
    assert names["plots/curves.png"] == "image/png"
    assert names["report.html"] == "text/html"


def test_the_adapter_stands_beside_every_baseline():
    _, reader = read(training())
    row = reader.cells.index("A linear probe on the frozen features")
    assert reader.cells[row + 1 : row + 3] == ["95.3 %", "94.1 %"]
    row = reader.cells.index("Zero-shot by class names")
    assert reader.cells[row + 1 : row + 3] == ["-", "-"]
    row = reader.cells.index("This adapter")
    assert reader.cells[row + 1 : row + 3] == ["91.0 %", "90.0 %"]


def test_an_adapter_worse_than_a_baseline_is_not_recommended():
    page, _ = read(training())
    assert "Use the baseline linear probe instead" in page
    assert 'class="verdict"' in page


def test_the_predicted_accuracy_comes_with_its_interval():
    page, _ = read(diagnosis())
    assert "85.0 %" in page
    assert "80.0 % to 90.0 %" in page


@pytest.mark.parametrize("make", [training, diagnosis])
def test_the_page_asks_nothing_of_anyone(make):
    page, reader = read(make())
    assert not {"script", "link", "iframe", "img", "object"} & set(reader.tags)
    links = [value for name, value in reader.attributes if name in {"src", "href", "xlink:href", "action"}]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"@import|url\((?!#)", page)


def test_what_a_client_wrote_is_escaped():
    page, _ = read(training(classes=(HOSTILE, "b")))
    assert "<script" not in page


def test_the_same_result_gives_the_same_page():
    assert training()[-1].content == training()[-1].content


def test_ids_of_the_pictures_do_not_collide():
    _, reader = read(training())
    ids = [value for name, value in reader.attributes if name == "id"]
    pictures = {identifier.split("-")[0] for identifier in ids}
    assert pictures == {"curves", "confusion", "prompt", "mapping"}
