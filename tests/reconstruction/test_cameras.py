from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from frozenmm.reconstruction.cameras import (
    back_project,
    focal_intrinsics,
    invert_intrinsics,
    optimisation_size,
    pixel_grid,
    project,
    reconstruction_size,
    resize_intrinsics,
    transform,
)
from frozenmm.reconstruction.motions import se3_exp


def test_sizes_follow_the_official_rounding():
    assert optimisation_size(480, 640) == (150, 200)
    assert reconstruction_size(150, 200) == (480, 640)


def test_an_image_without_area_is_refused():
    with pytest.raises(ValueError, match='0x640 pixels has no area'):
        optimisation_size(0, 640)


def test_projection_undoes_back_projection(generator):
    intrinsics = focal_intrinsics(torch.tensor([1.1], dtype=torch.float64), (48, 64), (12, 16))
    grid = pixel_grid(12, 16)
    depth = torch.rand(2, 192, dtype=torch.float64, generator=generator) + 0.5
    pixels, z = project(back_project(depth, grid, invert_intrinsics(intrinsics)), intrinsics)
    torch.testing.assert_close(pixels, grid[:, :2].expand(2, -1, -1))
    torch.testing.assert_close(z, depth)


def test_focal_intrinsics_equal_resized_intrinsics():
    ratio = torch.tensor([0.9], dtype=torch.float64)
    full = focal_intrinsics(ratio, (48, 64), (48, 64))
    assert float(full[0, 0]) == pytest.approx(0.9 * 56)
    torch.testing.assert_close(resize_intrinsics(full, (48, 64), (12, 32)), focal_intrinsics(ratio, (48, 64), (12, 32)))


def test_singular_intrinsics_are_refused():
    with pytest.raises(ValueError, match='must be invertible'):
        invert_intrinsics(torch.zeros(1, 3, 3))


def test_projection_through_a_motion_has_correct_gradients(generator):
    points = torch.rand(4, 3, dtype=torch.float64, generator=generator) + torch.tensor([0.0, 0.0, 1.0])
    vector = (0.1 * torch.randn(1, 6, dtype=torch.float64, generator=generator)).requires_grad_()
    ratio = torch.tensor([1.2], dtype=torch.float64, requires_grad=True)

    def image(points, vector, ratio):
        return project(transform(points[None], se3_exp(vector)), focal_intrinsics(ratio, (48, 64), (24, 32)))

    assert gradcheck(image, (points.requires_grad_(), vector, ratio))
