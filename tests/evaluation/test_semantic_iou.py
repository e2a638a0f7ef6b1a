from __future__ import annotations

import math

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import PixelData

import frozenmm  # noqa: F401
from frozenmm.evaluation.semantic_iou import label_counts
from frozenmm.registry import METRICS


def sample(predicted, truth, key='sem_seg'):
    made = DetDataSample()
    made.pred_sem_seg, made.gt_sem_seg = (PixelData(**{key: torch.tensor(row)[None, None]})
                                          for row in (predicted, truth))
    return made.to_dict()


def evaluate(samples, classes=('cat', 'dog', 'sky'), **options):
    metric = METRICS.build(dict(type='SemanticIoU', **options))
    metric.dataset_meta = dict(classes=classes)
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def test_iou_by_hand_over_two_images_and_with_ignored_pixels():
    # cat: 2 of 4 in the union; dog: 1 of 2 (an ignored pixel is no error); sky occurs nowhere
    found = evaluate([sample([0, 0, 1, 1], [0, 1, 1, 255]), sample([1, 0], [0, 0], 'data')])
    cat, dog = 2 / 4, 1 / 3
    assert found['semantic/mIoU'] == pytest.approx(100 * (cat + dog) / 2)
    # of the five annotated pixels three show cats
    assert found['semantic/fwIoU'] == pytest.approx(100 * (3 * cat + 2 * dog) / 5)


def test_seen_and_unseen_are_averaged_apart():
    found = evaluate([sample([0, 0, 0, 0], [0, 0, 1, 2])], vocabulary=['cat', 'dog', 'sky'], train_vocabulary=['cat'])
    assert found['semantic/mIoU_seen'] == pytest.approx(50) and found['semantic/mIoU_unseen'] == 0
    only = evaluate([sample([0], [0])], vocabulary=['cat', 'dog', 'sky'], train_vocabulary=['cat'])
    assert math.isnan(only['semantic/mIoU_unseen'])


def test_predictions_outside_the_vocabulary_are_wrong_but_no_class():
    intersection, union, _ = label_counts(torch.tensor([[7, -1, 0]]), torch.tensor([[0, 0, 0]]), 2)
    assert intersection.tolist() == [1, 0] and union.tolist() == [3, 0]


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: label_counts(torch.zeros(2, 3), torch.zeros(2, 4), 1), 'the annotation .2, 4.; load annotations after'),
    (lambda: evaluate([DetDataSample().to_dict()]), 'found no `pred_sem_seg`'),
    (lambda: evaluate([sample([0], [0])], classes=()), 'SemanticIoU needs a vocabulary'),
    (lambda: evaluate([sample([0], [0])], vocabulary=['cat']), 'labels 3 classes, but vocabulary has 1'),
    (lambda: evaluate([], train_vocabulary=['cat']), 'decides by words'),
])
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
