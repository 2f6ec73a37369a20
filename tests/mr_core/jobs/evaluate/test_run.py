"""An adapter of three digits, judged on datasets it was and was not trained on."""

import zipfile
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mr_core import JobSpec, run
from mr_core.adapter_file import zip_adapter
from mr_core.errors import DatasetError, SpecError

DIGITS = load_digits()


def _archive(path: Path, digits: tuple[int, ...], *, train: range, test: range) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for digit in digits:
            values = DIGITS.images[DIGITS.target == digit]
            for split, rows in (("train", train), ("test", test)):
                for i in rows:
                    with target.open(f"{split}/{digit}/{i}.png", "w") as file:
                        Image.fromarray((values[i] * 255 / 16).astype("uint8")).save(file, "PNG")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    archive = _archive(folder / "digits.zip", (0, 1, 7), train=range(10), test=range(10, 16))
    spec = {"kind": "reprogram", "dataset": "d", "trainer": {"kind": "gradient", "epochs": 1, "batch_size": 16}}
    outcome = run(JobSpec.parse(spec), archive)
    adapter = folder / "adapter.zip"
    adapter.write_bytes(zip_adapter(outcome.adapter))
    return archive, adapter, outcome.result


def _evaluate(archive: Path, adapter: Path, **changes):
    spec = JobSpec.parse({"kind": "evaluate", "dataset": "d", "adapter": "ad_1"} | changes)
    return run(spec, archive, adapter=adapter)


def test_the_same_test_split_gives_the_same_metrics(trained):
    archive, adapter, result = trained
    outcome = _evaluate(archive, adapter)
    found, expected = outcome.result["metrics"]["test"], result["metrics"]["test"]
    assert found["confusion"] == expected["confusion"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert outcome.result["seen_in_training"] is False
    assert {artifact.name for artifact in outcome.artifacts} == {
        "plots/confusion.svg",
        "plots/confusion.png",
        "predictions.csv",
    }
    assert _evaluate(archive, adapter, split="train").result["seen_in_training"] is True


def test_classes_are_matched_by_name(trained, tmp_path):
    archive = _archive(tmp_path / "two.zip", (1, 7), train=range(2), test=range(10, 16))
    result = _evaluate(archive, trained[1]).result["metrics"]["test"]
    whole = _evaluate(trained[0], trained[1]).result["metrics"]["test"]
    assert [row["n"] for row in result["per_class"]] == [0, 6, 6]
    assert result["confusion"][1:] == whole["confusion"][1:]


def test_refuses_classes_the_adapter_does_not_know(trained, tmp_path):
    archive = _archive(tmp_path / "other.zip", (1, 8), train=range(2), test=range(2, 4))
    with pytest.raises(SpecError, match="does not know the classes 8"):
        _evaluate(archive, trained[1])


def test_refuses_an_empty_split(trained, tmp_path):
    path = tmp_path / "tiny.zip"
    with zipfile.ZipFile(path, "w") as target:  # two images a class: too few to carve a test split from
        for digit in (0, 1):
            for i in range(2):
                with target.open(f"{digit}/{i}.png", "w") as file:
                    Image.fromarray((DIGITS.images[DIGITS.target == digit][i] * 16).astype("uint8")).save(file, "PNG")
    with pytest.raises(DatasetError, match="no test images"):
        _evaluate(path, trained[1])
