"""Clusters without settings of the environment; PostgreSQL's files are not under pytest's own folder."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Not under pytest's own folder: every pytest that starts closes that one to PostgreSQL's account."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="mr-cluster-") as name:
        for variable in [variable for variable in os.environ if variable.startswith("MR_")]:
            patch.delenv(variable)
        yield Path(name)
