from __future__ import annotations

import sys

import pytest

from melcodec.errors import MelcodecError
from melcodec.metrics.optional import is_installed, optional


def test_what_is_there_is_imported():
    assert optional("json").loads("1") == 1
    assert is_installed("json")


def test_what_is_not_is_named_with_the_line_that_installs_it(monkeypatch):
    assert not is_installed("no_such_package")
    with pytest.raises(MelcodecError, match=r"needs the package 'no_such_package', which is not installed$") as caught:
        optional("no_such_package")
    assert caught.value.hint == "pip install 'melcodec[eval]'"
    monkeypatch.setitem(sys.modules, "pesq", None)
    assert not is_installed("pesq")


def test_a_package_that_does_not_import_says_why(monkeypatch, tmp_path):
    (tmp_path / "elsewhere.py").write_text("import os\nos.no_such_thing")
    (tmp_path / "halfway.py").write_text("import not_to_be_found")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MelcodecError, match="installed but does not import: No module named 'not_to_be_found'") as caught:
        optional("halfway")
    assert "--force-reinstall --no-deps halfway" in caught.value.hint
    with pytest.raises(MelcodecError, match="installed but does not import: module 'os' has no attribute"):
        optional("elsewhere")


def test_deprecations_of_others_are_passed_over(monkeypatch, tmp_path):
    (tmp_path / "elderly.py").write_text("import warnings\nwarnings.warn('old', DeprecationWarning)\nx = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert optional("elderly").x == 1
