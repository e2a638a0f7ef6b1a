"""Looking at few examples finds what looking at all finds."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from frozenmm.segmentation import near_examples
from frozenmm.segmentation.near_examples import NearExamples, near_pairs


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(near_examples, 'FEW', 100)
    monkeypatch.setattr(near_examples, 'DIRECTIONS', 16)


def groups(channels: int = 48) -> torch.Tensor:
    """3000 vectors around 60 centres."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(60, 12, generator=generator) @ torch.randn(12, channels, generator=generator)
    noise = torch.randn(3000, channels, generator=generator)
    return F.normalize(centres.repeat_interleave(50, 0) + 0.5 * noise, dim=-1)


def test_few_directions_find_the_similar_examples_with_their_cosines(few):
    vectors = groups()
    index = NearExamples(vectors, 0.8)
    assert index.basis is not None
    shares = []
    for row in range(0, 3000, 100):
        found, every = index(vectors[row:row + 1]), near_pairs(vectors[row:row + 1] @ vectors.T, 0.8)
        whole = torch.zeros(3000).scatter(0, every.example, every.cosine)
        assert found.count == 1 and len(found.example) and (found.region == 0).all()
        torch.testing.assert_close(found.cosine, whole[found.example], atol=0.01, rtol=0)
        shares.append(len(found.example) / len(every.example))
    assert sum(shares) / len(shares) > 0.97


def test_many_regions_are_compared_with_all(few):
    vectors = groups()
    found, every = NearExamples(vectors, 0.8)(vectors[:40]), near_pairs(vectors[:40] @ vectors.T, 0.8)
    assert abs(len(found.example) - len(every.example)) < 0.01 * len(every.example)


def test_examples_without_main_directions_are_all_compared(few):
    vectors = F.normalize(torch.randn(3000, 48, generator=torch.Generator().manual_seed(0)), dim=-1)
    index = NearExamples(vectors, 0.4)
    assert index.basis is None
    found, every = index(vectors[:5]), near_pairs(vectors[:5].bfloat16() @ vectors.bfloat16().T, 0.4)
    assert torch.equal(found.example, every.example)
