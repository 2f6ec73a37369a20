import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from mr_core import JobSpec

CONTRACTS = Path(__file__).parents[1] / "contracts" / "job_specs"


@pytest.mark.parametrize("path", sorted(CONTRACTS.glob("*.json")), ids=lambda path: path.stem)
def test_released_specs_keep_loading(path: Path):
    spec = JobSpec.parse(path.read_text())
    assert (
        json.loads(path.read_text()).items() <= {**spec.model_dump(mode="json"), **json.loads(path.read_text())}.items()
    )
    assert JobSpec.parse(spec.model_dump(mode="json")) == spec


def test_the_contract_folder_is_not_empty():
    assert list(CONTRACTS.glob("*.json"))


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"kind": "reprogram", "dataset": "ds_1", "colour": 1}, "colour"),
        (
            {"kind": "reprogram", "dataset": "ds_1", "input_transform": {"kind": "padding", "image_sise": 4}},
            "image_sise",
        ),
        ({"kind": "reprogram", "dataset": "ds_1", "trainer": {"kind": "gradient", "epochs": 0}}, "epochs"),
        (
            {"kind": "reprogram", "dataset": "ds_1", "trainer": {"kind": "gradient", "learning_rate": float("nan")}},
            "rate",
        ),
        ({"kind": "reprogram", "dataset": "ds_1", "device": "gpu", "precision": "bfloat16"}, "computed on CPU"),
        ({"kind": "diagnose", "dataset": "ds_1", "device": "gpu", "precision": "bfloat16"}, "computed on CPU"),
        ({"kind": "reprogram"}, "dataset"),
        ({"kind": "distill", "dataset": "ds_1"}, "distill"),
        ({"kind": "diagnose", "dataset": "ds_1", "samples": 1}, "samples"),
    ],
)
def test_names_what_is_wrong(spec: dict, where: str):
    with pytest.raises(ValidationError, match=where):
        JobSpec.parse(spec)


def test_selection_needs_validation_images():
    spec = {"kind": "reprogram", "dataset": "ds_1", "evaluation": {"validation_fraction": 0}}
    with pytest.raises(ValidationError, match="selection"):
        JobSpec.parse(spec)
    JobSpec.parse(spec | {"trainer": {"kind": "gradient", "selection": "last"}})
