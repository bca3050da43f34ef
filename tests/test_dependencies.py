"""What melcodec imports is declared, and what it requires is used."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from tests import forked

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
IMPORTED = {
    "umap-learn": "umap",
    "lightning-fabric": "lightning_fabric",
    "huggingface-hub": "huggingface_hub",
}  # where it differs
# Required, but not by an import: what torch.utils.tensorboard, fsspec, speechmos, resemblyzer and webrtcvad need,
# and what reads the exports of a corpus.
BY_OTHERS = {"tensorboard", "wandb", "s3fs", "aiohttp", "requests", "webrtcvad", "setuptools", "datasets", "lhotse", "webdataset"}
HERE_ALONE = {"hf"}  # packages that need an extra as a whole, and say so when they are imported
BY_NAME = {"import_module", "optional"}  # functions that import what their first argument names


def imports() -> dict[str, set[str]]:
    """Top-level modules that the package imports, and the files that do; also those named in ``optional("pesq")``."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "melcodec").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                names = [node.args[0].value] if called in BY_NAME else []
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(path.relative_to(ROOT).as_posix())
    return {name: files for name, files in found.items() if name not in sys.stdlib_module_names and name != "melcodec"}


def modules(requirements: list[str]) -> set[str]:
    names = {re.match(r"[\w.-]+", line).group().lower() for line in requirements}
    return {IMPORTED.get(name, name.replace("-", "_")) for name in names}


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def extras(project: dict) -> set[str]:
    return set().union(*(modules(lines) for name, lines in project["optional-dependencies"].items() if name != "dev"))


def test_what_is_imported_is_declared(project):
    declared = modules(project["dependencies"]) | extras(project)
    missing = {name: files for name, files in imports().items() if name not in declared}
    assert not missing


def test_what_is_imported_at_the_top_of_a_module_is_no_extra(project):
    """A module of melcodec that cannot be imported without an extra would break commands that do not need it."""
    required, broken = modules(project["dependencies"]), {}
    for path in (ROOT / "melcodec").rglob("*.py"):
        if path.parent.name in HERE_ALONE:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names} - required - sys.stdlib_module_names - {"melcodec"}:
                broken.setdefault(name, []).append(path.name)
    assert not broken


def test_what_is_declared_is_used(project):
    unused = (modules(project["dependencies"]) | extras(project)) - set(imports()) - BY_OTHERS
    assert not unused


def test_this_check_sees_every_kind_of_import():
    assert {"torch", "scipy", "librosa", "pesq", "umap", "pydantic"} <= set(imports())


def test_what_the_tests_import_before_they_fork_is_required(project):
    """An extra may be missing, and then no test that starts a process could run."""
    assert {name.partition(".")[0] for name in forked.PRELOADED} <= modules(project["dependencies"])
