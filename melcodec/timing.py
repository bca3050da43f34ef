"""How the samples, mel frames and codes of a sound count each other; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from melcodec.errors import MelcodecError


@dataclass(frozen=True)
class Timing:
    """That of one codec.

    Args:
        sample_rate: Hz.
        hop_length: samples between mel frames.
        stride: mel frames of a code.
        longest: the most frames that a model which needs the whole sound at once accepts; None: any number.
    """

    sample_rate: int
    hop_length: int
    stride: int
    longest: int | None = None

    @property
    def samples_per_code(self) -> int:
        """1,024 for XTTS."""
        return self.hop_length * self.stride

    @property
    def code_rate(self) -> float:
        """Codes per second and codebook: 21.53 for XTTS."""
        return self.sample_rate / self.samples_per_code

    def num_frames(self, num_samples: int) -> int:
        """T = S // hop + 1: frames are centred."""
        return num_samples // self.hop_length + 1

    def num_codes(self, num_samples: int) -> int:
        """N for S samples: ceil((S // 256 + 1) / 4) = S // 1024 + 1 for XTTS."""
        return -(-self.num_frames(num_samples) // self.stride)

    def num_samples(self, num_codes: int, given: int | None = None) -> int:
        """S of N codes: as ``given``, else the most that reflects nothing, (4 N - 1) * 256 for XTTS.

        Raises:
            MelcodecError: ``given`` samples do not have that many codes.
        """
        if given is None:
            return (num_codes * self.stride - 1) * self.hop_length
        if given < 1 or self.num_codes(given) != num_codes:
            has = f", which give {self.num_codes(given)} codes" if given > 0 else ""
            raise MelcodecError(f"{num_codes} codes do not fit {given} samples{has}", code="mismatch")
        return given

    def check_longest(self, num_frames: int) -> None:
        """Raise MelcodecError when ``num_frames`` are more than the model accepts."""
        if self.longest is not None and num_frames > self.longest:
            seconds = self.longest * self.hop_length / self.sample_rate
            raise MelcodecError(
                f"longer than {seconds:.0f} s: this model needs the whole sound at once, and this is its limit",
                "cut the sound, or use a model whose reach is bounded, such as backbone conv",
            )
