from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import frozenmm  # noqa: F401
from frozenmm.datasets.panoptic_files import (
    Category,
    match_categories,
    read_panoptic_file,
    read_panoptic_map,
    segment_colours,
    segment_ids,
)
from frozenmm.foundation.vocabulary import Vocabulary

CATEGORIES = (Category(1, 'cat', True), Category(2, 'dog', True), Category(7, 'sky-other-merged', False))


def test_ids_and_colours_are_each_others_reverse():
    ids = np.array([[0, 255, 256], [65535, 65536, (1 << 24) - 1]])
    colours = segment_colours(ids)
    assert colours.dtype == np.uint8 and colours[1, 1].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(segment_ids(colours), ids)


@pytest.mark.parametrize('value', [-1, 1 << 24])
def test_ids_that_no_colour_can_hold_are_refused(value):
    with pytest.raises(ValueError, match='segment ids must be in 0..16777215'):
        segment_colours(np.array([[value]]))


def test_classes_are_found_by_name_or_else_by_id():
    by_name = match_categories(Vocabulary.read(['dog', 'cat']), CATEGORIES)
    assert [category.id for category in by_name] == [2, 1]
    words = Vocabulary.read([dict(name='sky', id=7), dict(name='kitten', id=1)])
    assert [category.id for category in match_categories(words, CATEGORIES)] == [7, 1]


def test_a_class_that_is_no_category_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="class 'dgo', which is no category .*nearest names: .*dog"):
        match_categories(Vocabulary.read(['cat', 'dgo']), CATEGORIES)


@pytest.mark.parametrize(('text', 'message'), [
    ('{"images": [', 'cannot be read as a COCO panoptic annotation file: Expecting value.*; give the panoptic one'),
    ('{"images": []}', r"has no \['annotations', 'categories'\]"),
    (json.dumps(dict(images=[], categories=[], annotations=[dict(image_id=1, segmentation=[])])),
     'its annotations have no segments_info, as those of an instance file'),
    (json.dumps(dict(images=[], categories=[], annotations=[dict(image_id=1, file_name='a', segments_info=[])])),
     'belongs to image 1, which is not among the images'),
    (json.dumps(dict(images=[dict(id=1, file_name='a', height=1, width=1)], categories=[], annotations=[
        dict(image_id=1, file_name='a', segments_info=[dict(id=3, category_id=8, area=1, bbox=[0, 0, 1, 1])])])),
     'segment 3 of image 1 has the category 8'),
    (json.dumps(dict(images=[dict(id=1)], categories=[], annotations=[
        dict(image_id=1, file_name='a', segments_info=[])])), "the key 'file_name' is missing"),
])
def test_unusable_files_are_refused(tmp_path, text, message):
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(ValueError, match=message):
        read_panoptic_file(tmp_path / 'a.json')


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no .*a.json, which should be a COCO panoptic'):
        read_panoptic_file(tmp_path / 'a.json')
    with pytest.raises(FileNotFoundError, match='there is no .*a.png, which should be a panoptic map'):
        read_panoptic_map(tmp_path / 'a.png')
    (tmp_path / 'a.png').write_bytes(b'no picture')
    with pytest.raises(ValueError, match='a.png is no readable image'):
        read_panoptic_map(tmp_path / 'a.png')


def test_maps_are_read_as_rgb(tmp_path):
    Image.fromarray(np.array([[[1, 2, 3]]], np.uint8)).save(tmp_path / 'a.png')
    assert read_panoptic_map(tmp_path / 'a.png').tolist() == [[1 + 2 * 256 + 3 * 65536]]
