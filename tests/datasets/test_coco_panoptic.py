from __future__ import annotations

import numpy as np
import pytest

import frozenmm  # noqa: F401
from frozenmm.registry import DATASETS

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='frozenmm.LoadPanopticMaps'), dict(type='mmdet.PackDetInputs')]


@pytest.fixture(autouse=True)
def _scope():
    from mmdet.utils import register_all_modules
    register_all_modules(init_default_scope=False)


@pytest.fixture
def mini(shared_dir):
    return dict(data_root=str(shared_dir / 'data/coco_mini'), ann_file='annotations/panoptic_val.json',
                data_prefix=dict(img='images/val/', seg='panoptic_val/'))


def test_all_classes_give_what_mmdets_data_set_gives(mini):
    ours = DATASETS.build(dict(type='frozenmm.CocoPanoptic', pipeline=PIPELINE, **mini))
    theirs = DATASETS.build(dict(type='mmdet.CocoPanopticDataset', **mini))
    assert len(ours) == len(theirs) == 68
    assert ours.metainfo['classes'] == tuple(theirs.metainfo['classes'])
    for index in range(len(ours)):
        a, b = ours.get_data_info(index), theirs.get_data_info(index)
        for key in ('img_path', 'seg_map_path', 'img_id', 'height', 'width'):
            assert a[key] == b[key]
        assert a['instances'] == b['instances']
        assert [(s['id'], s['category'], bool(s['is_thing'])) for s in a['segments_info']] == \
            [(s['id'], s['category'], bool(s['is_thing'])) for s in b['segments_info']]
    sample = ours[0]['data_samples']
    assert len(sample.gt_instances.masks) == len(sample.gt_instances.labels) > 0


def test_part_of_the_classes_leaves_the_others_void(mini):
    part = DATASETS.build(dict(type='frozenmm.CocoPanoptic', pipeline=PIPELINE, **mini,
                               vocabulary=dict(of='coco_panoptic_133', only=['wall', 'person'])))
    assert part.metainfo['classes'] == ('person', 'wall-other-merged')
    assert part.metainfo['thing_classes'] == ('person', ) and part.metainfo['category_ids'] == (1, 199)
    values = {value for index in range(6) for value in part[index]['data_samples'].gt_sem_seg.sem_seg.unique().tolist()}
    assert values == {0, 1, 255}


def test_images_without_any_segment_of_the_classes_are_dropped_on_request(mini):
    make = dict(type='frozenmm.CocoPanoptic', vocabulary=dict(of='coco_panoptic_133', only=['zebra']), **mini)
    assert len(DATASETS.build(dict(make))) == 68
    kept = DATASETS.build(make | dict(filter_cfg=dict(filter_empty_gt=True)))
    assert 0 < len(kept) < 5
    assert all(np.isin(0, [s['category'] for s in kept.get_data_info(i)['segments_info']]) for i in range(len(kept)))


def test_a_missing_file_is_named(mini):
    with pytest.raises(FileNotFoundError, match='there is no .*nothing.json, which should be a COCO panoptic'):
        DATASETS.build(dict(type='frozenmm.CocoPanoptic', **{**mini, 'ann_file': 'nothing.json'}))
