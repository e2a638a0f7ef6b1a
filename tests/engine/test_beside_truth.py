from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from frozenmm.engine import BesideTruthHook

_Runner = SimpleNamespace(test_dataloader=SimpleNamespace(
    dataset=SimpleNamespace(metainfo={'classes': ('cat', 'dog')})))


def _sample(folder, name, truth=True):
    path = str(folder / name)
    cv2.imwrite(path, np.full((40, 40, 3), 90, np.uint8))
    sample = DetDataSample(metainfo=dict(img_path=path))
    boxes = torch.tensor([[1., 1., 20., 20.], [5., 5., 30., 30.]])
    sample.pred_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]), scores=torch.tensor([0.9, 0.1]))
    if truth:
        sample.gt_instances = InstanceData(bboxes=boxes[:1], labels=torch.tensor([0]))
    return sample


def test_the_first_images_are_drawn_with_what_scores_enough(tmp_path):
    hook = BesideTruthHook(str(tmp_path / 'out'), count=3, score=0.5)
    hook.before_test(_Runner)
    for batch in range(2):
        hook.after_test_iter(_Runner, batch, outputs=[_sample(tmp_path, f'{batch}{i}.jpg') for i in range(2)])
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['00.png', '01.png', '10.png']
    assert [len(prediction.labels) for _, _, prediction in hook.seen] == [1, 1, 1]


@pytest.mark.parametrize('name', ['sem_seg', 'data'])  # of mmdet and of mmseg
def test_maps_of_labels_are_drawn_beside_the_annotated_ones(tmp_path, name):
    sample = DetDataSample(metainfo=dict(img_path=_sample(tmp_path, 'a.jpg').img_path))
    found, truth = torch.zeros(1, 40, 40, dtype=torch.long), torch.ones(1, 40, 40, dtype=torch.long)
    sample.pred_sem_seg, sample.gt_sem_seg = PixelData(**{name: found}), PixelData(**{name: truth})
    hook = BesideTruthHook(str(tmp_path / 'out'))
    hook.after_test_iter(_Runner, 0, outputs=[sample])
    drawn = cv2.imread(str(tmp_path / 'out' / 'a.png'))
    left, right = np.split(drawn, 2, axis=1)
    assert np.abs(left.astype(int) - right).mean() > 10  # another class, another colour


def test_a_pipeline_without_truth_is_refused_with_the_line_that_is_missing(tmp_path):
    with pytest.raises(ValueError, match='put LoadAnnotations\\(with_bbox=True\\) after Resize'):
        BesideTruthHook(str(tmp_path)).after_test_iter(_Runner, 0, outputs=[_sample(tmp_path, 'a.jpg', truth=False)])


def test_an_impossible_score_is_refused():
    with pytest.raises(ValueError, match='score must be in 0..1, got 2'):
        BesideTruthHook('x', score=2)
