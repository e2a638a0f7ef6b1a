from __future__ import annotations

import pytest
import torch
from mmdet.registry import DATASETS

from frozenmm.datasets.self_made import make_missing_files
from frozenmm.demo.generated_scenes import GeneratedScenes, GeneratedScenesPanoptic
from frozenmm.demo.scene_episodes import SceneEpisodes
from frozenmm.demo.scenes import CLASSES
from frozenmm.errors import MissingFile, UserError

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


FEW = dict(train=1, val=1, size=64, objects=[1, 1])


def test_building_paints_nothing_and_says_the_command(tmp_path):
    with pytest.raises(MissingFile, match=r'holds no finished scenes .*python tools/make_scenes.py .*new'):
        GeneratedScenes(str(tmp_path / 'new'), 'val', settings=FEW)
    assert not (tmp_path / 'new').exists()


def test_what_a_config_needs_is_painted_once_below_wrappers_too(tmp_path, capfd):
    inner = dict(type='frozenmm.GeneratedScenes', data_root=str(tmp_path / 'new'), split='val', settings=FEW)
    make_missing_files(None, dict(batch_size=1, dataset=dict(type='RepeatDataset', times=2, dataset=inner)))
    assert len(GeneratedScenes(**{key: value for key, value in inner.items() if key != 'type'})) == 1
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()}
    make_missing_files(dict(dataset=[inner, dict(inner, type='GeneratedScenesPanoptic')]))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()} == stamps
    with pytest.raises(UserError, match=r"SceneSettings has no \['sise'\]; it has \['train', 'val', 'size'"):
        make_missing_files(dict(inner, settings=dict(sise=3)))
    with pytest.raises(UserError, match='holds scenes made with .*seed.: 0.*remove the folder or name another one'):
        make_missing_files(dict(inner, settings=dict(FEW, seed=1)))


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / 'scenes.json').write_text('[1')
    with pytest.raises(UserError, match='scenes.json cannot be read as the record of generated scenes.*paint it again'):
        GeneratedScenes(str(tmp_path), 'val')


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match='split must be one of .*got \'test\''):
        GeneratedScenes(str(tmp_path), 'test')


def test_segment_ids_use_all_three_channels():
    import numpy as np

    from frozenmm.datasets.panoptic_maps import segment_ids
    assert segment_ids(np.array([[[3, 2, 1], [255, 0, 0]]], np.uint8)).tolist() == [[3 + 256 * 2 + 65536, 255]]


def test_scenes_are_episodes_of_seen_and_unseen_classes(tiny_scenes, tmp_path):
    root, settings = tiny_scenes
    options = dict(settings=settings, pipeline=[], unseen=('cup', 'horse'))
    groups = {}
    for ask in ('seen', 'all'):
        data = SceneEpisodes(root, 'train', ask=ask, **options)
        groups[ask] = {number for index in range(len(data)) for number in data.get_data_info(index)['asked']}
    assert groups['seen'] == groups['all'] - {2, 8} and groups['seen']
    with pytest.raises(ValueError, match="split must be one of .*, got 'test'"):
        SceneEpisodes(root, 'test', **options)
    with pytest.raises(ValueError, match=r"no classes \['dragon'\]"):
        SceneEpisodes(root, 'train', settings=settings, unseen=('dragon', ))
    with pytest.raises(ValueError, match="ask must be one of .*, got 'some'"):
        SceneEpisodes(root, 'train', ask='some', **options)
