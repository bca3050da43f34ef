"""Which files train and validate, and which crops a step sees."""

from __future__ import annotations

import math

import numpy as np
import pytest

from melcodec.config import DataConfig, MelConfig
from melcodec.errors import MelcodecError
from melcodec.training.cache import MelCache
from melcodec.training.data import Crops, find_split

CROP = 8


@pytest.fixture
def folder(tmp_path):
    """A function that makes (empty) files below a folder; the split looks at names only."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


HUNDRED = [f"speaker{index % 7}/{index:03}.wav" for index in range(100)]


@pytest.mark.parametrize(("fraction", "count"), [(0.02, 2), (0.001, 1), (0.25, 25), (0.0, 0), (0.999, 99)])
def test_a_share_is_held_out(folder, fraction, count):
    root = folder(*HUNDRED)
    split = find_split([root], fraction)
    assert len(split.valid) == count
    assert sorted(names(split.train, root) + names(split.valid, root)) == sorted(HUNDRED)


def test_the_share_depends_on_names_alone(folder, tmp_path_factory):
    root = folder(*HUNDRED)
    split = find_split([root], 0.1)
    assert find_split([root], 0.1) == split
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in HUNDRED:
        (elsewhere / name).parent.mkdir(exist_ok=True)
        (elsewhere / name).touch()
    assert names(find_split([elsewhere], 0.1).valid, elsewhere) == names(split.valid, root)
    # and hardly changes when files come
    folder(*(f"new/{index}.wav" for index in range(10)))
    assert len(set(find_split([root], 0.1).valid) & set(split.valid)) >= 8


@pytest.mark.parametrize(("train", "valid"), [("train", "valid"), ("training", "validation"), ("train", "dev"), ("train", "val")])
def test_folders_named_train_and_valid_are_taken_at_their_word(folder, train, valid):
    root = folder(f"{train}/a.wav", f"{train}/deep/b.flac", f"{valid}/c.wav", "test/d.wav", "e.wav")
    split = find_split([root], 0.5)
    assert names(split.train, root) == [f"{train}/a.wav", f"{train}/deep/b.flac"]
    assert names(split.valid, root) == [f"{valid}/c.wav"]


def test_a_train_folder_alone_is_a_folder_like_any_other(folder):
    root = folder("train/a.wav", "other/b.wav", "c.wav")
    split = find_split([root], 0.0)
    assert names(split.train, root) == ["c.wav", "other/b.wav", "train/a.wav"]


def test_several_sources_and_single_files(folder):
    root = folder("x/train/a.wav", "x/valid/b.wav", "y/c.wav", "y/d.wav", "e.wav", "notes.txt", "y/notes.txt", "y/.hidden.wav")
    split = find_split([root / "x", root / "y", root / "e.wav", root / "notes.txt"], 0.4)
    assert len(split.valid) == 1 + 2  # of the three files without folders of their own
    assert sorted(names(split.train + split.valid, root)) == ["e.wav", "x/train/a.wav", "x/valid/b.wav", "y/c.wav", "y/d.wav"]


def test_a_single_file_trains(folder):
    root = folder("a.wav")
    assert find_split([root], 0.5).valid == []
    assert names(find_split([root / "a.wav"], 0.5).train, root) == ["a.wav"]


def test_nothing_to_train_on(folder):
    root = folder("notes.txt")
    with pytest.raises(MelcodecError, match="no audio files in") as caught:
        find_split([root], 0.1)
    assert "flac" in caught.value.hint
    with pytest.raises(MelcodecError, match="no such file or folder"):
        find_split([root / "none"], 0.1)


def cache_of(*lengths: int) -> MelCache:
    """Clips whose frames say where they stand: band 0 the clip, band 1 the frame in it, band 2 the frame in the corpus."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    clips = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(starts[-1])
    mels = np.stack([clips, position - starts[clips], position], axis=1).astype(np.float16)
    return MelCache(mels, starts, [f"{index}.wav" for index in range(len(lengths))], {})


def crops_of(cache: MelCache, seed: int = 0, **settings) -> Crops:
    return Crops(cache, DataConfig(crop_frames=CROP, batch_size=16, **settings), MelConfig(n_mels=3), seed)


def test_crops_have_the_shape_that_was_asked_for():
    batch = Crops(cache_of(50), DataConfig(crop_frames=12, batch_size=5), MelConfig(n_mels=3), 0).batch(0)
    assert batch.shape == (5, 3, 12)
    assert batch.dtype.is_floating_point
    assert batch.is_contiguous()
    assert batch.element_size() == 4


def test_crops_are_a_function_of_seed_and_step():
    cache = cache_of(500, 400)
    crops = crops_of(cache)
    late = crops.batch(7)
    for step in range(3):
        crops.batch(step)
    assert crops.batch(7).equal(late)
    assert crops_of(cache).batch(7).equal(late)
    for other in (crops.batch(8), crops_of(cache, seed=1).batch(7)):
        assert not other.equal(late)


def test_crops_stay_inside_clips_and_reach_every_start():
    lengths = (CROP, CROP + 3, 20)
    crops = crops_of(cache_of(*lengths))
    seen: dict[tuple[int, int], int] = {}
    for step in range(200):
        for clips, frames, _ in crops.batch(step).numpy():
            assert len(set(clips)) == 1
            assert np.array_equal(frames, np.arange(frames[0], frames[0] + CROP))
            start = int(clips[0]), int(frames[0])
            seen[start] = seen.get(start, 0) + 1
    expected = {(clip, frame) for clip, length in enumerate(lengths) for frame in range(length - CROP + 1)}
    assert seen.keys() == expected
    # and each equally often: 3,200 draws over 18 starts
    mean = 3200 / len(expected)
    assert all(abs(count - mean) < 5 * math.sqrt(mean) for count in seen.values())


def test_short_clips_are_joined_and_long_ones_stand_alone():
    # clips 0-2 hold a crop together, 4 alone is too short before 5, 6 too short at the end
    crops = crops_of(cache_of(3, 3, 4, 20, 5, 10, 4))
    places = {tuple(sorted(set(clips.astype(int)))) for step in range(50) for clips, _, _ in crops.batch(step).numpy()}
    assert places == {(0, 1, 2), (3,), (5,)}
    positions = [positions for step in range(50) for _, _, positions in crops.batch(step).numpy()]
    assert all(np.array_equal(position, np.arange(position[0], position[0] + CROP)) for position in positions)


def test_too_little_speech_for_one_crop():
    with pytest.raises(MelcodecError, match="holds 7 frames of speech, less than one crop of 8") as caught:
        crops_of(cache_of(3, 4))
    assert "data.crop_frames=4" in caught.value.hint
    # several clips too short for a crop make one together
    assert crops_of(cache_of(3, 4, 1)).batch(0).shape == (16, 3, CROP)


def test_gain_moves_each_crop_by_one_constant_and_respects_the_floor():
    rng = np.random.default_rng(0)
    mels = rng.uniform(-11, 2, (400, 3)).astype(np.float16)
    cache = MelCache(mels, np.array([0, 400]), ["a.wav"], {})
    plain, loud = crops_of(cache).batch(3), crops_of(cache, gain_db=6.0).batch(3)
    floor = math.log(1e-5)
    limit = 6 * math.log(10) / 10
    gains = []
    for before, after in zip(plain.numpy(), loud.numpy(), strict=True):
        above = after > floor + 1e-3
        gains.append(float(np.median((after - before)[above])))
        np.testing.assert_allclose(after, np.maximum(before + gains[-1], floor), atol=1e-5)
    assert loud.min() == pytest.approx(floor)
    assert max(map(abs, gains)) <= limit
    assert max(gains) > limit / 2
    assert min(gains) < -limit / 2
    assert len({round(gain, 4) for gain in gains}) == 16
