"""Drawn codes: prompts are kept, seeds decide, options matter, repetitions are found."""

from __future__ import annotations

import numpy as np
import pytest

from melcodec.errors import MelcodecError
from melcodec.prior.sample import Loop, Sampling, draw, loops, sample, stream
from tests.prior.conftest import SIZE, make_prior, spoken_codes

pytest.importorskip("transformers")
KINDS = [("ngram", (SIZE,), "flat"), ("llama", (SIZE,), "flat"), ("llama", (SIZE, 16), "flat"), ("llama", (SIZE, 16, 8), "delay")]


@pytest.mark.parametrize(("kind", "sizes", "pattern"), KINDS)
def test_prompts_are_continued_and_seeds_decide(kind, sizes, pattern):
    prior = make_prior(kind, sizes, pattern)
    prompt = spoken_codes(1, 4, sizes=sizes)[0][:, :7]
    three = sample(prior, 30, [prompt] * 3, Sampling(seed=5))
    for codes in three:
        assert codes.shape[0] == len(sizes)
        assert 7 <= codes.shape[1] <= 30
        assert np.array_equal(codes[:, :7], prompt)
        assert (codes >= 0).all()
        assert (codes < np.array(sizes)[:, None]).all()
    assert not np.array_equal(three[0], three[1])
    (alone,) = sample(prior, 30, [prompt], Sampling(seed=5))
    assert np.array_equal(alone, three[0])  # a sample does not depend on those beside it
    assert not np.array_equal(sample(prior, 30, [None], Sampling(seed=5))[0], sample(prior, 30, [None], Sampling(seed=6))[0])


@pytest.mark.parametrize(("kind", "sizes", "pattern"), KINDS)
@pytest.mark.parametrize("length", [0, 7])
def test_a_stream_is_the_sample(kind, sizes, pattern, length):
    """Part by part the same codes, each part before the next one is drawn; also where the network ends by itself."""
    prior = make_prior(kind, sizes, pattern)
    prompt = spoken_codes(1, 4, sizes=sizes)[0][:, :length] if length else None
    for seed in range(4):
        (whole,) = sample(prior, 45, [prompt], Sampling(seed=seed))
        parts = list(stream(prior, 45, prompt, Sampling(seed=seed), block=8))
        assert np.array_equal(np.concatenate(parts, axis=1), whole)
        assert [part.shape[1] for part in parts[:-1]] == [8] * (len(parts) - 1)
    started = []
    read = prior.start(1).next

    class Counting:
        def next(self, rows):
            started.append(rows)
            return read(rows)

    object.__setattr__(prior, "start", lambda batch: Counting())  # frozen dataclass
    first = next(stream(prior, 45, prompt, Sampling(seed=0), block=2))
    assert first.shape[1] <= 2
    assert len(started) <= 2 * len(sizes)


def test_n_grams_never_end_and_draw_what_they_learned():
    prior = make_prior("ngram")
    (codes,) = sample(prior, 400, [None])
    assert codes.shape == (1, 400)
    assert prior.surprise(codes).mean() < 3  # 5 bits at chance


def test_a_network_may_end_an_utterance():
    prior = make_prior("llama")
    lengths = [codes.shape[1] for codes in sample(prior, 60, [None] * 8)]
    assert min(lengths) < 60
    assert min(lengths) >= 1


def test_temperature_and_top_p():
    logits, random = np.log([0.5, 0.3, 0.15, 0.05]), np.random.default_rng(0)

    def shares(**options):
        return np.bincount([draw(logits, Sampling(**options), random) for _ in range(4000)], minlength=4) / 4000

    assert shares() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.04)
    assert shares(temperature=0).tolist() == [1, 0, 0, 0]
    assert shares(temperature=0.5)[0] > 0.65
    assert shares(top_p=0.79) == pytest.approx([0.625, 0.375, 0, 0], abs=0.04)
    assert shares(top_p=0.81)[2] > 0.1


def test_prompts_that_do_not_fit_are_refused():
    prior, codes = make_prior("ngram"), spoken_codes(1, 4)[0]
    with pytest.raises(MelcodecError, match="equally long"):
        sample(prior, 30, [codes[:, :5], codes[:, :6]])
    with pytest.raises(MelcodecError, match="the prompt has 9 codes and 9 were asked for"):
        sample(prior, 9, [codes[:, :9]])


def test_repetitions():
    free = list(range(100, 140))
    codes = np.array([[*free, *([1, 2, 3] * 8), *free[::-1], *([9] * 20), 5]])
    assert loops(codes) == [Loop(40, 3, 24), Loop(104, 1, 20)]
    assert loops(codes[:, :50]) == []
    assert loops(np.array([free])) == []
    assert loops(np.concatenate([codes, np.arange(codes.shape[1])[None]])) == []  # another codebook goes on


def test_silence():
    free = np.arange(100, 160)[None]
    quiet = np.zeros(60, bool)
    quiet[10:45] = True
    assert loops(free) == []
    assert loops(free, quiet) == [Loop(10, 0, 35)]
    quiet[20] = False  # two short pauses
    assert loops(free, quiet) == []
    codes = np.array([[*range(40), *([1, 2, 3] * 8), *range(50, 90), *([9] * 20), 5]])
    quiet = np.zeros(codes.shape[1], bool)
    quiet[104:124] = True
    assert loops(codes, quiet) == [Loop(40, 3, 24), Loop(104, 0, 20)]
    assert loops(codes, ~quiet)[0] == Loop(0, 0, 40)
