from __future__ import annotations

import pytest
import torch

from frozenmm.reconstruction.cameras import (
    back_project,
    focal_intrinsics,
    invert_intrinsics,
    optimisation_size,
    pixel_grid,
)


def test_sizes_follow_the_official_rounding():
    assert optimisation_size(480, 640) == (150, 200)


def test_an_image_without_area_is_refused():
    with pytest.raises(ValueError, match='0x640 pixels has no area'):
        optimisation_size(0, 640)


def test_back_projection_puts_every_pixel_at_its_depth(generator):
    intrinsics = focal_intrinsics(torch.tensor([1.1], dtype=torch.float64), (48, 64), (12, 16))
    grid = pixel_grid(12, 16)
    depth = torch.rand(2, 192, dtype=torch.float64, generator=generator) + 0.5
    image = back_project(depth, grid, invert_intrinsics(intrinsics)) @ intrinsics.T
    torch.testing.assert_close(image[..., :2] / image[..., 2:], grid[:, :2].expand(2, -1, -1))
    torch.testing.assert_close(image[..., 2], depth)


def test_the_focal_length_follows_each_side_of_a_resize():
    ratio = torch.tensor([0.9], dtype=torch.float64)
    full = focal_intrinsics(ratio, (48, 64), (48, 64))
    assert full.tolist() == [[pytest.approx(0.9 * 56), 0, 32], [0, pytest.approx(0.9 * 56), 24], [0, 0, 1]]
    half = focal_intrinsics(ratio, (48, 64), (12, 32))
    assert half.diagonal()[:2].tolist() == pytest.approx([0.9 * 28, 0.9 * 14]) and half[:2, 2].tolist() == [16, 6]


def test_singular_intrinsics_are_refused():
    with pytest.raises(ValueError, match='must be invertible'):
        invert_intrinsics(torch.zeros(1, 3, 3))
