"""What is compared before a training, on configs alone."""
from __future__ import annotations

import json

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from frozenmm.datasets.checks.coco_boxes import BoxReading, tidy_boxes, used_categories
from frozenmm.datasets.checks.findings import Survey
from frozenmm.datasets.label_maps import label_classes
from frozenmm.datasets.panoptic_files import read_panoptic_file, read_panoptic_map
from frozenmm.engine.check_data import check_data, table
from frozenmm.engine.data_checks import prepare_data
from frozenmm.errors import UnreadableFile, UserError


def content(categories, annotations):
    return dict(images=[dict(id=0, file_name='a.jpg', width=40, height=20)], categories=categories,
                annotations=[dict(image_id=0, **entry) for entry in annotations])


def test_class_weights_of_mmseg_are_refused_before_the_first_step():
    loss = dict(type='CrossEntropyLoss', class_weight=[1.0, 2.0])
    cfg = Config(dict(default_scope='mmseg', model=dict(decode_head=dict(num_classes=2, loss_decode=loss))))
    with pytest.raises(UserError, match='index 255 is out of bounds.*OhemCrossEntropy'):
        prepare_data(cfg)
    cfg.model.decode_head.loss_decode.use_sigmoid = True
    assert prepare_data(cfg) == []


def test_a_root_category_is_dropped_only_where_nothing_uses_it():
    categories = [dict(id=0, name='pets', supercategory='none'), dict(id=1, name='cat', supercategory='pets')]
    assert [entry['name'] for entry in used_categories(content(categories, [dict(category_id=1)]))] == ['cat']
    both = content(categories, [dict(category_id=1), dict(category_id=0)])
    assert [entry['name'] for entry in used_categories(both)] == ['pets', 'cat']


@pytest.mark.parametrize(('change', 'reason'), [
    (dict(bbox=[-20, 0, 10, 10]), 'outside the picture'), (dict(bbox=[0, 0, 0.4, 9]), 'size below 1 px'),
    (dict(iscrowd=1), 'crowd'), (dict(category_id=5), 'unknown category'), (dict(bbox=None), 'no box'),
    (dict(ignore=1), 'marked ignore'), (dict(segmentation=[]), 'no outline'),
    (dict(segmentation=[[1, 2]]), 'no outline')])
def test_every_reason_is_counted(tmp_path, change, reason):
    good = dict(id=1, category_id=1, bbox=[0, 0, 9, 9], segmentation=[[0, 0, 9, 0, 9, 9]], area=81, iscrowd=0)
    made = content([dict(id=1, name='cat')], [good, {**good, 'id': 2, **change}])
    survey = Survey('train')
    if change == dict(bbox=None):
        made['annotations'][1].pop('segmentation')
    tidy_boxes(made, BoxReading(tmp_path / 'a.json', tmp_path, with_masks=True), survey)
    assert (survey.kept, dict(survey.dropped), survey.errors) == (1, {reason: 1}, [])
    assert survey.line == f'train: 1 images, 1 annotations kept, 1 dropped ({reason} 1)'


def test_a_box_comes_from_the_outline_and_twins_get_numbers(tmp_path):
    entry = dict(id=1, category_id=1, segmentation=[[1, 2, 9, 2, 9, 8]], area=20, iscrowd=0)
    made, survey = content([dict(id=1, name='cat')], [entry, entry]), Survey('train')
    assert tidy_boxes(made, BoxReading(tmp_path / 'a.json', tmp_path), survey)
    assert [(entry['id'], entry['bbox']) for entry in made['annotations']] == [(1, [1, 2, 8, 6]), (2, [1, 2, 8, 6])]


def test_classes_that_the_file_does_not_have_keep_the_labels_of_the_others(tmp_path):
    good = dict(id=1, category_id=7, bbox=[0, 0, 9, 9], area=81, iscrowd=0)
    made, survey = content([dict(id=7, name='cat')], [good]), Survey('train')
    assert tidy_boxes(made, BoxReading(tmp_path / 'a.json', tmp_path, ('dog', 'cat')), survey)
    assert [(entry['id'], entry['name']) for entry in made['categories']] == [(8, 'dog'), (7, 'cat')]
    assert "has no category 'dog'" in survey.findings[0].sentence
    survey = Survey('train')
    tidy_boxes(content([dict(id=7, name='cat')], [good]), BoxReading(tmp_path / 'a.json', tmp_path, ('car', )), survey)
    assert 'are none of the classes' in survey.errors[0].sentence


@pytest.mark.parametrize(('values', 'options', 'message'), [
    ([1, 2, 3], {}, 'need reduce_zero_label=True'),
    ([0, 3], {}, r'if 0 means void.*if 3 means void, void_labels=\[3\]'),
    ([0, 9], {}, r'name the classes that are missing, or say void_labels'),
    ([0, 4], dict(reduce_zero_label=True), 'name the classes that are missing')])
def test_values_beyond_the_classes_are_refused_with_the_option(values, options, message):
    with pytest.raises(UserError, match=message):
        label_classes(np.array([values], np.uint8), dict(options, seg_map_path='a.png'), 3)


def test_values_that_mean_nothing_are_no_classes():
    stored = np.array([[0, 2, 11, 255]], np.uint8)
    assert label_classes(stored, dict(void_labels=[11]), 3) == [0, 2]
    assert label_classes(stored, dict(void_labels=[11], reduce_zero_label=True), 3) == [1]


@pytest.mark.parametrize(('stored', 'listed', 'expected'), [
    (np.array([[1, 2]], np.uint8), [1, 2], [[1, 2]]), (np.array([[300, 2]], np.uint16), [300, 2], [[300, 2]]),
    (np.array([[1, 255]], np.uint8), [1], [[1, 255]]),
    (np.array([[[1, 1, 0], [2, 0, 0]]], np.uint8), [257, 2], [[257, 2]]),
    (np.array([[1, 2]], np.uint8), [65793, 131586], [[65793, 131586]])])
def test_maps_of_any_depth_are_read_as_ids_where_these_are_listed(tmp_path, stored, listed, expected):
    Image.fromarray(stored).save(tmp_path / 'a.png')
    assert read_panoptic_map(tmp_path / 'a.png', listed).tolist() == expected


@pytest.mark.parametrize('stored', [np.array([[5, 6]], np.uint8), np.array([[[0, 0, 1]]], np.uint8)])
def test_a_map_without_any_listed_segment_is_refused(tmp_path, stored):
    Image.fromarray(stored).save(tmp_path / 'a.png')
    with pytest.raises(UnreadableFile, match=r'a\.png \((one channel|3 channels), uint8\) does not hold the segments'):
        read_panoptic_map(tmp_path / 'a.png', [1, 2])


@pytest.mark.parametrize(('used', 'ids'), [([2], [2]), ([], [1]), ([1, 2], None)])
def test_panoptic_categories_of_one_name(tmp_path, used, ids):
    segments = [dict(id=number, category_id=number, area=1, bbox=[0, 0, 1, 1]) for number in used]
    (tmp_path / 'a.json').write_text(json.dumps(dict(
        images=[dict(id=1, file_name='a.jpg')], annotations=[dict(image_id=1, file_name='a', segments_info=segments)],
        categories=[dict(id=1, name='cat', isthing=1), dict(id=2, name='cat', isthing=1)])))
    if ids is None:
        with pytest.raises(UnreadableFile, match=r"the categories \[1, 2\] are all called 'cat'"):
            read_panoptic_file(tmp_path / 'a.json')
    else:
        assert [category.id for category in read_panoptic_file(tmp_path / 'a.json').categories] == ids


def test_a_folder_is_checked_and_drawn(tiny_coco, tmp_path):
    surveys = check_data(tiny_coco, sheet=tmp_path / 'sheet.png')
    assert not any(survey.errors for survey in surveys)
    assert 'train: 4 images, 12 annotations kept, 0 dropped' in table(surveys)
    assert 'train: 4 images, 8 annotations kept, 0 dropped' in table(surveys) and table(surveys).endswith('0 errors')
    for name in 'sheet.png', 'sheet_2.png':
        with Image.open(tmp_path / name) as sheet:
            assert sheet.width == 1280 and len(sheet.getcolors(1 << 20)) > 50
