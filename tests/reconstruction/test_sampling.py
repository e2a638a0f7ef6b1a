from __future__ import annotations

import math

import pytest
import torch

from frozenmm.reconstruction.frame_selection import frame_similarity, select_frames
from frozenmm.reconstruction.pair_sampling import PairSampler, angle_probabilities


def test_rows_sum_to_one_and_exclude_the_frame_itself_by_default(generator):
    angles = torch.rand(12, 12, generator=generator, dtype=torch.float64)
    rows = angle_probabilities(angles, torch.arange(12))
    torch.testing.assert_close(rows.sum(1), torch.ones(12, dtype=torch.float64))
    assert rows.diagonal().eq(0).all()
    assert angle_probabilities(angles, torch.arange(12), compat=True).diagonal().gt(0).all()


def test_far_frames_beyond_the_angle_are_never_drawn():
    angles = torch.full((10, 10), math.pi / 8)
    angles[:, 9] = 1.0
    rows = angle_probabilities(angles, torch.tensor([0]))
    assert rows[0, 9] == 0 and rows[0, 8] > 0


def test_two_frames_always_give_pairs():
    sampler = PairSampler(2, (8, 10), generator=torch.Generator().manual_seed(0))
    for _ in range(20):
        draw = sampler.draw()
        assert sorted(zip(draw.targets.tolist(), draw.references.tolist())) == [(0, 1), (1, 0)]
        assert len(draw.pixels) == 20 and draw.pixels.diff().gt(0).all()


def test_the_seed_decides_the_draws():
    first, second = (PairSampler(9, (6, 7), generator=torch.Generator().manual_seed(5)).draw() for _ in range(2))
    assert torch.equal(first.references, second.references) and torch.equal(first.pixels, second.pixels)


def test_one_frame_is_refused():
    with pytest.raises(ValueError, match='pairs need at least 2 frames, got 1'):
        PairSampler(1, (6, 7), generator=torch.Generator())


def test_similarity_is_symmetric_and_one_on_the_diagonal(generator):
    table = frame_similarity(torch.randn(6, 4, 2, 3, generator=generator), max_width=8)
    torch.testing.assert_close(table[:, 4], torch.ones(6))
    torch.testing.assert_close(table[1, 6], table[3, 2])
    assert table[5, 5] == 0


def test_equal_frames_are_thinned_and_different_ones_kept(generator):
    same = torch.randn(1, 4, 2, 3, generator=generator).expand(60, -1, -1, -1)
    assert len(select_frames(frame_similarity(same, max_width=20))) <= 35
    different = torch.randn(10, 64, 2, 2, generator=generator)
    assert select_frames(frame_similarity(different, max_width=8), threshold=0.99) == list(range(10))


def test_shapes_and_widths_are_checked():
    with pytest.raises(ValueError, match=r'features must have shape \(F, C, h, w\)'):
        frame_similarity(torch.ones(3, 4))
    with pytest.raises(ValueError, match='max_width must be even'):
        frame_similarity(torch.ones(3, 4, 2, 2), max_width=3)
