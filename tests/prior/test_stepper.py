"""The cached way through a network gives what the transformers library gives, whole, in rows and beyond its window."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from melcodec.prior.network import logits_of
from melcodec.prior.stepper import Session, build_core, whole_logits
from tests.prior.conftest import SIZE, make_prior, spoken_codes

pytest.importorskip("transformers")
BOOKS = [((SIZE,), "flat"), ((SIZE, 16), "delay")]


@pytest.mark.parametrize("kind", ["llama", "mamba"])
@pytest.mark.parametrize(("sizes", "pattern"), BOOKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_to_the_library(kind, sizes, pattern, dtype):
    prior = make_prior(kind, sizes, pattern)
    rows = torch.from_numpy(prior.tokens.sequence(spoken_codes(1, 5, 12, sizes)[0])[:16])[None]
    core = build_core(prior.network, dtype)
    with torch.inference_mode():
        wanted = logits_of(prior.network, rows)
    found = core.read(rows, core.start(1))
    assert found.dtype == dtype
    assert torch.allclose(found.float(), wanted, atol=2e-5)
    assert wanted.std() > 0.1  # or closeness would mean nothing


@pytest.mark.parametrize("kind", ["llama", "mamba"])
@pytest.mark.parametrize(("sizes", "pattern"), BOOKS)
def test_row_by_row_is_whole_beyond_the_window(kind, sizes, pattern):
    """In float64 to 1e-12, which entropy coding needs; 70 codes are more than four windows of 16."""
    prior = make_prior(kind, sizes, pattern)
    rows = torch.from_numpy(prior.tokens.rows(spoken_codes(1, 6, 70, sizes)[0]))
    core = build_core(prior.network, torch.float64)
    whole = torch.cat(list(whole_logits(core, prior.tokens, rows)))
    session, row, alone = Session(core), torch.full((1, prior.tokens.width), prior.tokens.begin), []
    for index in range(len(rows)):
        alone.append(session.next(row))
        row = rows[index : index + 1]
    assert whole.shape == (len(rows), prior.tokens.vocabulary)
    assert (whole - torch.cat(alone)).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["llama", "mamba"])
def test_sequences_that_grow_together_do_not_meet(kind):
    prior = make_prior(kind)
    core = build_core(prior.network, torch.float64)
    rows = torch.from_numpy(np.stack([prior.tokens.rows(codes[:, :40]) for codes in spoken_codes(3, 7)]))
    together, alone = Session(core, 3), [Session(core) for _ in range(3)]
    for index in range(40):
        joint = together.next(rows[:, index])
        for item, session in enumerate(alone):
            assert torch.allclose(session.next(rows[item : item + 1, index])[0], joint[item], atol=1e-12)
