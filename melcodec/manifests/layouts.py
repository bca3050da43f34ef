"""Lists without a header, as trainers of text-to-speech write them: which column is the text is decided by all rows.

| columns | written by | example |
|---|---|---|
| ``file\\|text`` | LJSpeech, Piper, Tacotron 2 | ``LJ001-0001\\|Printing, in the only sense`` |
| ``file\\|text\\|normalised text`` | LJSpeech, M-AILABS | ``LJ001-0007\\|in 1455\\|in fourteen fifty-five`` |
| ``file\\|speaker\\|text`` | VITS, Piper | ``p364/p364_240.wav\\|88\\|It had happened to him.`` |
| ``file\\|text\\|speaker`` | StyleTTS 2, Coqui | ``wavs/a.wav\\|It had happened.\\|ann`` |
| ``file\\|speaker\\|language\\|text`` | GPT-SoVITS, Fish Speech, Bert-VITS2 | ``a.wav\\|ann\\|EN\\|Good morning.`` |
| ``file\\|text\\|normalised text\\|seconds`` | CSS10 | ``a_0000.wav\\|in 1455\\|in fourteen fifty-five\\|5.59`` |

Columns that fit none of these, or more than one, are refused: a text that is none would be learned by whatever is trained
on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

Row = Sequence[str]
Places = dict[str, tuple[int, ...]]
# ISO 639-1, then what the trainers above call some of them
CODES = frozenset(
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es "
    "et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj "
    "kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv "
    "ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti "
    "tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu "
    "jp cn yue cmn zho jpn kor eng deu fra spa ita por rus nld all_zh all_ja all_ko all_yue auto auto_yue".split()
)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
COMPARED_ROWS = 100  # spread over the list; to see whether two columns say the same
ALIKE = 0.6  # ratio of SequenceMatcher in the median row; texts of different sentences have about 0.3
LABELS_PER_ROW = 0.5  # at most, of a column of speakers: each occurs about twice or more


def field_places(rows: Sequence[Row]) -> Places | None:
    """In which columns the fields of ``rows`` lie, all of equal length; None where that is not clear.

    Where a field has two columns, the first of them that is not empty holds it.
    """
    if len(rows) > 1 and _labels(rows, 0):  # another column names the files
        return None
    fitting = [places for width, fits, places in LAYOUTS if width == len(rows[0]) and fits(rows)]
    return fitting[0] if len(fitting) == 1 else None


def _column(rows: Sequence[Row], place: int) -> list[str]:
    return [row[place].strip() for row in rows]


def _labels(rows: Sequence[Row], place: int) -> bool:
    """Whether a column holds names or numbers of speakers: no spaces, and few different ones for so many rows."""
    values = _column(rows, place)
    return not any(re.search(r"\s", value) for value in values) and len(set(values)) <= LABELS_PER_ROW * len(values)


def _texts(rows: Sequence[Row], place: int) -> bool:
    """Whether a column can hold sentences: neither labels nor numbers."""
    values = _column(rows, place)
    return any(values) and not _labels(rows, place) and not _numbers(rows, place)


def _numbers(rows: Sequence[Row], place: int) -> bool:
    return all(map(NUMBER.fullmatch, _column(rows, place)))


def _languages(rows: Sequence[Row], place: int) -> bool:
    return all(re.split(r"-", value.lower())[0] in CODES for value in set(_column(rows, place)))


def _alike(rows: Sequence[Row]) -> bool:
    """Whether columns 2 and 3 say the same, one of them normalised; an empty normalised text is none."""
    pairs = [(row[1].strip().lower(), row[2].strip().lower()) for row in rows[:: max(1, len(rows) // COMPARED_ROWS)]]
    ratios = sorted(SequenceMatcher(None, *pair, autojunk=False).ratio() if all(pair) else 1.0 for pair in pairs)
    return any(text for text, _ in pairs) and ratios[len(ratios) // 2] >= ALIKE


def _named_text(rows: Sequence[Row], label: int, text: int) -> bool:
    return not _alike(rows) and _labels(rows, label) and not _languages(rows, label) and _texts(rows, text)


LAYOUTS: tuple[tuple[int, Callable[[Sequence[Row]], bool], Places], ...] = (
    (2, lambda rows: _texts(rows, 1), {"text": (1,)}),
    (3, _alike, {"text": (2, 1)}),
    (3, lambda rows: _named_text(rows, 1, 2), {"speaker": (1,), "text": (2,)}),
    (3, lambda rows: _named_text(rows, 2, 1), {"text": (1,), "speaker": (2,)}),
    (
        4,
        lambda rows: _languages(rows, 2) and not _languages(rows, 1) and _texts(rows, 3),
        {"speaker": (1,), "language": (2,), "text": (3,)},
    ),
    (4, lambda rows: _numbers(rows, 3) and _alike(rows), {"text": (2, 1)}),
)
