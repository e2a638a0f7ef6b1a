"""Other people's folders of labels: read as they are meant, or a sentence with file and remedy."""
from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from frozenmm.datasets.layouts import find_split
from frozenmm.engine.check_data import check_data, table
from frozenmm.errors import UserError

WIDTH, HEIGHT = 120, 90


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (WIDTH, HEIGHT), (90, 120, 30)).save(path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def label_map(values=(0, 1, 2), kind=np.uint8):
    columns = np.arange(WIDTH) * len(values) // WIDTH
    return Image.fromarray(np.tile(np.asarray(values, kind)[columns], (HEIGHT, 1)))


def semantic(root, make=label_map, *, suffix='.png', words='sky\nroad\ncar\n', maps='annotations'):
    for split in 'train', 'val':
        for number in 1, 2:
            picture(root / f'images/{split}/{number}.jpg')
            path = root / f'{maps}/{split}/{number}{suffix}'
            path.parent.mkdir(parents=True, exist_ok=True)
            make().save(path)
    write(root / 'classes.txt', words)


def yolo(root, labels='0 0.5 0.5 0.2 0.4', description='names: [cat, dog]\n'):
    for split in 'train', 'val':
        for number in 1, 2:
            picture(root / f'images/{split}/{number}.jpg')
            write(root / f'labels/{split}/{number}.txt', labels)
    write(root / 'data.yaml', description)


def voc(root, box=(10, 10, 50, 60), name='cat', stated='{}.jpg', lists='{}'):
    for number in 1, 2, 3, 4:
        picture(root / f'JPEGImages/{number}.jpg')
        corners = ''.join(f'<{key}>{value}</{key}>' for key, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box))
        write(root / f'Annotations/{number}.xml',
              f'<annotation><filename>{stated.format(number)}</filename><size><width>{WIDTH}</width>'
              f'<height>{HEIGHT}</height></size><object><name>{name}</name><bndbox>{corners}</bndbox></object>'
              '</annotation>')
    for split, numbers in (('train', (1, 2)), ('val', (3, 4))) if lists else ():
        write(root / f'ImageSets/Main/{split}.txt', '\n'.join(lists.format(number) for number in numbers))


def labelme(root, kind, points):
    for split in 'train', 'val':
        for number in 1, 2:
            picture(root / f'{split}/{number}.jpg')
            write(root / f'{split}/{number}.json', json.dumps(dict(imagePath=rf'..\images\{number}.jpg', shapes=[
                dict(label='cat', points=points, shape_type=kind), dict(label='cat', points=[[1, 1]],
                                                                         shape_type='point')])))


def boxes(root):
    content = json.loads(find_split(root, 'train', ['boxes']).annotations.read_text())
    return [tuple(round(value, 3) for value in entry['bbox']) for entry in content['annotations']]


def said(root):
    return table(check_data(root))


@pytest.mark.parametrize(('make', 'options'), [
    (semantic, dict(suffix='_mask.png')), (semantic, dict(suffix='_L.png', maps='masks')),
    (semantic, dict(suffix='.tif')),
    (semantic, dict(make=lambda: label_map(kind=np.uint16))),
    (semantic, dict(make=lambda: label_map((0, 255)).convert('1'), words='ground\ncrack\n')),
])
def test_label_maps_are_found_under_their_names(tmp_path, make, options):
    make(tmp_path, **options)
    assert said(tmp_path).splitlines() == [
        f'{split}: 2 images, 2 annotations kept, 0 dropped' for split in ('train', 'val')] + ['0 errors']


def test_pictures_of_several_endings_all_count(tmp_path):
    semantic(tmp_path)
    (tmp_path / 'images/train/2.jpg').rename(tmp_path / 'images/train/2.jpeg')
    assert said(tmp_path).startswith('train: 2 images, 2 annotations kept')
    picture(tmp_path / 'images/train/1.png')
    assert 'would have the same label map; give one of them another name' in said(tmp_path)


@pytest.mark.parametrize(('options', 'words'), [
    (dict(make=lambda: label_map((0, 255)), words='ground\ncrack\n'),
     "of 2 classes only 'ground' has pixels in the 2 label maps looked at, and the rest is void"),
    (dict(make=lambda: label_map((0, 0)), words='ground\ncrack\n'), "warning  train: of 2 classes only 'ground'"),
    (dict(make=lambda: label_map((0, 1, 3))), 'has the labels [0, 1, 3], but there are 3 classes'),
    (dict(make=lambda: label_map().convert('RGB')), 'convert its colours to numbers'),
])
def test_label_maps_that_teach_something_else_are_said(tmp_path, options, words):
    semantic(tmp_path, **options)
    assert words in said(tmp_path)


def test_label_maps_as_jpeg_are_refused(tmp_path):
    semantic(tmp_path, suffix='.jpg')
    with pytest.raises(UserError, match='holds label maps as JPEG .* export them as PNG'):
        check_data(tmp_path)


def test_numbers_without_names_are_said(tmp_path):
    semantic(tmp_path)
    (tmp_path / 'classes.txt').unlink()
    assert 'no classes.txt says what the numbers of its label maps mean' in said(tmp_path)


@pytest.mark.parametrize('labels', [
    '0 0.5 0.5 0.2 0.4', '0 0.5 0.5 0.2 0.4 0.93', '0.0\t0.5 0.5 0.2 0.4\r\n\r\n', '\ufeff0 0.5 0.5 0.2 0.4',
    '0 0.4 0.3 0.6 0.3 0.6 0.7 0.4 0.7'])
def test_labels_of_yolo(tmp_path, labels):
    yolo(tmp_path, labels)
    assert boxes(tmp_path) == [(48, 27, 24, 36)] * 2


@pytest.mark.parametrize(('options', 'words'), [
    (dict(labels='0 60 45 20 30'), 'line 1 holds 60, but places and sides are shares of the picture'),
    (dict(labels='0 nan 0.5 0.2 0.3'), 'line 1 holds nan'),
    (dict(labels='\n0,0.5,0.5,0.2,0.3'), "line 2 is '0,0.5,0.5,0.2,0.3'; numbers with blanks"),
    (dict(labels='0 0.5 0.5 0.2'), 'line 1 has 3 numbers after the class'),
    (dict(labels='0 0.1 0.1 0.2 0.1 0.2 0.2 0.9'), 'line 1 has 7 numbers after the class'),
    (dict(labels='2 0.5 0.5 0.2 0.3'), 'in line 1 the class 2 is none of the 2 names'),
    (dict(description='nc: 3\nnames: [cat, dog]\n'), 'it says nc: 3, but names 2 classes'),
    (dict(description='names: {1: cat, 2: dog}\n'), r'its names have the numbers \[1, 2\]; labels need 0 to 1'),
])
def test_labels_of_yolo_that_mean_something_else_are_refused(tmp_path, options, words):
    yolo(tmp_path, **options)
    with pytest.raises(UserError, match=words):
        check_data(tmp_path)


@pytest.mark.parametrize('options', [
    {}, dict(box=(50, 60, 10, 10)), dict(stated=r'C:\x\{}.png'), dict(name=' cat\n'), dict(lists='JPEGImages/{}.jpg'),
    dict(lists='{}  -1')])
def test_annotations_of_pascal_voc(tmp_path, options):
    voc(tmp_path, **options)
    assert boxes(tmp_path) == [(9, 9, 41, 51)] * 2
    assert said(tmp_path).endswith('0 errors')


@pytest.mark.parametrize(('options', 'words'), [
    (dict(name=''), 'Annotations/1.xml .*: an object has no name'),
    (dict(lists=''), 'no ImageSets/Main/train.txt and val.txt'),
])
def test_annotations_of_pascal_voc_without_meaning_are_refused(tmp_path, options, words):
    voc(tmp_path, **options)
    with pytest.raises(UserError, match=words):
        check_data(tmp_path)


def test_boxes_of_larger_pictures_are_refused(tmp_path):
    voc(tmp_path, box=(10, 10, 500, 600))
    assert f'{tmp_path}: 2 of 2 boxes lie for the most part outside their pictures' in said(tmp_path)


@pytest.mark.parametrize(('kind', 'points', 'box'), [
    ('rectangle', [[50, 60], [10, 20]], (10, 20, 40, 40)), ('circle', [[50, 40], [60, 40]], (40, 30, 20, 20)),
    ('polygon', [[10, 20], [50, 20], [50, 60]], (10, 20, 40, 40))])
def test_shapes_of_labelme(tmp_path, kind, points, box):
    labelme(tmp_path, kind, points)
    assert boxes(tmp_path) == [box] * 2
    assert said(tmp_path).startswith('train: 2 images, 2 annotations kept, 2 dropped (point without an area 2)')


def test_shapes_of_labelme_without_area_are_named(tmp_path):
    labelme(tmp_path, 'line', [[1, 1], [30, 30]])
    with pytest.raises(UserError, match=r'names no object in 2 pictures \(left out: 2 line .*, 2 point'):
        check_data(tmp_path)


def test_a_folder_of_something_else_says_what_it_holds(tmp_path):
    write(tmp_path / 'notes.docx', 'x')
    with pytest.raises(UserError, match='in no layout of data that is known .* it has notes.docx'):
        check_data(tmp_path)
