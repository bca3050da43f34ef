from __future__ import annotations

import importlib
import sys

import pytest

from melcodec.errors import MelcodecError
from melcodec.evaluation.catalog import METRICS, choose, package_versions
from melcodec.evaluation.scores import SCORERS


def test_every_metric_has_its_scorer():
    assert list(METRICS) == list(SCORERS)


def test_core_needs_no_extra():
    choice = choose("core")
    assert choice.names == ("log_mel_l1", "log_mel_mse", "norm_mel_l1", "norm_mel_mse", "mcd", "si_sdr")
    assert choice.absent == {}


def test_a_group_leaves_out_what_compares_phases_that_were_invented():
    choice = choose("core", keeps_phases=False)
    assert choice.names == ("log_mel_l1", "log_mel_mse", "norm_mel_l1", "norm_mel_mse", "mcd")
    assert "Griffin-Lim" in choice.absent["si_sdr"]
    assert choose("core,si_sdr", keeps_phases=False) == choose("core")


def test_names_and_groups_add_up():
    assert choose("si_sdr, mcd").names == ("mcd", "si_sdr")
    pytest.importorskip("pystoi")
    assert choose("core,stoi").names == (*choose("core").names, "stoi")


def without(blocked):
    """import_module as it is where ``blocked`` is not installed."""
    real = importlib.import_module

    def imported(name):
        if name == blocked:
            raise ModuleNotFoundError(f"No module named '{name}'")
        return real(name)

    return imported


def test_of_a_group_what_is_missing_is_absent_with_its_reason(monkeypatch):
    monkeypatch.setattr("melcodec.metrics.optional.importlib.import_module", without("pystoi"))
    monkeypatch.setattr("melcodec.metrics.optional.is_installed", lambda package: package != "pystoi")
    choice = choose("all")
    assert "stoi" not in choice.names
    reason = "it needs the package 'pystoi', which is not installed: pip install 'melcodec[eval]'"
    assert choice.absent["stoi"] == choice.absent["estoi"] == reason


def test_a_metric_that_was_named_must_be_there(monkeypatch, tmp_path):
    (tmp_path / "pesq.py").write_text("import not_to_be_found")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pesq", raising=False)
    with pytest.raises(
        MelcodecError, match="--metrics pesq_wb: needs the package 'pesq', which is installed but does not"
    ) as caught:
        choose("core,pesq_wb")
    assert caught.value.hint.startswith("pip install")


@pytest.mark.parametrize("words", ["", "loudness", "core,loudness", ","])
def test_unknown_names_are_refused(words):
    with pytest.raises(MelcodecError, match="no metric") as caught:
        choose(words)
    assert "si_sdr" in caught.value.hint


def test_versions_of_the_packages_behind_scores():
    pytest.importorskip("pystoi")
    assert package_versions(["stoi", "mcd"]).keys() == {"pystoi"}
