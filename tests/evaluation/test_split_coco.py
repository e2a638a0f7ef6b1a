from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from pycocotools.mask import encode

import frozenmm  # noqa: F401
from frozenmm.registry import METRICS


@pytest.fixture
def config(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[:40, :40] = 1
    run = encode(np.asfortranarray(mask))
    segmentation = dict(size=run['size'], counts=run['counts'].decode())
    # the categories' order in the file is not that of the labels
    content = dict(images=[dict(id=1, height=64, width=64)], categories=[dict(id=i, name=n) for i, n in
                                                                         ((3, 'emu'), (1, 'cat'), (2, 'dog'))],
                   annotations=[dict(id=i, image_id=1, category_id=i, iscrowd=0, area=1600, bbox=[0, 0, 40, 40],
                                     segmentation=segmentation) for i in (1, 2)])
    (tmp_path / 'instances.json').write_text(json.dumps(content))
    return dict(type='SplitCocoMetric', ann_file=str(tmp_path / 'instances.json'), metric='segm',
                vocabulary=['cat', 'dog', 'emu', 'sky'], train_vocabulary=['cat', 'sky'])


def evaluate(config, labels, things=('cat', 'dog', 'emu'), classes=('cat', 'dog', 'emu', 'sky'), ids=None):
    mask = torch.zeros(len(labels), 64, 64, dtype=torch.bool)
    mask[:, :40, :40] = True
    sample = DetDataSample(metainfo=dict(img_id=1, ori_shape=(64, 64)))
    sample.pred_instances = InstanceData(bboxes=torch.tensor([[0., 0, 40, 40]] * len(labels)), masks=mask,
                                         labels=torch.tensor(labels), scores=torch.ones(len(labels)))
    metric = METRICS.build(config)
    metric.dataset_meta = dict(classes=classes, thing_classes=things, **({} if ids is None else dict(category_ids=ids)))
    metric.process({}, [sample.to_dict()])
    return metric.evaluate(1)


def test_seen_and_unseen_ap_follow_the_labels_not_the_order_of_the_file(config):
    found = evaluate(config, [0])
    assert found['coco/segm_mAP_seen'] == pytest.approx(1, abs=1e-3) and found['coco/segm_mAP_unseen'] == 0
    found = evaluate(config, [1, 2])  # an emu that nobody annotated costs nothing: the class has no truth
    assert found['coco/segm_mAP_seen'] == 0 and found['coco/segm_mAP_unseen'] == pytest.approx(1, abs=1e-3)
    assert not any(key.endswith('_precision') for key in found)
    assert 'coco/dog_precision' in evaluate(config | dict(classwise=True), [1])


@pytest.mark.parametrize('ids', [None, (2, 9, 3, 1)])
def test_things_may_stand_among_stuff_in_any_order(config, ids):
    classes = ('dog', 'sky', 'emu', 'cat')
    config = config | dict(vocabulary=list(classes), train_vocabulary=['cat', 'sky'])
    for label, seen in (3, 1), (0, 0):
        found = evaluate(config, [1, label], things=('dog', 'emu', 'cat'), classes=classes, ids=ids)
        assert found['coco/segm_mAP_seen'] == pytest.approx(seen, abs=1e-3)
        assert found['coco/segm_mAP_unseen'] == pytest.approx(1 - seen, abs=1e-3)


def test_no_unseen_class_gives_nan(config):
    assert math.isnan(evaluate(config | dict(train_vocabulary=['cat', 'dog', 'emu']), [0])['coco/segm_mAP_unseen'])


@pytest.mark.parametrize(('change', 'call', 'message'), [
    (dict(ann_file=None), {}, 'needs ann_file'),
    (dict(metric=['bbox', 'segm']), {}, 'one metric at a time'),
    (dict(vocabulary=['cat']), {}, 'labels 4 classes, but vocabulary has 1'),
    ({}, dict(things=('yak', 'dog', 'emu'), classes=('yak', 'dog', 'emu', 'sky')), "no category 'yak'"),
])
def test_bad_input_is_explained(config, change, call, message):
    with pytest.raises(ValueError, match=message):
        evaluate(config | change, [0], **call)
