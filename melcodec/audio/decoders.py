"""Open audio files as blocks of samples: soundfile (libsndfile), and PyAV for the formats that it lacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from melcodec.audio import pyav, sndfile
from melcodec.audio.base import AudioInfo, OpenAudio
from melcodec.audio.survey import is_foreign, is_known, survey
from melcodec.errors import MelcodecError

__all__ = ["PYAV_SUFFIXES", "SUFFIXES", "AudioInfo", "OpenAudio", "decoded"]

# what is taken from folders; read with soundfile
SUFFIXES = frozenset(
    ".wav .wave .bwf .amb .rf64 .w64 .flac .fla .mp3 .mp2 .mp1 .mpga .ogg .oga .ogx .opus .aif .aiff .aifc .au .snd .caf "
    ".sph .nist .voc .svx .8svx .iff .avr .paf .pvf .sf .ircam".split()
)
# and with PyAV, the extra 'av'
PYAV_SUFFIXES = frozenset(".m4a .m4r .aac .mp4 .m4b .mov .3gp .webm .wma .mka .mkv .amr .ac3 .eac3 .wv .tta .ape".split())
MORE = "pip install 'melcodec[av]' reads more formats; or convert it to wav or flac"


@contextmanager
def decoded(file: Path | IO[bytes], name: str) -> Iterator[OpenAudio]:
    """``file``, open; ``name`` is what messages call it, and its suffix counts where the first bytes say nothing."""
    suffix = Path(name.partition("?")[0]).suffix.lower()  # a URL may end with a query
    with ExitStack() as stack:
        if suffix in PYAV_SUFFIXES and not is_known(file):
            yield stack.enter_context(pyav.opened(file, name))
        else:
            yield _known(file, name, stack)


def _known(file: Path | IO[bytes], name: str, stack: ExitStack) -> OpenAudio:
    """``file`` as libsndfile reads it, or PyAV if it does not."""
    layout = survey(file)
    try:
        return stack.enter_context(sndfile.opened(file, name, layout))
    except MelcodecError as error:
        if error.code != "unreadable":
            raise
        if layout.fault is not None:
            raise layout.fault.error(name, 0) from None
        if not (is_known(file) or is_foreign(file)):
            raise
        if not pyav.is_installed():
            raise MelcodecError(error.message, MORE, "unreadable") from None
        try:
            return stack.enter_context(pyav.opened(file, name))
        except MelcodecError as other:
            raise (other if "not readable" not in other.message else error) from None
