"""Class-agnostic mask recall."""
from __future__ import annotations

import math

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

import frozenmm  # noqa: F401  (fills the holes of the installation first)
from frozenmm.evaluation.recall import MaskRecallMetric, mask_recall
from frozenmm.registry import METRICS


def annotation():
    value = torch.zeros(4, 8, dtype=torch.long)
    value[:, 4:], value[3] = 1, 255
    return value


def sample(masks, value=None):
    value = annotation() if value is None else value
    made = DetDataSample()
    made.pred_proposals, made.gt_sem_seg = InstanceData(masks=masks), PixelData(sem_seg=value[None])
    return made.to_dict()


def metric(training=('cat',), classes=('cat', 'zebra', 'lamp')):
    made = METRICS.build(dict(type='MaskRecallMetric', train_vocabulary=list(training)))
    made.dataset_meta = dict(classes=classes)
    return made


def test_thresholds_are_strict_and_ignored_pixels_count_in_the_union():
    masks = torch.zeros(2, 4, 8, dtype=torch.bool)
    masks[0, :, :4] = True  # 12 pixels of class 0, and 4 ignored ones: IoU 0.75
    masks[1, :3, 4:6] = True  # half of class 1: IoU 0.5
    present, found = mask_recall(annotation(), masks, 3)
    assert present.tolist() == [True, True, False]
    assert found.tolist() == [[True, False, False], [False, False, False], [False, False, False]]


def test_without_masks_nothing_is_found():
    present, found = mask_recall(annotation(), torch.zeros(0, 4, 8, dtype=torch.bool), 3)
    assert present.sum() == 2 and not found.any()


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r'masks must have shape \(N, 4, 8\)'):
        mask_recall(annotation(), torch.zeros(1, 4, 4, dtype=torch.bool), 3)


def test_the_metric_splits_seen_and_unseen():
    made = metric()
    exact = torch.stack([annotation() == 0, annotation() == 2])
    made.process(None, [sample(exact), sample(exact[:0])])
    result = made.compute_metrics(made.results)
    assert result['S_Recall@IoU=0.50'] == 50 and result['S_Recall@IoU=0.90'] == 50
    assert result['U_Recall@IoU=0.75'] == 0


def test_no_unseen_class_is_not_a_number():
    made = metric(training=('cat', 'zebra', 'lamp'))
    made.process(None, [sample(torch.zeros(0, 4, 8, dtype=torch.bool))])
    assert math.isnan(made.compute_metrics(made.results)['U_Recall@IoU=0.50'])


def test_predictions_without_proposals_are_an_error():
    with pytest.raises(ValueError, match="add 'proposals' to the tasks of the model's post-processing"):
        metric().process(None, [dict(gt_sem_seg=dict(data=annotation()[None]))])


def test_a_data_set_without_classes_is_an_error():
    made = MaskRecallMetric(['cat'])
    with pytest.raises(ValueError, match='MaskRecallMetric needs a vocabulary'):
        made.process(None, [sample(torch.zeros(0, 4, 8, dtype=torch.bool))])
