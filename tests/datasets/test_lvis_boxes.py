"""LVIS with boxes: labels by the order of ids, rare boxes left out on demand, class-balanced sampling."""
from __future__ import annotations

import json

import pytest

import frozenmm  # noqa: F401
from frozenmm.registry import DATASETS

WORDS = ['cat', 'oar', 'yak']


@pytest.fixture
def lvis(tmp_path):
    """Three pictures: a cat and a yak, only a yak, nothing; and a box without an extent."""
    letters = {2: 'f', 4: 'c', 7: 'r'}
    path = tmp_path / 'lvis.json'
    boxes = [(1, 2, [1, 2, 10, 20]), (1, 7, [3, 3, 4, 4]), (2, 7, [0, 0, 5, 5]), (2, 4, [1, 1, 0, 5])]
    path.write_text(json.dumps(dict(
        categories=[dict(id=number, frequency=letter, image_count=1) for number, letter in reversed(letters.items())],
        images=[dict(id=number, height=30, width=40, coco_url=f'http://host/train2017/{number}.jpg')
                for number in (3, 1, 2)],
        annotations=[dict(image_id=image, category_id=category, bbox=box) for image, category, box in boxes])))

    def build(**options):
        return DATASETS.build(dict(type='LVISBoxes', ann_file=str(path), vocabulary=WORDS, pipeline=[]) | options)
    return build


def test_labels_follow_the_ids_and_pictures_without_boxes_are_left_out(lvis):
    data = lvis(data_prefix=dict(img='/pictures'))
    assert [data.get_data_info(index)['img_id'] for index in range(len(data))] == [1, 2]
    first = data.get_data_info(0)
    assert first['img_path'] == '/pictures/train2017/1.jpg' and (first['height'], first['width']) == (30, 40)
    assert [(entry['bbox'], entry['bbox_label']) for entry in first['instances']] == [
        ([1, 2, 11, 22], 0), ([3, 3, 7, 7], 2)]
    assert data.get_cat_ids(1) == [2] and data.metainfo['classes'] == ('cat', 'oar', 'yak')
    assert len(lvis(test_mode=True)) == 3


def test_rare_boxes_may_be_left_out(lvis):
    data = lvis(without=['r'])
    assert len(data) == 1 and data.get_cat_ids(0) == [0]
    with pytest.raises(ValueError, match=r"takes frequencies of LVIS, \['r', 'c', 'f'\], got 'rare'"):
        lvis(without=['rare'])
    with pytest.raises(ValueError, match='has 3 categories, but .* has 1 classes'):
        lvis(vocabulary=['cat'])


def test_mmdets_class_balance_repeats_what_is_rare(lvis):
    data = DATASETS.build(dict(type='mmdet.ClassBalancedDataset', oversample_thr=1.0, dataset=lvis()))
    # the cat is in one of two pictures, so its picture comes sqrt(2) times, rounded up
    assert len(data) == 3
