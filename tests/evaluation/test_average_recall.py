"""Average recall of mask proposals, by hand and on a file."""
from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
import torch

from frozenmm.evaluation import AverageMaskRecall
from frozenmm.evaluation.average_recall import best_overlaps

TRUTH = np.zeros((10, 20), np.int64)
TRUTH[:, :10], TRUTH[:5, 10:], TRUTH[5:, 10:] = 1, 2, 3


@pytest.fixture
def files(tmp_path):
    """One image with a cat (left half), a dog (top right) and a crowd of dogs (bottom right)."""
    segments = [dict(id=1, category_id=7, area=100, bbox=[0, 0, 10, 10], iscrowd=0),
                dict(id=2, category_id=9, area=50, bbox=[10, 0, 10, 5], iscrowd=0),
                dict(id=3, category_id=9, area=50, bbox=[10, 5, 10, 5], iscrowd=1)]
    categories = [dict(id=7, name='cat', isthing=1), dict(id=9, name='dog', isthing=1)]
    content = dict(images=[dict(id=4, file_name='a.jpg', height=10, width=20)], categories=categories,
                   annotations=[dict(image_id=4, file_name='a.png', segments_info=segments)])
    (tmp_path / 'panoptic.json').write_text(json.dumps(content))
    cv2.imwrite(str(tmp_path / 'a.png'), np.stack([np.zeros_like(TRUTH), np.zeros_like(TRUTH), TRUTH], -1))
    return dict(ann_file=str(tmp_path / 'panoptic.json'), seg_prefix=str(tmp_path))


def proposals():
    masks = torch.zeros(3, 10, 20, dtype=torch.bool)
    masks[0, :, :8] = True  # IoU 0.8 with the cat
    masks[1, :3, 10:] = True  # 0.6 with the dog
    masks[2] = True
    return masks


def test_overlaps_by_hand():
    found = best_overlaps(torch.from_numpy(TRUTH), [1, 2, 9], proposals())
    torch.testing.assert_close(found, torch.tensor([0.8, 0.6, 0.0], dtype=torch.float64))
    assert best_overlaps(torch.from_numpy(TRUTH), [1], proposals()[:0]).tolist() == [0]
    assert best_overlaps(torch.from_numpy(TRUTH), [], proposals()).shape == (0, )


def test_recall_by_hand(files):
    metric = AverageMaskRecall(**files, vocabulary=['cat', 'dog'], train_vocabulary=['cat'])
    metric.process(None, [dict(img_id=4, pred_proposals=dict(masks=proposals()))])
    found = metric.evaluate(1)
    # the cat is found at 0.50 to 0.80, the dog at 0.50 to 0.60, the crowd does not count
    assert found['proposals/AR_seen'] == pytest.approx(70) and found['proposals/AR_unseen'] == pytest.approx(30)
    assert found['proposals/AR'] == pytest.approx(50)
    assert found['proposals/R50'] == 100 and found['proposals/R75'] == 50


def test_a_class_that_is_not_asked_for_does_not_count(files):
    metric = AverageMaskRecall(**files, vocabulary=['dog'], train_vocabulary=['dog'])
    metric.process(None, [dict(img_id=4, pred_proposals=dict(masks=proposals()))])
    found = metric.evaluate(1)
    assert found['proposals/AR'] == pytest.approx(30) and math.isnan(found['proposals/AR_unseen'])


def test_only_the_best_masks_up_to_the_limit_count(files):
    metric = AverageMaskRecall(**files, limit=1)
    metric.process(None, [dict(img_id=4, pred_proposals=dict(masks=proposals(), scores=torch.tensor([0.1, 0.9, 0.2])))])
    assert metric.evaluate(1)['proposals/R50'] == 50
    with pytest.raises(ValueError, match='3 masks per image, but at most 1 count; give `pred_proposals` `scores`'):
        metric.process(None, [dict(img_id=4, pred_proposals=dict(masks=proposals()))])


def test_what_does_not_fit_is_explained(files):
    metric = AverageMaskRecall(**files)
    with pytest.raises(ValueError, match="add 'proposals' to the tasks"):
        metric.process(None, [dict(img_id=4)])
    with pytest.raises(ValueError, match='image 5 has no annotation'):
        metric.process(None, [dict(img_id=5, pred_proposals=dict(masks=proposals()))])
    with pytest.raises(ValueError, match=r'masks must have shape \(N, 10, 20\) .* predict masks at annotation size'):
        metric.process(None, [dict(img_id=4, pred_proposals=dict(masks=proposals()[..., :-1]))])
