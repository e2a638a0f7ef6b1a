from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS

from frozenmm.datasets.panoptic_files import segment_colours
from frozenmm.demo.collages import Collages

WORDS = dict(name='test', classes=['ball', 'box', 'ground'], stuff_classes=['ground'])
COLOURS = {'ball': (20, 40, 230), 'box': (220, 60, 30)}
GRASS = {'train': (40, 160, 60), 'val': (90, 120, 40)}


@pytest.fixture
def source(tmp_path):
    """A panoptic data set of two images: on grass, a red ball and a blue box in plain colours."""
    categories = [dict(id=1, name='ball', isthing=1), dict(id=2, name='box', isthing=1),
                  dict(id=3, name='grass', isthing=0)]
    for split, colour in GRASS.items():
        pixels, ids = np.full((96, 128, 3), colour, np.uint8), np.full((96, 128), 3, np.int64)
        cv2.circle(pixels, (35, 45), 28, COLOURS['ball'], -1)
        ids[(pixels == COLOURS['ball']).all(-1)] = 1
        cv2.rectangle(pixels, (75, 20), (120, 70), COLOURS['box'], -1)
        ids[(pixels == COLOURS['box']).all(-1)] = 2
        for folder in (f'images/{split}', f'panoptic_{split}', 'annotations'):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / f'images/{split}/a.png'), pixels)
        cv2.imwrite(str(tmp_path / f'panoptic_{split}/a.png'), segment_colours(ids)[..., ::-1])
        segments = [dict(id=i, category_id=i, iscrowd=0, area=int((ids == i).sum()),
                         bbox=list(cv2.boundingRect((ids == i).astype(np.uint8)))) for i in (1, 2, 3)]
        content = dict(images=[dict(id=1, file_name='a.png', height=96, width=128)], categories=categories,
                       annotations=[dict(image_id=1, file_name='a.png', segments_info=segments)])
        (tmp_path / f'annotations/panoptic_{split}.json').write_text(json.dumps(content))
    return tmp_path


def build(source, split='train', **options):
    return Collages(str(source), split, vocabulary=WORDS, **dict(dict(count=6, size=64, pipeline=[]), **options))


def test_pixels_under_a_mask_are_those_of_its_class(source):
    data = build(source)
    for index in range(len(data)):
        info = data.get_data_info(index)
        for label, mask in zip(info['gt_bboxes_labels'], info['gt_masks'].masks):
            inside = cv2.erode(mask, np.ones((5, 5), np.uint8)).astype(bool)
            if inside.any():
                # brightness and contrast vary, but the ball stays red and the box blue (BGR)
                strongest = info['img'][inside].astype(int).mean(0).argmax()
                assert strongest == {0: 2, 1: 0}[int(label)]


def test_annotations_agree_with_each_other(source):
    info = build(source).get_data_info(3)
    assert info['img'].shape == (64, 64, 3) and info['gt_seg_map'].shape == (64, 64)
    assert len(info['gt_bboxes']) == len(info['gt_bboxes_labels']) == len(info['gt_masks'].masks) >= 1
    for box, label, mask in zip(info['gt_bboxes'].tensor, info['gt_bboxes_labels'], info['gt_masks'].masks):
        rows, columns = mask.nonzero()
        assert (info['gt_seg_map'][rows, columns] == label).all()
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    covered = info['gt_masks'].masks.any(0)
    assert (info['gt_seg_map'][~covered] == 2).all()


def test_unseen_things_occur_in_the_test_alone(source):
    train, val = build(source, unseen=['box']), build(source, 'val', unseen=['box'], count=12)
    assert {name for picture in train.pictures for name in picture.labels} == {'ball'}
    assert {name for picture in val.pictures for name in picture.labels} == {'ball', 'box'}


def test_the_ground_of_a_split_is_made_of_its_own_stuff(source):
    for split, colour in GRASS.items():
        info = build(source, split).get_data_info(0)
        ground = info['gt_seg_map'] == 2
        ground = cv2.erode(ground.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
        assert np.abs(info['img'][ground].astype(int) - colour).max() <= 2


def test_the_seed_decides_the_pictures(source):
    one, same, other = build(source), build(source), build(source, seed=1)
    assert all((a.image == b.image).all() for a, b in zip(one.pictures, same.pictures))
    assert any((a.image != b.image).any() for a, b in zip(one.pictures, other.pictures))


def test_a_pipeline_of_mmdet_takes_the_pictures(source):
    data = DATASETS.build(dict(type='frozenmm.Collages', source=str(source), split='train', vocabulary=WORDS, count=2,
                               size=64, pipeline=[dict(type='mmdet.RandomFlip', prob=1.0),
                                                  dict(type='mmdet.PackDetInputs')]))
    sample = data[0]
    assert sample['inputs'].shape == (3, 64, 64)
    assert sample['data_samples'].gt_sem_seg.sem_seg.shape == (1, 64, 64)
    assert len(sample['data_samples'].gt_instances.masks) == len(sample['data_samples'].gt_instances.labels)


@pytest.mark.parametrize(('options', 'message'), [
    (dict(split='test'), r"split must be one of \['train', 'val'\], got 'test'"),
    (dict(size=8), 'at least one picture of at least 32 pixels'),
    (dict(unseen=['bal']), r"the unseen names \['bal'\] are no things of the vocabulary"),
    (dict(vocabulary=['ball', 'crate', 'ground']), r"has no thing classes \['crate'\]"),
    (dict(vocabulary=['grass', 'ground']), r"has no thing classes \['grass'\]"),
    (dict(unseen=['ball', 'box']), r'no cut-out of .* that is large enough'),
])
def test_bad_arguments_are_named(source, options, message):
    arguments = dict(dict(split='train', vocabulary=WORDS, count=1, size=64, pipeline=[]), **options)
    with pytest.raises(ValueError, match=message):
        Collages(str(source), **arguments)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='panoptic_train.json'):
        build(tmp_path / 'nothing')
