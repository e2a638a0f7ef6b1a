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
    index, regions = NearExamples(vectors, 0.8), vectors
    assert index.basis is not None
    found, every = index(regions), near_pairs(regions @ vectors.T, 0.8)
    table, whole = torch.zeros(2, 3000, 3000)
    table[found.region, found.example] = found.cosine
    whole[every.region, every.example] = every.cosine
    torch.testing.assert_close(table[table > 0], whole[table > 0])
    assert found.count == 3000 and (table > 0).sum() / (whole > 0).sum() > 0.995


def test_a_region_alone_and_among_others_finds_the_same(few):
    vectors = groups()
    index, regions = NearExamples(vectors, 0.8), vectors[:40]
    together, alone = index(regions), index(regions[33:34])
    mine = together.region == 33
    assert torch.equal(together.example[mine], alone.example) and len(alone.example)
    torch.testing.assert_close(together.cosine[mine], alone.cosine)


def test_examples_without_main_directions_are_all_compared(few):
    vectors = F.normalize(torch.randn(3000, 48, generator=torch.Generator().manual_seed(0)), dim=-1)
    index = NearExamples(vectors, 0.4)
    assert index.basis is None
    found, every = index(vectors[:5]), near_pairs(vectors[:5] @ vectors.T, 0.4)
    assert torch.equal(found.example, every.example)
