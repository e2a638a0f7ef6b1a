from __future__ import annotations

import pytest
import torch
from mmdet.registry import DATASETS

from frozenmm.datasets import GeneratedScenes, GeneratedScenesPanoptic
from frozenmm.demo.scenes import CLASSES

MASKS = [dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True), dict(type='mmdet.PackDetInputs')]
LOAD = [dict(type='mmdet.LoadImageFromFile', backend_args=None)]


def test_a_plain_mmdet_config_gets_boxes_and_masks(tiny_scenes):
    folder, settings = tiny_scenes
    dataset = DATASETS.build(dict(type='frozenmm.GeneratedScenes', data_root=folder, split='train', settings=settings,
                                  filter_cfg=dict(filter_empty_gt=True), pipeline=LOAD + MASKS))
    assert len(dataset) == 4 and dataset.metainfo['classes'] == CLASSES
    sample = dataset[0]
    truth = sample['data_samples'].gt_instances
    assert sample['inputs'].shape == (3, 64, 64)
    assert 1 <= len(truth.labels) == len(truth.bboxes) == len(truth.masks)
    for box, mask in zip(truth.bboxes.tensor, truth.masks.masks):
        rows, columns = mask.nonzero()
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_the_panoptic_form_gives_things_and_ground(tiny_scenes):
    folder, settings = tiny_scenes
    pipeline = [*LOAD, dict(type='frozenmm.LoadPanopticMaps'), dict(type='mmdet.PackDetInputs')]
    dataset = GeneratedScenesPanoptic(folder, 'val', settings=settings, pipeline=pipeline)
    sample = dataset[0]['data_samples']
    semantic = sample.gt_sem_seg.sem_seg
    present = set(torch.unique(semantic).tolist())
    assert len(CLASSES) in present  # the ground
    assert present - {len(CLASSES)} == set(sample.gt_instances.labels.tolist())


def test_the_data_set_paints_what_is_missing(tmp_path):
    dataset = GeneratedScenes(str(tmp_path / 'new'), 'val', settings=dict(train=1, val=1, size=64, objects=[1, 1]))
    assert len(dataset) == 1 and (tmp_path / 'new/images/val').is_dir()


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match='split must be one of .*got \'test\''):
        GeneratedScenes(str(tmp_path), 'test')


def test_segment_ids_use_all_three_channels():
    import numpy as np

    from frozenmm.datasets.panoptic_maps import segment_ids
    assert segment_ids(np.array([[[3, 2, 1], [255, 0, 0]]], np.uint8)).tolist() == [[3 + 256 * 2 + 65536, 255]]
