"""What labelling tools write into COCO instance files: read as it is meant, or refused with the reason."""
from __future__ import annotations

import json
from collections import Counter

import pytest
from PIL import Image

from frozenmm.datasets.checks.coco_boxes import BoxReading, read_boxes, tidy_boxes
from frozenmm.datasets.checks.findings import Survey
from frozenmm.errors import UnreadableFile

SIZE = (120, 90)


@pytest.fixture
def survey(tmp_path):
    """Reads two pictures with two boxes each after an edit: the content, and what was found."""
    (tmp_path / 'images').mkdir()
    for number in 1, 2:
        Image.new('RGB', SIZE).save(tmp_path / f'images/{number}.png')

    def read(edit, *, encoding='utf-8', needed=True):
        content = dict(
            images=[dict(id=n, file_name=f'{n}.png', width=SIZE[0], height=SIZE[1]) for n in (1, 2)],
            annotations=[dict(id=2 * n + k, image_id=n, category_id=7, iscrowd=0, area=1200,
                              bbox=[70 - 60 * k, 40 - 30 * k, 40, 30]) for n in (1, 2) for k in (0, 1)],
            categories=[dict(id=7, name='wk')])
        edit(content)
        file = tmp_path / 'instances.json'
        file.write_text(json.dumps(content), encoding=encoding)
        found, mended = Survey('train'), Counter()
        read = read_boxes(file, mended)
        changed = tidy_boxes(read, BoxReading(file, tmp_path / 'images', ('wk', ), needed=needed), found, mended)
        return read, found, changed
    return read


def every(key, change, of='annotations'):
    def edit(content):
        for entry in content[of]:
            entry[key] = change(entry[key])
    return edit


def nothing(content):
    pass


def test_a_plain_file_is_left_as_it_is(survey):
    _, found, changed = survey(nothing)
    assert (found.kept, found.findings, changed) == (4, [], False)


@pytest.mark.parametrize(('edit', 'said'), [
    (every('id', str, 'images'), '2 ids were numbers written as text'),
    (every('image_id', str), '4 ids were numbers written as text'),
    (every('category_id', str), '4 ids were numbers written as text'),
    (every('iscrowd', str), '4 flags (iscrowd, ignore) were text'),
    (every('width', str, 'images'), '2 sizes of pictures were text'),
    (every('area', str), 'annotations had no area, or 0'),
    (every('name', ' {} '.format, 'categories'), '1 category names had blanks around them'),
    (every('file_name', r'C:\data\{}'.format, 'images'), '2 pictures have other names'),
    (every('file_name', 'images/train/{}'.format, 'images'), '2 pictures have other names'),
    (every('file_name', str.upper, 'images'), '2 pictures have other names'),
    (every('file_name', '/data/my%20set/{}'.format, 'images'), '2 pictures have other names'),
])
def test_other_ways_of_writing_the_same_are_read(survey, edit, said):
    content, found, changed = survey(edit)
    assert found.kept == 4 and not found.errors and changed
    assert any(said in finding.text for finding in found.findings)
    assert [image['file_name'] for image in content['images']] == ['1.png', '2.png']
    assert {(image['id'], image['width']) for image in content['images']} == {(1, 120), (2, 120)}
    assert {(entry['image_id'], entry['category_id'], entry['iscrowd']) for entry in content['annotations']} == {
        (1, 7, 0), (2, 7, 0)}


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_other_encodings_of_json_are_read(survey, encoding):
    _, found, changed = survey(nothing, encoding=encoding)
    assert found.kept == 4 and changed and not found.errors


def test_names_that_are_no_numbers_stay_names(survey):
    content, found, _ = survey(lambda content: (every('id', '00{}'.format, 'images')(content),
                                                every('image_id', '00{}'.format)(content)))
    assert found.kept == 4 and [image['id'] for image in content['images']] == ['001', '002']


def test_two_names_of_one_picture_are_not_guessed(survey):
    content, _, _ = survey(every('file_name', lambda name: 'a/1.png' if name == '1.png' else 'b/1.png', 'images'))
    assert [image['file_name'] for image in content['images']] == ['a/1.png', 'b/1.png']


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_box_that_is_no_number_is_dropped(survey, value):
    content, found, _ = survey(lambda content: content['annotations'][0]['bbox'].__setitem__(0, value))
    assert found.kept == 3 and found.dropped['no box'] == 1 and len(content['annotations']) == 3


def corners(box):
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


@pytest.mark.parametrize(('edit', 'said'), [
    (every('bbox', corners), '2 of 4 boxes reach beyond their pictures as x, y, width, height (for instance '
                             '[70, 40, 110, 70] in 120x90 pixels), and all fit as x1, y1, x2, y2'),
    (every('bbox', lambda box: [value / 120 for value in box]), 'all boxes lie within 0..1'),
])
def test_boxes_of_another_convention_are_refused(survey, edit, said):
    _, found, _ = survey(edit)
    assert any(said in finding.text for finding in found.errors)


def test_boxes_that_reach_beyond_the_picture_alone_are_kept(survey):
    def edit(content):
        content['annotations'][0]['bbox'] = [-10, 40, 60, 80]  # a person cut off by the border, annotated whole
    _, found, _ = survey(edit)
    assert found.kept == 4 and not found.findings


@pytest.mark.parametrize(('edit', 'said'), [
    (lambda content: content['categories'].clear(), 'it lists no categories'),
    (every('name', lambda name: None, 'categories'), 'its category 7 has no name'),
])
def test_categories_without_meaning_are_refused(survey, edit, said):
    with pytest.raises(UnreadableFile, match=f'instances.json cannot be read as a COCO annotation file: {said}'):
        survey(edit)


def test_a_validation_without_annotations_is_said(survey):
    _, found, _ = survey(lambda content: content['annotations'].clear(), needed=False)
    assert [(finding.severity, finding.text) for finding in found.findings] == [
        ('warning', 'no annotation of it can be found again, so its metrics will say nothing')]
