"""A checkpoint exported once, and the packages that this takes."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def exported(tiny_checkpoint, tmp_path_factory) -> Path:
    """The tiny checkpoint as graphs. Not to be changed."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from melcodec.config import GriffinLimConfig
    from melcodec.formats.checkpoint import load_checkpoint
    from melcodec.onnx.export import export_onnx

    folder = tmp_path_factory.mktemp("onnx") / "tiny"
    export_onnx(load_checkpoint(tiny_checkpoint), GriffinLimConfig(iterations=4), folder)
    return folder
