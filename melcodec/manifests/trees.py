"""Speech corpora known by the shape of their folders: LJSpeech, VCTK, LibriTTS and LibriSpeech."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from melcodec.errors import MelcodecError, from_os
from melcodec.manifests.base import Utterance
from melcodec.manifests.names import folder_of, joined, split_called, stem
from melcodec.manifests.tables import read_table


@dataclass(frozen=True)
class Known:
    """What a folder tree says about a file. Its id is made from ``name``."""

    name: str
    speaker: str = ""
    text: str = ""
    split: str = ""


class Trees:
    """Recognises files of known corpora anywhere below ``folder`` (absolute), or when ``folder`` is a part of one.

    - LJSpeech: ``wavs/ID.wav`` beside ``metadata.csv``; ids go without ``wavs/``, as that list calls them.
    - VCTK: ``wav48*/p225/p225_001*.flac``, texts in ``txt/p225/p225_001.txt``.
    - LibriSpeech, LibriTTS: ``[dev-clean/]84/121123/84-121123-0000.flac``; the subset says train, valid or test.

    Texts that are missing are left empty: the sound is there all the same.

    Args:
        note: called with a sentence about a list of texts that is there and not used.
    """

    def __init__(self, folder: str, note: Callable[[str], None]) -> None:
        self.folder = folder
        self.note = note
        self.tables: dict[str, dict[str, Utterance]] = {}  # by corpus, then by path
        self.chapters: dict[str, dict[str, str]] = {}  # by folder, then by file without suffix

    def known(self, name: str) -> Known | None:
        """What the tree says about the file ``name``, relative to the folder; None outside of known trees."""
        path = joined(self.folder, name)
        parts = path.rsplit("/", 4)[-4:]  # the folder itself may be a subset, a speaker's or wavs/
        if len(parts) < 4:
            return None
        above, middle, last, file = parts
        if middle.isdigit() and last.isdigit() and file.startswith((f"{middle}-{last}-", f"{middle}_{last}_")):
            return Known(name, middle, self._libri_text(path), split_called(above))
        if middle.startswith(("wav48", "wav16")) and file.startswith(f"{last}_"):
            return Known(name, last, _vctk_text(path))
        if last == "wavs" and (listed := self._listed(folder_of(folder_of(path)))):
            row = listed.get(path)
            short = name.removesuffix(file).removesuffix("wavs/") + file
            return Known(short, row.speaker if row else "", row.text if row else "")
        return None

    def _listed(self, corpus: str) -> dict[str, Utterance]:
        if corpus not in self.tables:
            self.tables[corpus], table = {}, joined(corpus, "metadata.csv")
            if Path(table).is_file():
                try:
                    self.tables[corpus] = {row.path: row for row in read_table(table)}
                except MelcodecError as error:  # some other list, or one that must be mended before its texts can be used
                    self.note(f"no texts from {table}: {error.message.removeprefix(table).lstrip(':, ')}")
        return self.tables[corpus]

    def _libri_text(self, path: str) -> str:
        folder, _, file = stem(path).rpartition("/")
        if folder not in self.chapters:
            chapter = joined(folder, file.rpartition("-" if "-" in file else "_")[0])
            spoken = (line.partition(" ") for line in _lines(f"{chapter}.trans.txt"))
            self.chapters[folder] = {name: text.strip() for name, _, text in spoken}
        return self.chapters[folder].get(file) or " ".join(_lines(f"{stem(path)}.normalized.txt"))


def _vctk_text(path: str) -> str:
    folders, speaker, file = path.rsplit("/", 2)
    name = stem(file).removesuffix("_mic1").removesuffix("_mic2")
    return " ".join(_lines(joined(folder_of(folders), f"txt/{speaker}/{name}.txt")))


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:  # a text that is there and must not be passed over in silence
        raise from_os(error) from None
