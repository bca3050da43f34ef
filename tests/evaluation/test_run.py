from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from melcodec.audio.io import load, save
from melcodec.errors import MelcodecError
from melcodec.evaluation import run as running
from melcodec.evaluation import workers
from melcodec.evaluation.run import Callbacks, EvaluationSettings, evaluate
from melcodec.evaluation.summary import absences, limits, rate, table, usage_lines, verdict
from melcodec.metrics.statistics import Estimate
from tests import forked

EVALUATE = """
import sys
from pathlib import Path
from melcodec.evaluation.run import EvaluationSettings, evaluate
if __name__ == "__main__":
    data, folder, checkpoint = sys.argv[1:4]
    evaluate([data], Path(folder), EvaluationSettings(checkpoint, "core", anchors=False, num_workers=1))
"""


@pytest.fixture
def settings(tiny_checkpoint):
    return EvaluationSettings(str(tiny_checkpoint), "log_mel_l1,mcd", anchors=False, num_workers=1)


@pytest.fixture
def here(monkeypatch):
    """Score in this process and draw nothing: what processes add and the page have tests of their own."""

    def score_all(recipe, tasks, num_workers):
        scorer = workers.Scorer(recipe)
        for task in tasks:
            try:
                yield task, scorer.do(task)
            except MelcodecError as error:
                yield task, error

    monkeypatch.setattr(running, "score_all", score_all)
    monkeypatch.setattr(running, "write_evaluation_page", lambda *_: None)


def mean(report, name="log_mel_l1", system=0):
    return report.systems[system].means[name]


def test_anchors_stand_in_order(evaluated):
    """The mel is perfect, and the network without its quantizer is better than with it."""
    report, _ = evaluated
    found = {system.name: system.means["log_mel_l1"].mean for system in report.systems if "log_mel_l1" in system.means}
    assert found["mel"] == 0 < found["kmeans"] < 3
    assert found["unquantized"] != found["codes"]
    assert report.systems[0].name == "codes"
    assert report.absent_systems.keys().isdisjoint(found)


def test_figures_are_those_of_the_codec(evaluated, corpus, tiny_checkpoint):
    from melcodec.codec import Codec

    codec = Codec.from_pretrained(tiny_checkpoint, "cpu")
    errors, codes = [], []
    for path in sorted((corpus / "speech").rglob("*.wav")):
        mel = codec.mel(load(path, 22_050))
        codes.append(codec.encode_mel(mel))
        errors.append(float((codec.decode_to_mel(codes[-1])[..., : mel.shape[-1]] - mel).abs().mean()))
    report, _ = evaluated
    assert mean(report).mean == pytest.approx(np.mean(errors), rel=1e-4)
    assert report.usage.all[0].total == sum(item.numel() for item in codes)
    assert report.usage.counts[0] == np.bincount(np.concatenate([c.flatten() for c in codes]), minlength=32).tolist()


def test_groups_come_from_the_manifest(evaluated):
    report, _ = evaluated
    assert {label: {value: group.files for value, group in groups.items()} for label, groups in report.groups.items()} == {
        "language": {"de": 1, "en": 2},
        "dataset": {"one": 2, "two": 2},
        "seen": {"seen": 2, "unseen": 2},
        "speaker": {"anna": 2, "b": 1, "bert": 1, "c": 1, "cleo": 1},
    }


def test_words_for_people(evaluated):
    report, folder = evaluated
    words = "\n".join([*verdict(report), *table(report), *usage_lines(report)])
    assert words.startswith("Verdict: poor (accuracy of the spectrum poor). From the original to the decoded codes, log-mel L1 (")
    assert "better than" in words or "worse than" in words
    assert "measured on 6 files" in words
    assert "2 of the files are by speakers that were never trained on" in words
    assert f"{mean(report).mean:.3f}" in words
    assert "without digital silence" not in words  # there is none
    page = (folder / "index.html").read_text()
    assert "log-mel L1" in page
    assert page.count("<audio") == 9
    assert page.count("<img") >= 5
    assert page.index("Verdict: poor") < page.index("<audio") < page.index("<table")
    assert not any("SI-SDR" in text for text in (words, page.split("What was not measured")[0]))
    assert "si_sdr was not measured: it compares waves sample by sample, which is meaningless after Griffin-Lim" in page


def test_a_second_run_scores_nothing_and_says_the_same(here, corpus, tmp_path, settings, monkeypatch):
    first = evaluate([corpus / "speech"], tmp_path / "r", settings)
    said = []
    monkeypatch.setattr(running, "score_all", lambda recipe, tasks, num_workers: [pytest.fail("scored again") for _ in tasks])
    second = evaluate([corpus / "speech"], tmp_path / "r", settings, Callbacks(said.append))
    assert second == first
    assert "6 of 6 files were scored before" in said


def test_a_changed_file_is_scored_again(here, corpus, tmp_path, settings):
    shutil.copytree(corpus / "speech", tmp_path / "speech")
    first = evaluate([tmp_path / "speech"], tmp_path / "r", settings)
    path = tmp_path / "speech" / "a" / "0.wav"
    save(path, load(path, 22_050)[:10_000], 22_050)
    said = []
    second = evaluate([tmp_path / "speech"], tmp_path / "r", settings, Callbacks(said.append))
    assert "5 of 6 files were scored before" in said
    assert second.seconds < first.seconds


def test_other_settings_do_not_mix_with_what_is_there(here, corpus, tmp_path, settings, checkpoints):
    evaluate([corpus / "speech"], tmp_path / "r", settings)
    for other, complaint in (
        (replace(settings, checkpoint=str(checkpoints["decoder"])), "holds the evaluation of checkpoint"),
        (replace(settings, metrics="mcd"), r"with other settings \(metrics\)"),
        (replace(settings, limit=3), r"with other settings \(limit\)"),
        (replace(settings, seed=1), r"with other settings \(seed\)"),
    ):
        with pytest.raises(MelcodecError, match=complaint) as caught:
            evaluate([corpus / "speech"], tmp_path / "r", other)
        assert "-f" in caught.value.hint
    replaced = evaluate([corpus / "speech"], tmp_path / "r", replace(settings, metrics="mcd", limit=3, overwrite=True))
    assert (replaced.files, replaced.metrics) == (3, ["mcd"])


def test_a_decoder_is_told_from_another_though_the_fingerprint_is_one(here, corpus, tmp_path, settings, checkpoints):
    """Results of another decoder must not be taken for this one's."""
    first = evaluate([corpus / "speech"], tmp_path / "r", settings)
    (tmp_path / "r" / "metrics.json").unlink()
    second = evaluate([corpus / "speech"], tmp_path / "r", replace(settings, checkpoint=str(checkpoints["decoder"])))
    assert second.checkpoint.fingerprint == first.checkpoint.fingerprint
    assert mean(second).mean != mean(first).mean


@pytest.mark.parametrize("change", [{"format": 0}, {"melcodec": "0.0.1"}])
def test_a_report_of_an_older_version_is_not_gone_on_with(here, corpus, tmp_path, settings, change):
    evaluate([corpus / "speech"], tmp_path / "r", replace(settings, limit=1))
    path = tmp_path / "r" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(MelcodecError, match=r"older melcodec|by melcodec 0\.0\.1") as caught:
        evaluate([corpus / "speech"], tmp_path / "r", replace(settings, limit=1))
    assert "-f" in caught.value.hint


def test_the_floor_is_never_learned_from_what_it_is_measured_on(here, corpus, tmp_path, settings):
    report = evaluate([corpus / "speech"], tmp_path / "r", replace(settings, anchors=True, train=(corpus / "speech",)))
    assert report.absent_systems["kmeans"] == "it is learned from training speech, which is given with --train"
    assert "kmeans" not in [system.name for system in report.systems]


def test_the_k_means_floor_is_kept(here, corpus, speech_folder, tmp_path, settings, monkeypatch):
    with_floor = replace(settings, anchors=True, train=(speech_folder,))
    first = evaluate([corpus / "speech"], tmp_path / "r", with_floor)
    monkeypatch.setattr(running, "learn_centres", lambda *_: pytest.fail("learned again"))
    assert evaluate([corpus / "speech"], tmp_path / "r", with_floor) == first


@pytest.mark.parametrize("metrics", ["log_mel_l1", "si_sdr"])
def test_silent_and_tiny_files_are_no_failures(here, tmp_path, settings, metrics):
    save(tmp_path / "in" / "silent.wav", np.zeros(22_050, np.float32), 22_050)
    save(tmp_path / "in" / "tiny.wav", np.full(30, 0.1, np.float32), 22_050)
    report = evaluate([tmp_path / "in"], tmp_path / "r", replace(settings, metrics=metrics))
    assert report.failures == {}
    if metrics == "si_sdr":
        assert report.systems[0].absent["si_sdr"]["the reference is silent: there is no speech to score"] == 1
    else:
        assert mean(report).count == 2
        assert report.usage.without_silence[0].total < report.usage.all[0].total
        assert "without digital silence" in " ".join(usage_lines(report))


def test_figures_over_fewer_files_say_so(here, corpus, tmp_path, settings):
    shutil.copytree(corpus / "speech", tmp_path / "in")
    save(tmp_path / "in" / "silent.wav", np.zeros(22_050, np.float32), 22_050)
    report = evaluate([tmp_path / "in"], tmp_path / "r", replace(settings, metrics="log_mel_l1,si_sdr", anchors=True))
    assert {system.means["si_sdr"].count for system in report.systems if "si_sdr" in system.means} == {6}
    line = next(line for line in table(report) if line.startswith("SI-SDR"))
    assert line.count("(6)") == len([system for system in report.systems if "si_sdr" in system.means]) > 2


def test_what_limits_is_said_over_the_same_files_only(evaluated):
    report, _ = evaluated
    systems = {system.name: system for system in report.systems}

    def said(**absent):
        means = {"unquantized": 0.8, "mel": 0.95, "codes": 0.7}
        changed = [
            replace(
                systems[name], means={"stoi": Estimate(mean, None, None, 5)}, absent={"stoi": {absent.get(name, "silent"): 1}}
            )
            for name, mean in means.items()
        ]
        return limits(replace(report, systems=changed))

    assert said() == [
        "From the original to the decoded codes, over 5 files, STOI falls from 1 to 0.700: 0.050 by the vocoder, 0.150 by the "
        "network, 0.100 by the quantizer. The network limits most."
    ]
    assert said(mel="the output is silent") == []


@pytest.mark.parametrize(
    ("codes", "ceiling", "levels"),
    [
        ({"stoi": 0.87, "distillmos": 3.4, "log_mel_l1": 0.5}, {"stoi": 0.96, "distillmos": 3.5}, [0, 0, 0]),
        ({"stoi": 0.75, "distillmos": 1.92, "log_mel_l1": 0.95}, {"stoi": 0.97, "distillmos": 3.48}, [1, 2, 1]),
        ({"estoi": 0.6, "dnsmos": 4.7, "speaker_similarity": 0.7, "log_mel_l1": 1.1}, {}, [2, 0, 1, 2]),
        ({"mcd": 3.0}, {}, []),
    ],
)
def test_ratings_count_from_the_ceiling_of_the_vocoder(evaluated, codes, ceiling, levels):
    """Every aspect for itself; where no ceiling was measured, the best possible value is the reference."""
    report, _ = evaluated
    systems = []
    for system in report.systems:
        if system.name in ("codes", "mel"):
            values = codes if system.name == "codes" else ceiling
            systems.append(replace(system, means={name: Estimate(mean, None, None, 6) for name, mean in values.items()}))
    rated = replace(report, systems=systems)
    assert [rating.level for rating in rate(rated)] == levels
    words = {(0, 0, 0): "good", (1, 2, 1): "fair", (2, 0, 1, 2): "poor"}
    assert verdict(rated)[0].startswith(f"Verdict: {words[tuple(levels)]} (" if levels else "tiny (checkpoint ")


def test_a_system_is_better_only_where_the_intervals_part(evaluated):
    report, _ = evaluated

    def said(low, high):
        kmeans = next(system for system in report.systems if system.name == "kmeans")
        means = [Estimate(0.75, 0.7, 0.8, 6), Estimate((low + high) / 2, low, high, 6)]
        pair = [replace(system, means={"stoi": mean}) for system, mean in zip((report.systems[0], kmeans), means, strict=True)]
        return verdict(replace(report, systems=pair))[-1]

    assert "; better than k-means" in said(0.5, 0.6)
    assert "; not clearly different from k-means" in said(0.5, 0.71)
    assert "; worse than k-means" in said(0.85, 0.9)
    assert said(0.5, 0.6).startswith("Intelligibility: fair. STOI 0.750 (95 % confidence interval 0.700 to 0.800)")


def test_without_any_figure_there_is_still_a_report(here, tmp_path, settings):
    save(tmp_path / "in" / "silent.wav", np.zeros(22_050, np.float32), 22_050)
    report = evaluate([tmp_path / "in"], tmp_path / "r", replace(settings, metrics="si_sdr"))
    assert table(report) == ["No figure could be computed for any file."]
    said = " ".join([*verdict(report), *absences(report)])
    assert "measured on 1 file," in said
    assert "No SI-SDR (dB) for any file: the reference is silent" in said
    assert "Verdict" not in said


def test_nothing_but_bad_files_is_refused(here, tmp_path, settings):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.wav").write_bytes(b"nonsense")
    with pytest.raises(MelcodecError, match=r"no file could be evaluated; the first: .*bad\.wav"):
        evaluate([tmp_path / "in"], tmp_path / "r", settings)
    (tmp_path / "file").write_text("x")
    with pytest.raises(MelcodecError, match="a report needs a folder"):
        evaluate([tmp_path / "in"], tmp_path / "file", settings)


def test_processes_name_the_bad_file_and_do_the_others(corpus, tmp_path, settings):
    shutil.copytree(corpus / "speech", tmp_path / "in")
    (tmp_path / "in" / "b" / "bad.wav").write_bytes(b"nonsense")
    report = evaluate([tmp_path / "in"], tmp_path / "r", replace(settings, num_workers=2))
    assert report.files == 6
    assert list(report.failures) == ["b/bad"]
    assert "bad.wav" in report.failures["b/bad"]


def test_a_file_that_kills_its_process_is_named_and_the_others_are_done(corpus, tiny_checkpoint, tmp_path):
    """As a segmentation fault in a foreign package would: the kernel's own signal, in a real worker."""
    script = tmp_path / "deadly.py"
    script.write_text(
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from melcodec.evaluation import workers\n"
        "load = workers.load_sound\n"
        "def deadly(subject, rate):\n"
        "    if subject.utterance.id == 'b/0':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return load(subject, rate)\n"
        "workers.load_sound = deadly\n"
        "if __name__ == '__main__':\n"
        "    from melcodec.evaluation.run import EvaluationSettings, evaluate\n"
        "    settings = EvaluationSettings(sys.argv[3], 'mcd', anchors=False, num_workers=2)\n"
        "    report = evaluate([sys.argv[1]], Path(sys.argv[2]), settings)\n"
        "    print(report.files, report.failures)\n"
    )
    command = [sys.executable, script, corpus / "speech", tmp_path / "r", tiny_checkpoint]
    done = forked.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("5 {'b/0': ")
    assert "the process that scored it stopped" in done.stdout


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_been(corpus, tiny_checkpoint, tmp_path):
    script = tmp_path / "evaluating.py"
    script.write_text(EVALUATE)
    results = tmp_path / "killed" / "results.jsonl"

    def start(folder):
        command = [sys.executable, script, corpus / "speech", folder, tiny_checkpoint]
        return forked.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)

    first = start(tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not (results.exists() and results.read_text().count("\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.01)
    workers_of = children(first.pid)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = results.read_text().splitlines()[:2]
    assert not (tmp_path / "killed" / "metrics.json").exists()
    while any(alive(pid) for pid in workers_of) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers_of), "workers outlive their parent"

    assert start(tmp_path / "killed").wait(200) == 0
    assert results.read_text().splitlines()[:2] == kept
    assert len(results.read_text().splitlines()) == 6
    assert start(tmp_path / "whole").wait(200) == 0
    for name in ("metrics.json", "files.csv", "index.html"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.slow
def test_ctrl_c_ends_it_at_once(corpus, examples, tiny_checkpoint, tmp_path):
    """As a terminal does it: every process of the group hears it, and nobody waits for a file of an hour."""
    data = tmp_path / "data"
    shutil.copytree(corpus / "speech", data)
    speech = load(examples["lj_en"], 22_050)
    save(data / "c/2.wav", np.tile(speech, 3600 * 22_050 // len(speech)), 22_050)
    command = [sys.executable, "-W", "error", "-m", "melcodec", "evaluate", str(data), "-o", "report", "-c", str(tiny_checkpoint)]
    command += ["--metrics", "mcd", "--no-anchors", "--num-workers", "2"]
    child = forked.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True)
    results, deadline = tmp_path / "report" / "results.jsonl", time.monotonic() + 120
    while not (results.exists() and results.read_text().count("\n") >= 6) and time.monotonic() < deadline:
        time.sleep(0.01)
    workers_of = children(child.pid)
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (130, "interrupted; the same command resumes from the files that are done\n")
    assert results.read_text().count("\n") == 6
    gone = time.monotonic() + 10  # python's resource tracker ends a moment after its parent
    while any(alive(pid) for pid in workers_of) and time.monotonic() < gone:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers_of)


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return [int(line) for line in found.stdout.split()]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")
