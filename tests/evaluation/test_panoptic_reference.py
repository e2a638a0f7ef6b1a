"""Panoptic quality against torchmetrics, which knows no crowds and forgives what a prediction leaves open.

So predictions here leave no pixel open, and a crowd is a category of its own there, to which no prediction belongs: it
matches nothing, as it should, but forgives nothing either.
"""
from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.detection import PanopticQuality

from frozenmm.evaluation.panoptic_counts import PanopticCounts, count_segments, quality

THINGS, STUFF, CROWD = (0, 1, 3), (2, 4), 9
ORDER = [*THINGS, *STUFF]  # of the other implementation's columns
CLASSES = len(ORDER)


def pixels(ids, classes):
    """(1, H, W, 2) category and instance of every pixel of (H, W) segment ids; category -1 is void."""
    pairs = [[classes.get(number, -1), number] for number in range(ids.max() + 1)]
    return torch.tensor(pairs)[torch.from_numpy(ids)][None]


def both(scenes):
    """Our counts of scenes (truth, classes, prediction, classes, crowds), and the other implementation."""
    other = PanopticQuality(things=set(THINGS), stuffs={*STUFF, CROWD}, return_sq_and_rq=True, return_per_class=True)
    ours = PanopticCounts.zeros(CLASSES)
    for truth, truth_classes, predicted, predicted_classes, crowds in scenes:
        ours += count_segments(truth, truth_classes, predicted, predicted_classes, CLASSES, crowds=crowds)
        other.update(pixels(predicted, predicted_classes), pixels(truth, truth_classes | dict.fromkeys(crowds, CROWD)))
    return ours, other


def states(other):
    """IoU, matches, extra and missed segments in the order of our classes."""
    columns = [ORDER.index(kind) for kind in range(CLASSES)]
    return [values[columns].numpy() for values in (
        other.iou_sum, other.true_positives, other.false_positives, other.false_negatives)]


def assert_equal(ours, other):
    for mine, theirs in zip((ours.iou, ours.matched, ours.extra, ours.missed), states(other)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    for kind, row in zip(ORDER, other.compute()):
        found = quality(ours, np.arange(CLASSES) == kind)
        if found['classes']:
            np.testing.assert_allclose([found['PQ'], found['SQ'], found['RQ']], 100 * row.numpy(), rtol=1e-5)
        else:  # neither annotated nor predicted: no figure of ours, zeros of theirs that their mean leaves out
            assert np.isnan(found['PQ']) and not row.any()


def strips(*lengths_and_values):
    """A map of one row."""
    return np.concatenate([np.full(length, value) for length, value in lengths_and_values])[None]


SCENES = {
    'a match and a miss': (strips((10, 5), (10, 6)), {5: 0, 6: 1}, strips((12, 1), (8, 2)), {1: 0, 2: 0}),
    'an overlap of exactly half': (strips((4, 1), (4, 2)), {1: 0, 2: 2}, strips((2, 7), (6, 8)), {7: 0, 8: 2}),
    'void in the union': (strips((4, 1), (6, 0)), {1: 0}, strips((10, 7)), {7: 0}),
    'half of a guess on void': (strips((5, 0), (5, 3)), {3: 1}, strips((10, 7)), {7: 0}),
    'most of a guess on void': (strips((6, 0), (4, 3)), {3: 1}, strips((10, 7)), {7: 0}),
    'two instances told apart': (strips((5, 1), (5, 2)), {1: 3, 2: 3}, strips((6, 7), (4, 8)), {7: 3, 8: 3}),
    'two instances taken for one': (strips((5, 1), (4, 2)), {1: 3, 2: 3}, strips((9, 7)), {7: 3}),
    'stuff under another name': (strips((5, 1), (5, 2)), {1: 2, 2: 4}, strips((5, 7), (5, 8)), {7: 4, 8: 2}),
}


@pytest.mark.parametrize('name', SCENES)
def test_scenes_by_hand(name):
    assert_equal(*both([(*SCENES[name], {})]))


def random_scene(rng, *, with_crowd, height=48, width=64):
    """Overlapping rectangles with void between them, and the same shifted, some under other names, none left open."""
    truth, classes = np.zeros((height, width), int), {}
    for number in range(1, int(rng.integers(5, 13))):
        kind = int(rng.choice(ORDER))
        if kind in STUFF:  # one segment of a stuff class per image
            number = next((known for known, other in classes.items() if other == kind), number)
        y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
        truth[y:y + rng.integers(8, 32), x:x + rng.integers(8, 40)] = number
        classes[number] = kind
    classes = {number: kind for number, kind in classes.items() if (truth == number).any()}
    predicted, guesses = np.roll(truth, rng.integers(-2, 3, 2), (0, 1)), dict(classes)
    for number in classes:
        if rng.random() < 0.3:
            guesses[number] = int(rng.choice(THINGS))
    open_class = int(rng.choice([kind for kind in ORDER if kind in THINGS or kind not in guesses.values()]))
    predicted[predicted == 0], guesses[99] = 99, open_class
    crowds = {}
    if with_crowd:
        crowd = int(rng.choice([number for number, kind in classes.items() if kind in THINGS] or list(classes)))
        crowds[crowd] = classes.pop(crowd)
    return truth, classes, predicted, {number: guesses[number] for number in np.unique(predicted).tolist()}, crowds


@pytest.mark.parametrize('seed', range(8))
def test_random_scenes_with_things_stuff_and_void(seed):
    rng = np.random.default_rng(seed)
    ours, other = both([random_scene(rng, with_crowd=False) for _ in range(5)])
    assert ours.matched.sum() > 5 and ours.extra.sum() and ours.missed.sum()
    assert_equal(ours, other)


@pytest.mark.parametrize('kind', [0, 2])
def test_a_class_absent_from_every_scene(kind):
    """`kind` is neither annotated nor predicted; the mean over classes is that of the others, in both."""
    rng = np.random.default_rng(kind)
    scenes = [scene for scene in (random_scene(rng, with_crowd=False) for _ in range(40))
              if kind not in (*scene[1].values(), *scene[3].values())]
    ours, other = both(scenes)
    assert ours.matched.sum() and quality(ours)['classes'] < CLASSES
    assert_equal(ours, other)
    other.return_per_class, other._computed = False, None
    values = quality(ours)
    np.testing.assert_allclose([values['PQ'], values['SQ'], values['RQ']], 100 * other.compute().numpy(), rtol=1e-5)


@pytest.mark.parametrize('seed', range(4))
def test_crowds_are_neither_matched_nor_missed_and_forgive_their_own_class(seed):
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, with_crowd=True) for _ in range(8)]
    ours, other = both(scenes)
    iou, matched, extra, missed = states(other)
    np.testing.assert_allclose(ours.iou, iou, rtol=1e-6)
    assert ours.matched.tolist() == matched.tolist() and ours.missed.tolist() == missed.tolist()
    forgiven = np.zeros(CLASSES, int)
    for truth, classes, predicted, guesses, crowds in scenes:
        (crowd, kind), = crowds.items()
        for number in [number for number, guess in guesses.items() if guess == kind]:
            there = truth[predicted == number]
            void = np.mean(~np.isin(there, [*classes, crowd]))
            forgiven[kind] += void <= 0.5 < void + np.mean(there == crowd)
    assert forgiven.sum() and (ours.extra + forgiven).tolist() == extra.tolist()
