"""Waves as a padded batch for ``MelcodecModel``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, SequenceFeatureExtractor

from melcodec import inputs
from melcodec.errors import MelcodecError


class MelcodecFeatureExtractor(SequenceFeatureExtractor):
    """Waves of any rate -> ``input_values`` (B, 1, S) and ``padding_mask`` (B, S), zero-padded on the right.

    Args:
        sampling_rate: Hz that the model wants.
    """

    model_input_names = ["input_values", "padding_mask"]  # noqa: RUF012 - as transformers declares it

    def __init__(self, sampling_rate: int = 22_050, **kwargs: Any) -> None:
        kwargs |= {"feature_size": 1, "padding_value": 0.0, "padding_side": "right"}
        super().__init__(sampling_rate=sampling_rate, **kwargs)

    def __call__(
        self,
        raw_audio: Any,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """One wave (S,), or a list of them, of floats in [-1, 1] -> a batch.

        Args:
            sampling_rate: Hz of the waves, which are resampled as melcodec resamples a file; None: the model's.
            padding: True or longest: to the longest wave; max_length: to so many samples. Nothing is ever cut.
            max_length: samples at the model's rate.
            return_tensors: pt or np.

        Raises:
            MelcodecError: integers, channels, no samples, NaN, or a rate that cannot be resampled.
        """
        if return_tensors not in ("pt", "np", None):
            raise MelcodecError(f"return_tensors={return_tensors!r}: batches are of torch or NumPy", 'use "pt" or "np"')
        several = isinstance(raw_audio, list | tuple) and (not raw_audio or np.ndim(raw_audio[0]) > 0)
        waves = inputs.wave_list(raw_audio if several else [raw_audio])
        if not waves:
            raise MelcodecError("an empty list of waves has no features")
        waves = [inputs.resampled(wave[None], sampling_rate, self.sampling_rate)[0].cpu() for wave in waves]
        lengths = torch.tensor([len(wave) for wave in waves])
        values = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
        values = torch.nn.functional.pad(values, (0, self._more(values.shape[1], padding, max_length)))
        mask = (torch.arange(values.shape[1]) < lengths[:, None]).long()
        batch = {"input_values": values[:, None], "padding_mask": mask}
        return BatchFeature(batch if return_tensors != "np" else {name: value.numpy() for name, value in batch.items()})

    def _more(self, longest: int, padding: bool | str, max_length: int | None) -> int:
        """Samples to pad beyond the longest wave."""
        if padding not in (True, "longest", "max_length"):
            raise MelcodecError(f"padding={padding!r}: waves of a batch have one length", 'use True, "longest" or "max_length"')
        if (padding == "max_length") != (max_length is not None):
            raise MelcodecError('padding="max_length" and max_length belong together')
        if max_length is not None and max_length < longest:
            raise MelcodecError(f"a wave of {longest} samples is longer than max_length {max_length}", "nothing is cut silently")
        return 0 if max_length is None else max_length - longest
