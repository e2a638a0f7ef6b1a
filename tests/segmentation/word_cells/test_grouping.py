"""Segments from probabilities and regions of one look."""
from __future__ import annotations

import torch

from frozenmm.segmentation.word_cells.grouping import Grouping, region_means


def halves(left: float, right: float) -> torch.Tensor:
    return torch.tensor([left, left, right, right]).expand(4, 4).clone()


REGIONS = torch.tensor([0, 0, 1, 1]).expand(4, 4)


def test_region_means_are_means():
    values = torch.arange(16.0).view(1, 4, 4)
    assert region_means(values, REGIONS).tolist() == [[values[0, :, :2].mean().item(), values[0, :, 2:].mean().item()]]


def test_regions_below_the_floor_belong_to_nothing():
    found = Grouping(floor=0.5).segments(halves(0.9, 0.4)[None], REGIONS, torch.tensor([True]))
    assert [(word, mask[0].tolist()) for word, mask in found] == [(0, [True, True, False, False])]
    assert Grouping(floor=0.95).segments(halves(0.9, 0.4)[None], REGIONS, torch.tensor([True])) == []


def test_a_thing_holds_only_what_comes_near_its_best_region_and_stuff_all():
    probabilities = halves(0.9, 0.4)[None]
    thing, = Grouping(floor=0.3, relative=0.5).segments(probabilities, REGIONS, torch.tensor([True]))
    stuff, = Grouping(floor=0.3, relative=0.5).segments(probabilities, REGIONS, torch.tensor([False]))
    assert thing[1].sum() == 8 and stuff[1].sum() == 16


def test_a_region_takes_the_word_that_fits_best():
    found = Grouping().segments(torch.stack([halves(0.9, 0.3), halves(0.6, 0.8)]), REGIONS, torch.tensor([False, True]))
    assert [(word, mask[0].tolist()) for word, mask in found] == [
        (0, [True, True, False, False]), (1, [False, False, True, True])]


def test_parts_of_a_thing_that_do_not_touch_are_two_and_of_stuff_one():
    regions = torch.tensor([0, 1, 1, 0]).expand(4, 4)
    probabilities = torch.tensor([0.9, 0.1, 0.1, 0.9]).expand(1, 4, 4)
    assert len(Grouping().segments(probabilities, regions, torch.tensor([True]))) == 2
    assert len(Grouping().segments(probabilities, regions, torch.tensor([False]))) == 1


def test_specks_are_left_out():
    probabilities = torch.zeros(1, 20, 20)
    probabilities[0, 0, 0] = 1
    regions = probabilities[0].long()
    assert Grouping(least_area=0.01).segments(probabilities, regions, torch.tensor([True])) == []


def test_regions_follow_edges():
    picture = torch.zeros(3, 40, 40)
    picture[:, :, 20:] = 255
    regions = Grouping(smallest=50).regions(picture)
    assert regions[0, 0] != regions[0, 39] and (regions[:, :15] == regions[0, 0]).all()
