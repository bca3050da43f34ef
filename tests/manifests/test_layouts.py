"""Lists without a header: the text is found, or the list is refused."""

from __future__ import annotations

import pytest

TEXTS = ["Good morning, how are you?", "The ship was late.", "In 1455 they printed it.", "Nothing came of that."]
SPOKEN = [text.replace("1455", "fourteen fifty-five") for text in TEXTS]
CHINESE = ["今天天气很好。", "船晚点了。", "我们去吃饭吧。", "什么也没有发生。"]
FIELDS = ("path", "speaker", "language", "text")


def lines(*columns):
    """Rows of a list, whose first column is a0.wav, a1.wav, ..."""
    return "\n".join("|".join((f"a{index}.wav", *row)) for index, row in enumerate(zip(*columns, strict=True))) + "\n"


@pytest.mark.parametrize("texts", [TEXTS, CHINESE], ids=["english", "chinese"])
@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["text"], ("", "", "text")),
        (["text", "spoken"], ("", "", "spoken")),  # LJSpeech
        (["text", ""], ("", "", "text")),  # LJSpeech whose normalised text is missing
        (["ann", "text"], ("ann", "", "text")),  # VITS, Piper
        (["88", "text"], ("88", "", "text")),
        (["text", "ann"], ("ann", "", "text")),  # StyleTTS 2
        (["text", "0"], ("0", "", "text")),
        (["ann", "EN", "text"], ("ann", "EN", "text")),  # GPT-SoVITS, Fish Speech, Bert-VITS2
        (["ann", "all_zh", "text"], ("ann", "all_zh", "text")),
        (["text", "spoken", "5.59"], ("", "", "spoken")),  # CSS10
    ],
)
def test_known_layouts(make, facts, texts, columns, expected):
    spoken = [text.replace("1455", "fourteen fifty-five") for text in texts]
    values = {"text": texts, "spoken": spoken}
    make("x.list.txt", text=lines(*(values.get(column, [column] * len(texts)) for column in columns)))
    found = facts("x.list.txt", fields=FIELDS)
    speaker, language, text = expected
    assert found == {f"a{index}": (f"a{index}.wav", speaker, language, values[text][index]) for index in range(len(texts))}


@pytest.mark.parametrize(
    "text",
    [
        lines(["ann"] * 4),  # no texts at all
        lines(["5.5", "2.1", "3.0", "7.25"]),
        lines(TEXTS, CHINESE),  # two texts that differ
        lines(TEXTS, ["5.5", "2.1", "3.0", "7.25"]),  # numbers that may be anything
        lines(["en"] * 4, TEXTS),  # a language where a speaker is expected
        lines(["en"] * 4, ["en"] * 4, TEXTS),
        lines(["ann"] * 4, ["slow"] * 4, TEXTS),  # a style
        lines(TEXTS, ["ann"] * 4, ["EN"] * 4),
        lines(TEXTS, SPOKEN, TEXTS),
        lines(["ann"] * 4, ["EN"] * 4, TEXTS, TEXTS, ["1 2"] * 4),
        "\n".join(f"ann|a{index}.wav|{text}" for index, text in enumerate(TEXTS)),  # the file is not first
    ],
)
def test_what_is_not_clear_is_refused(make, refusal, text):
    make("x.txt", text=text)
    error = refusal("x.txt")
    assert error.message.startswith("x.txt: it is not clear which of its ")
    assert error.hint == "add a first line that names the columns, such as path|speaker|text"


def test_a_first_line_makes_it_clear(make, facts):
    make("x.txt", text="path|style|text\n" + lines(["slow"] * 4, TEXTS))
    assert list(facts("x.txt", fields=("text",)).values()) == TEXTS


def test_a_bar_in_a_text_is_refused(make, refusal):
    make("x.txt", text="a.wav|one text\nb.wav|another|text\n")
    error = refusal("x.txt")
    assert (error.message, error.hint) == ("x.txt, line 2: has 3 columns where the first line has 2", "a text must hold no '|'")


def test_ljspeech_takes_audio_alone(make, facts, refusal):
    """Aligners and other programs leave their files beside the sound, in any order of the directory."""
    make(*(f"LJ/wavs/L{index}.{suffix}" for index in range(4) for suffix in ("lab", "npy", "txt", "TextGrid", "flac", "pt")))
    make("LJ/wavs/.L0.wav", "LJ/metadata.csv", text="".join(f"L{index}|{text}\n" for index, text in enumerate(TEXTS)))
    expected = {f"L{index}": (f"LJ/wavs/L{index}.flac", text) for index, text in enumerate(TEXTS)}
    assert facts("LJ/metadata.csv", fields=("path", "text")) == facts("LJ", fields=("path", "text")) == expected
    make("LJ/wavs/L2.wav")
    error = refusal("LJ/metadata.csv")
    assert error.message == "LJ/metadata.csv, line 3: 'L2' can be L2.flac or L2.wav in wavs/"


def test_files_that_are_not_there_keep_their_rows(make, facts):
    """Whoever reads them says so; a list of nothing but missing files is no empty list."""
    make("LJ/metadata.csv", text="L0|one text\n")
    assert facts("LJ/metadata.csv") == {"L0": "LJ/wavs/L0.wav"}


@pytest.mark.parametrize("place", ["d/", "d/wavs/", "d/wav/", ""])
def test_files_beside_the_list_in_wavs_or_where_the_user_stands(make, facts, place):
    make(*(f"{place}a{index}.wav" for index in range(4)))
    make("d/x.txt", text=lines(TEXTS))
    assert list(facts("d/x.txt").values()) == [f"{place}a{index}.wav" for index in range(4)]


def test_a_list_of_texts_that_is_not_used_is_said(make, here):
    from melcodec.manifests.build import find_utterances

    make("LJ/wavs/a0.wav", "LJ/wavs/a1.wav", "LJ/metadata.csv", text="a0|one|two|three\na1|four|five|six\n")
    said = []
    found = find_utterances(["LJ"], said.append)
    assert [item.text for item in found] == ["", ""]
    assert said[0].endswith("LJ/metadata.csv: it is not clear which of its 4 columns is the text")
    assert said[1:] == ["not taken for audio: 1 .csv"]
