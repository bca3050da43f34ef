"""Which crops a step sees, and what is done to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from melcodec.config import RunConfig, with_overrides
from melcodec.errors import MelcodecError
from melcodec.training.cache import MelCache
from melcodec.training.data import Crops, identity, wants_on_device

CROP = 8
CPU = torch.device("cpu")
FLOOR = math.log(1e-5)


def cache_of(*lengths: int) -> MelCache:
    """Clips whose frames say where they stand: band 0 the clip, band 1 the frame in it, band 2 the frame in the corpus."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    clips = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(starts[-1])
    return of_mels(np.stack([clips, position - starts[clips], position], axis=1), starts)


def of_mels(mels: np.ndarray, starts: np.ndarray | list[int]) -> MelCache:
    return MelCache(mels.astype(np.float16), np.array(starts), [f"{index}" for index in range(len(starts) - 1)], {}, "key")


def crops_of(cache: MelCache, *settings: str) -> Crops:
    bands = cache.mels.shape[1]
    always = [f"data.crop_frames={CROP}", "data.batch_size=16", f"model.mel.n_mels={bands}"]
    return Crops(cache, with_overrides(RunConfig(), [*always, *settings]), CPU)


def batch(crops: Crops, step: int = 0):
    return crops.batch(crops.draw(step))


def test_crops_have_the_shape_that_was_asked_for():
    found = batch(crops_of(cache_of(50), "data.crop_frames=12", "data.batch_size=5"))
    assert found.mel.shape == (5, 3, 12)
    assert found.mel.dtype == torch.float32
    assert found.mel.is_contiguous()
    assert found.lengths is None
    assert found.seen is found.mel


def test_crops_are_a_function_of_seed_and_step():
    cache = cache_of(500, 400)
    crops = crops_of(cache)
    late = batch(crops, 7).mel
    for step in range(3):
        batch(crops, step)
    assert batch(crops, 7).mel.equal(late)
    assert batch(crops_of(cache), 7).mel.equal(late)
    for other in (batch(crops, 8), batch(crops_of(cache, "train.seed=1"), 7)):
        assert not other.mel.equal(late)


def test_clips_come_in_proportion_to_their_length_and_every_start_equally_often():
    lengths = (CROP, CROP + 3, 20)
    crops = crops_of(cache_of(*lengths))
    seen: dict[tuple[int, int], int] = {}
    for step in range(300):
        for clips, frames, _ in batch(crops, step).mel.numpy():
            assert len(set(clips)) == 1
            assert np.array_equal(frames, np.arange(frames[0], frames[0] + CROP))
            start = int(clips[0]), int(frames[0])
            seen[start] = seen.get(start, 0) + 1
    for clip, length in enumerate(lengths):
        starts = length - CROP + 1
        expected = 4800 * length / sum(lengths) / starts
        counts = [seen.pop((clip, frame)) for frame in range(starts)]
        assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in counts)
    assert not seen


def test_a_clip_shorter_than_a_crop_is_taken_whole_and_masked():
    found = batch(crops_of(cache_of(3, 20)))
    short = found.mel[:, 0, 0] == 0
    assert short.any()
    assert (~short).any()
    assert found.lengths[short].tolist() == [3] * int(short.sum())
    assert found.lengths[~short].tolist() == [CROP] * int((~short).sum())
    for clips, frames, _ in found.mel[short].numpy():
        assert frames[:3].tolist() == [0, 1, 2]
        assert set(clips) == {0}  # what is behind belongs to no other clip


def test_a_corpus_shorter_than_a_crop_still_trains():
    found = batch(crops_of(cache_of(5)))
    assert found.lengths.tolist() == [5] * 16


def test_no_speech_at_all():
    with pytest.raises(MelcodecError, match="no frame of speech"):
        crops_of(of_mels(np.zeros((0, 3)), [0, 0]))


def test_parts_of_a_draw_are_parts_of_its_batch():
    crops = crops_of(
        cache_of(3, 50), "augment.gain_db=3", "augment.band_masks=1", "augment.band_mask_size=2", "augment.time_flip=0.5"
    )
    draw = crops.draw(4)
    whole = crops.batch(draw)
    parts = [crops.batch(draw.part(slice(i, i + 4))) for i in range(0, 16, 4)]
    assert torch.cat([part.mel for part in parts]).equal(whole.mel)
    assert torch.cat([part.seen for part in parts]).equal(whole.seen)


def test_gain_moves_each_crop_by_one_constant_and_respects_the_floor():
    cache = of_mels(np.random.default_rng(0).uniform(-11, 2, (400, 3)), [0, 400])
    plain, loud = batch(crops_of(cache), 3).mel, batch(crops_of(cache, "augment.gain_db=6.0"), 3).mel
    limit = 6 * math.log(10) / 10
    gains = []
    for before, after in zip(plain.numpy(), loud.numpy(), strict=True):
        above = after > FLOOR + 1e-3
        gains.append(float(np.median((after - before)[above])))
        np.testing.assert_allclose(after, np.maximum(before + gains[-1], FLOOR), atol=1e-5)
    assert max(map(abs, gains)) <= limit
    assert max(gains) > limit / 2
    assert min(gains) < -limit / 2
    assert len({round(gain, 4) for gain in gains}) == 16


def test_a_stretched_crop_covers_more_or_less_of_its_clip():
    frames = batch(crops_of(cache_of(500), "augment.time_scale=0.5")).mel[:, 1].numpy()
    steps = np.diff(frames[:, 1:-1])  # the ends repeat
    rates = steps.mean(1)
    np.testing.assert_allclose(steps, rates[:, None].repeat(steps.shape[1], 1), atol=0.02)  # evenly, between frames too
    assert 0.5 <= rates.min() < 0.75
    assert 1.25 < rates.max() <= 1.55


def test_a_stretch_of_one_changes_nothing():
    cache = cache_of(500)
    assert batch(crops_of(cache, "augment.time_scale=1e-9")).mel[:, 1].diff(dim=1).allclose(torch.ones(16, CROP - 1), atol=1e-3)


def test_some_crops_run_backwards():
    frames = batch(crops_of(cache_of(3, 500), "augment.time_flip=0.5")).mel[:, 1].numpy()
    directions = {tuple(np.sign(np.diff(row[:3]))) for row in frames}
    assert directions == {(1, 1), (-1, -1)}
    whole = batch(crops_of(cache_of(500), "augment.time_flip=1.0")).mel[:, 1]
    assert whole.diff(dim=1).eq(-1).all()


@pytest.mark.parametrize(("kind", "axis", "extent"), [("band", 2, 10), ("time", 1, CROP)])
def test_stripes_are_hidden_from_the_encoder_alone(kind, axis, extent):
    cache = of_mels(np.random.default_rng(0).uniform(-11, 2, (400, 10)), [0, 400])
    found = batch(crops_of(cache, f"augment.{kind}_masks=2", f"augment.{kind}_mask_size=3"))
    assert found.mel.equal(batch(crops_of(cache)).mel)
    hidden = found.seen != found.mel
    stripes = hidden.all(axis)  # (B, extent)
    assert torch.equal(hidden.any(axis), stripes)
    widths = stripes.sum(1)
    assert widths.max() <= 6
    assert 1 < widths.float().mean() < 5
    assert stripes.float().mean(0).min() > 0  # anywhere
    for seen, mel, lost in zip(found.seen, found.mel, hidden, strict=True):
        assert torch.allclose(seen[lost], mel.mean())


def test_names_of_the_clips_of_a_batch():
    crops = crops_of(cache_of(50, 60))
    draw = crops.draw(0)
    assert sorted(crops.sources(draw)) == ["0", "1"]
    assert crops.sources(draw.part(slice(0, 1))) == [str(draw.clips[0])]


def test_identity_is_of_names_and_lengths():
    first = identity(cache_of(50, 60))
    assert identity(cache_of(50, 60)) == first
    assert identity(cache_of(60, 50)) != first
    renamed = cache_of(50, 60)
    renamed.ids[0] = "other"
    assert identity(renamed) != first


def test_only_a_gpu_holds_the_corpus():
    assert not wants_on_device("always", 1, CPU)
    assert not wants_on_device("auto", 1, CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_corpus_moves_there_when_it_fits():
    device = torch.device("cuda")
    free = torch.cuda.mem_get_info()[0]
    assert wants_on_device("auto", free // 4, device)
    assert not wants_on_device("auto", free, device)
    assert wants_on_device("always", free, device)
    assert not wants_on_device("never", 1, device)
    cache = cache_of(500, 400)
    config = with_overrides(RunConfig(), ["data.crop_frames=8", "model.mel.n_mels=3"])
    there, here = Crops(cache, config, device), Crops(cache, config, CPU)
    assert there.batch(there.draw(0)).mel.cpu().equal(here.batch(here.draw(0)).mel)


def test_speaker_power_draws_speakers_by_a_power_of_their_length():
    cache = cache_of(*[CROP] * 9, CROP)  # nine clips by one speaker, one by another
    speakers = ["a"] * 9 + ["b"]
    for power, share in ((1.0, 0.1), (0.5, 0.25), (0.0, 0.5)):
        settings = with_overrides(RunConfig(), ["model.mel.n_mels=3", f"data.speaker_power={power}", f"data.crop_frames={CROP}"])
        crops = Crops(cache, settings, CPU, speakers)
        drawn = np.concatenate([crops.draw(step).clips for step in range(100)])
        assert abs((drawn == 9).mean() - share) < 0.04
        assert set(drawn) == set(range(10))


def test_speakers_of_a_run_come_from_its_utterances_at_every_speed():
    from melcodec.manifests.base import Utterance
    from melcodec.training.run import _speakers

    utterances = [Utterance("a@1", "a.wav", speaker="x"), Utterance("b", "b.wav", speaker="y")]
    cache = MelCache(np.zeros((4, 3), np.float16), np.arange(5), ["a@1", "b", "a@1@0.9", "b@0.9"], {})
    assert _speakers(utterances, cache) == ["x", "y", "x", "y"]


def test_probability_is_the_share_of_crops_that_are_changed():
    cache = of_mels(np.full((400, 3), -4.0), [0, 400])
    settings = ("augment.gain_db=6", "augment.probability=0.25")
    unchanged = [(batch(crops_of(cache, *settings), step).mel == -4).all(dim=(1, 2)).float().mean() for step in range(40)]
    assert 0.68 < np.mean(unchanged) < 0.82
