from __future__ import annotations

import pytest
import torch

from melcodec.quantize.kmeans import kmeans, nearest


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(per_blob: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors around the corners of a square, and the corners."""
    corners = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    return (corners[:, None] + 0.1 * torch.randn(4, per_blob, 2, generator=seeded())).reshape(-1, 2), corners


def spread(vectors: torch.Tensor, centres: torch.Tensor) -> float:
    return (vectors - centres[nearest(vectors, centres.T)]).square().sum(1).mean().item()


def test_blobs_are_found():
    vectors, corners = blobs()
    # a random start can leave a blob without a centre, as k-means does; the best of a few starts does not
    centres = min((kmeans(vectors, 4, 10, seeded(seed))[0] for seed in range(8)), key=lambda found: spread(vectors, found))
    assert sorted((centres.round().abs() + 0.0).tolist()) == sorted(corners.tolist())


def test_more_iterations_fit_better():
    vectors = torch.randn(2000, 8, generator=seeded())
    one, ten = kmeans(vectors, 32, 1, seeded())[0], kmeans(vectors, 32, 10, seeded())[0]
    assert spread(vectors, ten) < 0.99 * spread(vectors, one)


def test_counts_and_shapes():
    vectors = torch.randn(300, 4, generator=seeded())
    centres, counts = kmeans(vectors, 7, 5, seeded())
    assert centres.shape == (7, 4)
    assert counts.sum() == 300
    assert (counts > 0).all()


def test_the_generator_decides():
    vectors = torch.randn(300, 4, generator=seeded())
    first, again, other = (kmeans(vectors, 7, 2, seeded(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("count", [1, 3, 10])
def test_fewer_vectors_than_clusters(count):
    vectors = torch.randn(count, 4, generator=seeded())
    centres, _ = kmeans(vectors, 10, 3, seeded())
    assert centres.shape == (10, 4)
    assert torch.isfinite(centres).all()
    assert len(torch.unique(centres, dim=0)) == 10
    # each centre stands beside a vector
    assert torch.cdist(centres, vectors).min(dim=1).values.max() < 0.1


def test_empty_clusters_restart_from_vectors():
    # 60 equal vectors and 4 others: most starts fall on the equal ones, all but one of which stay empty
    others = torch.tensor([[5.0, 0.0], [0.0, 5.0], [5.0, 5.0], [-5.0, 5.0]])
    vectors = torch.cat([torch.zeros(60, 2), others])
    centres, counts = kmeans(vectors, 6, 100, seeded())
    assert torch.isfinite(centres).all()
    assert counts.sum() == 64
    assert all((centres == other).all(dim=1).any() for other in others)
    # an empty cluster is a vector of the data, not the zero that its empty sum would give
    far = vectors + 100
    centres, _ = kmeans(far, 6, 1, seeded())
    assert centres.min() > 90
