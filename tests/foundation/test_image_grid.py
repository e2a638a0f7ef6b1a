from __future__ import annotations

import pytest
import torch

from frozenmm.foundation.image_grid import grid_size, grid_step, to_image_grid


def ramp(region, cells):
    """A map whose value at a cell is the x coordinate (pixels of the image) of the cell's centre."""
    x1, _, x2, _ = region
    centres = x1 + (torch.arange(cells, dtype=torch.float64) + 0.5) * (x2 - x1) / cells
    return centres.expand(1, 1, cells, cells).float()


@pytest.mark.parametrize('region', [(0, 0, 64, 64), (-16, -16, 112, 112), (-3, 0, 93, 96)])
@pytest.mark.parametrize('step', [2, 4, 7, 12])
def test_a_ramp_keeps_its_place_in_the_image(region, step):
    size = (64 // step, 64 // step)  # at least five cells
    moved = to_image_grid(ramp(region, 24), torch.tensor([region]), size, (step, step))
    expected = (torch.arange(size[1]) + 0.5) * step
    cell = (region[2] - region[0]) / 24
    inner = slice(2, -2)  # at the border of the map a widened filter is cut
    # enlarging is exact; a widened triangle on a grid reproduces a ramp up to a few per cent of a cell
    tolerance = 1e-4 if step <= cell else 0.06 * cell
    wanted = expected[inner].expand(size[0] - 4, -1)
    torch.testing.assert_close(moved[0, 0, inner, inner], wanted, rtol=0, atol=tolerance)


def test_a_map_on_the_grid_is_unchanged(generator):
    x = torch.rand(2, 3, 5, 7, generator=generator)
    region = torch.tensor([[0.0, 0.0, 56.0, 40.0]]).expand(2, 4)
    torch.testing.assert_close(to_image_grid(x, region, (5, 7), (8, 8)), x)


def test_images_with_different_regions_are_treated_alone(generator):
    x = torch.rand(2, 3, 6, 6, generator=generator)
    regions = torch.tensor([[0.0, 0.0, 48.0, 48.0], [-8.0, 4.0, 40.0, 60.0]])
    both = to_image_grid(x, regions, (5, 4), (8, 16))
    for i in range(2):
        torch.testing.assert_close(both[i:i + 1], to_image_grid(x[i:i + 1], regions[i:i + 1], (5, 4), (8, 16)))


def test_cells_beyond_the_map_are_zero():
    moved = to_image_grid(torch.ones(1, 1, 4, 4), torch.tensor([[16.0, 16.0, 48.0, 48.0]]), (8, 8), (8, 8))
    assert moved[0, 0, 4, 4] == 1
    assert moved[0, 0, 0].abs().max() == 0 and moved[0, 0, :, 7].abs().max() == 0


def test_shrinking_averages_instead_of_skipping():
    checker = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    moved = to_image_grid(checker[None, None].float(), torch.tensor([[0.0, 0.0, 32.0, 32.0]]), (4, 4), (8, 8))
    torch.testing.assert_close(moved, torch.full((1, 1, 4, 4), 0.5), rtol=0, atol=1e-2)


def test_the_map_gets_a_gradient(generator):
    x = torch.rand(1, 2, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    region = torch.tensor([[-2.0, 0.0, 30.0, 35.0]])
    assert torch.autograd.gradcheck(lambda x: to_image_grid(x, region, (3, 5), (8, 8)), (x, ))


def test_partial_cells_count():
    assert grid_size((100, 64), 32) == (4, 2)


@pytest.mark.parametrize(('image', 'size', 'step'), [
    ((96, 64), (12, 8), (8, 8)),
    ((100, 70), (13, 9), (8, 8)),
    ((96, 96), (2, 2), (64, 64)),  # FPN's extra level of an image that 64 does not divide
    ((224, 224), (16, 16), (14, 14)),  # no power of two: the map spans the image
])
def test_step_of_a_level_is_found_from_its_size(image, size, step):
    assert grid_step(image, size) == step
