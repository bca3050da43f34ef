from __future__ import annotations

import shutil

import pytest

from melcodec.audio.io import load, save
from melcodec.errors import MelcodecError
from melcodec.evaluation.subjects import find_subjects, load_sound, subject_key


def by_id(data, **options):
    return {subject.utterance.id: subject for subject in find_subjects(data, **options)}


def test_a_manifest_above_the_data_labels_it(corpus):
    found = by_id([corpus / "speech"])
    assert len(found) == 6
    assert found["a/0"].labels == {"language": "en", "dataset": "one", "seen": "seen", "speaker": "anna"}
    assert found["a/0"].utterance.text == "yes it is"
    assert found["c/0"].labels == {"dataset": "two", "seen": "unseen", "speaker": "cleo"}
    assert found["c/1"].labels == {"speaker": "c"}


def test_a_list_is_data_and_labels_at_once(corpus):
    found = find_subjects([corpus / "manifest.csv"])
    assert len(found) == 4
    assert {subject.dataset for subject in found} == {"one", "two"}
    assert {subject.seen for subject in found} == {"seen", "unseen"}


def test_without_a_manifest_only_the_folders_speak(speech_folder):
    assert by_id([speech_folder])["b/0"].labels == {"speaker": "b"}
    assert by_id([speech_folder / "a" / "0.wav"])["0"].labels == {}


def test_a_manifest_that_is_no_text_is_named(corpus, tmp_path):
    shutil.copytree(corpus / "speech", tmp_path / "speech")
    (tmp_path / "manifest.csv").write_bytes(b"path\xff\xfe\n")
    with pytest.raises(MelcodecError, match=r"manifest\.csv: not readable as a list"):
        find_subjects([tmp_path / "speech"])


def test_a_limit_takes_some_by_the_seed(corpus):
    ids = [tuple(by_id([corpus / "speech"], limit=3, seed=seed)) for seed in range(6)]
    assert all(len(set(names)) == 3 for names in ids)
    assert len(set(ids)) > 1
    assert tuple(by_id([corpus / "speech"], limit=3, seed=2)) == ids[2]
    assert len(by_id([corpus / "speech"], limit=100)) == 6


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(MelcodecError, match="no audio files"):
        find_subjects([tmp_path])


def test_a_stretch_of_a_file_is_read_as_such(speech_folder, tmp_path):
    (tmp_path / "cuts.jsonl").write_text(f'{{"audio": "{speech_folder}/a/0.wav", "start": 0.25, "duration": 0.5}}\n')
    (subject,) = find_subjects([tmp_path / "cuts.jsonl"])
    assert load_sound(subject, 22_050).tolist() == load(speech_folder / "a/0.wav", 22_050)[5512:16_538].tolist()


def test_keys_follow_sound_words_and_settings_but_not_the_place(corpus, tmp_path):
    subject = by_id([corpus / "speech"])["a/0"]
    key = subject_key(subject, "s")
    assert key == subject_key(subject, "s")
    assert key != subject_key(subject, "t")
    shutil.copytree(corpus, tmp_path / "moved")
    assert subject_key(by_id([tmp_path / "moved" / "speech"])["a/0"], "s") == key
    manifest = tmp_path / "moved" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("yes it is", "no it is not"))
    assert subject_key(by_id([tmp_path / "moved" / "speech"])["a/0"], "s") != key
    save(tmp_path / "other" / "a" / "0.wav", load(corpus / "speech/a/0.wav", 22_050) / 2, 22_050)
    assert subject_key(by_id([tmp_path / "other"])["0" if (tmp_path / "other" / "0.wav").exists() else "a/0"], "s") != key
