"""Rules that hold for every source file of the product."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("api", "cli", "migrations", "mr_core", "service", "worker")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# Each can run what an attacker wrote into a file.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"torch.load", "torch.hub.load", "yaml.load", "pandas.read_pickle", "eval", "exec"}


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _findings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        yield from (name for name in names if name.split(".")[0] in FORBIDDEN_MODULES)
        if isinstance(node, ast.Call):
            name = _dotted(node.func)
            if name in FORBIDDEN_CALLS:
                yield f"{name} at line {node.lineno}"
            if name in ("np.load", "numpy.load") and not any(
                keyword.arg == "allow_pickle"
                and isinstance(keyword.value, ast.Constant)
                and keyword.value.value is False
                for keyword in node.keywords
            ):
                yield f"{name} without allow_pickle=False at line {node.lineno}"


def test_there_are_sources():
    assert len(SOURCES) > 100


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_or_executed(path: Path):
    assert list(_findings(path)) == []


@pytest.mark.parametrize(
    "code", ["import pickle", "from joblib import load", "torch.load(f)", "np.load(f)", "np.load(f, allow_pickle=True)"]
)
def test_the_rule_would_notice(code: str, tmp_path: Path):
    path = tmp_path / "sample.py"
    path.write_text(code)
    assert list(_findings(path))
