"""The layers of docs/architecture.md: a package imports only from layers below its own, and no imports are circular."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

import melcodec

PACKAGE = Path(melcodec.__file__).parent

LAYERS = {
    **dict.fromkeys(("errors", "version"), 0),
    **dict.fromkeys(
        ("config", "chunking", "devices", "distributed", "files", "presets", "processes", "timing", "tokens", "walk"), 1
    ),
    **dict.fromkeys(("audio", "metrics", "plots", "pages"), 2),
    **dict.fromkeys(("nn", "quantize", "manifests", "inputs"), 3),
    "vqvae": 4,
    **dict.fromkeys(("formats", "objective"), 5),
    **dict.fromkeys(("store", "vocoder"), 6),
    "codec": 7,
    **dict.fromkeys(("training", "corpus", "evaluation", "bench", "streaming", "onnx", "hf"), 8),
    **dict.fromkeys(("prior", "sweep"), 9),
    "cli": 10,
    **dict.fromkeys(("__init__", "__main__"), 11),
}


def modules(package: Path) -> dict[str, Path]:
    """Dotted names below the package, '__init__' for the package itself, and their files."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file imports, wherever in the file the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            # 'from melcodec.a import b' is module a.b where there is one, else something of module a
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.module == "melcodec" and [alias.name for alias in node.names] == ["__version__"]:
                continue  # a constant, which every layer may use
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == "melcodec":
                while rest and rest not in known:
                    rest = rest.rpartition(".")[0]
                found.add(rest or "__init__")
    return found


def violations(package: Path) -> list[str]:
    """Imports that do not go to a lower layer, and circular imports, one line each."""
    files = modules(package)
    graph = {name: imports(path, set(files)) for name, path in files.items()}
    found = []
    for name, targets in graph.items():
        owner = name.partition(".")[0]
        if owner not in LAYERS:
            found.append(f"{owner} has no layer")
            continue
        for target in sorted(targets):
            other = target.partition(".")[0]
            if other != owner and LAYERS.get(other, 99) >= LAYERS[owner]:
                found.append(f"{name} imports {target}")
    return found + circles(graph)


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Every import that makes a circle."""
    found, done = [], set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            found.append(f"circle: {' -> '.join([*trail[trail.index(name) :], name])}")
        elif name not in done:
            for target in sorted(graph[name]):
                visit(target, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    return found


def test_imports_go_down():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("nn/conv.py", "import melcodec.codec", "nn.conv imports codec"),
        ("errors.py", "from melcodec import config", "errors imports config"),
        ("config.py", "from melcodec.files import written_aside", "config imports files"),
        ("training/data.py", "def late():\n    from melcodec.cli import main", "training.data imports cli.main"),
        ("training/data.py", "from melcodec.corpus.files import outputs", "training.data imports corpus.files"),
        ("chunking.py", "if TYPE_CHECKING:\n    from melcodec.codec import Codec", "chunking imports codec"),
        ("store/plan.py", "from melcodec.corpus.tasks import UnitTask", "store.plan imports corpus.tasks"),
        ("audio/mel.py", "from melcodec import load", "audio.mel imports __init__"),
        (
            "quantize/revival.py",
            "from melcodec.quantize import vector",
            "circle: quantize.vector -> quantize.revival -> quantize.vector",
        ),
        ("orphan.py", "x = 1", "orphan has no layer"),
    ],
)
def test_a_planted_import_is_caught(tmp_path, file, line, complaint):
    copy = tmp_path / "melcodec"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    with (copy / file).open("a") as out:
        out.write(f"\n{line}\n")
    assert complaint in violations(copy)
