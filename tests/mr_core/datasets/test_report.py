import json

import pytest

from mr_core.datasets.report import DatasetReport
from mr_core.datasets.validate import pack_archive
from mr_core.errors import OneClass


def test_is_json_and_comes_back(write_zip, both, tmp_path):
    report = pack_archive(write_zip(both), tmp_path / "p.zip")
    assert DatasetReport.model_validate_json(report.model_dump_json()) == report
    assert json.loads(report.model_dump_json())["limits"]["entries"] == 200_000
    report.raise_if_invalid()


def test_raises_the_class_of_its_code(write_zip, both, tmp_path):
    report = pack_archive(write_zip(both), tmp_path / "p.zip")
    fault = {"code": "one_class", "detail": "a single class"}
    with pytest.raises(OneClass, match="a single class"):
        DatasetReport.model_validate(report.model_dump() | {"status": "invalid", "error": fault}).raise_if_invalid()
