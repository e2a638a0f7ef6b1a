"""coco_mini out of COCO's own files: the same annotations as the set that the published numbers were measured on."""
from __future__ import annotations

import io
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image
from served import serving

from frozenmm.datasets.panoptic_files import read_panoptic_map, segment_colours
from frozenmm.datasets.prepare import coco, coco_mini, prepare
from frozenmm.errors import MissingFile, UserError

WIDTH, HEIGHT = 1000, 400


def png(ids):
    buffer = io.BytesIO()
    Image.fromarray(segment_colours(ids)).save(buffer, 'PNG')
    return buffer.getvalue()


def jpeg(width=WIDTH, height=HEIGHT):
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 60).convert('RGB').save(buffer, 'JPEG')
    return buffer.getvalue()


@pytest.fixture
def two_pictures(tmp_path, monkeypatch):
    """COCO's annotations of two large pictures, as published: a file, and maps in an archive."""
    monkeypatch.setattr(coco_mini, '_LIST', tmp_path / 'list.json')
    (tmp_path / 'list.json').write_text(json.dumps(dict(train=[], val=[7, 9])))
    annotations = tmp_path / 'coco/annotations'
    annotations.mkdir(parents=True)
    ids = np.zeros((HEIGHT, WIDTH), np.int64)
    ids[:, :500], ids[:200, 500:], ids[200:, 500:] = 70000, 5, 300
    segments = [dict(id=key, category_id=category, iscrowd=crowd, area=1, bbox=[0, 0, 1, 1])
                for key, category, crowd in ((70000, 187, 0), (5, 18, 0), (300, 1, 1))]
    names = {number: f'{number:012d}' for number in (7, 8, 9)}
    content = dict(
        images=[dict(id=n, file_name=f'{name}.jpg', height=HEIGHT, width=WIDTH) for n, name in names.items()],
        annotations=[dict(image_id=n, file_name=f'{name}.png', segments_info=segments) for n, name in names.items()],
        categories=[dict(id=1, name='person', isthing=1), dict(id=18, name='dog', isthing=1),
                    dict(id=187, name='sky-other-merged', isthing=0)])
    (annotations / 'panoptic_val2017.json').write_text(json.dumps(content))
    with zipfile.ZipFile(annotations / 'panoptic_val2017.zip', 'w') as archive:
        for name in names.values():
            archive.writestr(f'panoptic_val2017/{name}.png', png(ids))
    return tmp_path


def test_pictures_are_fetched_one_by_one_and_made_smaller(two_pictures, monkeypatch):
    with serving(jpeg()) as server:
        monkeypatch.setattr(coco, 'HOST', server.address.rstrip('/'))
        folder = prepare('coco_mini', two_pictures)
        prepare('coco_mini', two_pictures, download=False)  # all of it is there
    with Image.open(folder / 'images/val/000000000007.jpg') as picture:
        assert picture.size == (512, 205)
    content = json.loads((folder / 'annotations/panoptic_val.json').read_text())
    assert [image['id'] for image in content['images']] == [7, 9]
    first = content['annotations'][0]
    assert (first['image_id'], first['file_name']) == (7, '000000000007.png')
    ids = read_panoptic_map(folder / 'panoptic_val' / first['file_name'])
    assert {s['id']: (s['area'], s['bbox'], s['iscrowd']) for s in first['segments_info']} == {
        70000: (256 * 205, [0, 0, 256, 205], 0), 5: (int((ids == 5).sum()), [256, 0, 256, 103], 0),
        300: (int((ids == 300).sum()), [256, 103, 256, 102], 1)}
    things = json.loads((folder / 'annotations/instances_val.json').read_text())['annotations']
    assert [(thing['id'], thing['image_id'], thing['category_id'], thing['iscrowd']) for thing in things] == [
        (1, 7, 18, 0), (2, 7, 1, 1), (3, 9, 18, 0), (4, 9, 1, 1)]


def test_pictures_of_a_whole_coco_are_not_fetched(two_pictures):
    for number in 7, 9:
        path = two_pictures / f'coco/val2017/{number:012d}.jpg'
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg(300, 120) if number == 7 else jpeg())
    with pytest.raises(MissingFile, match='lacks') as missing:
        (two_pictures / 'coco/val2017/000000000009.jpg').rename(two_pictures / 'away.jpg')
        prepare('coco_mini', two_pictures, download=False)
    assert '1 pictures, first 000000000009.jpg from http://' in str(missing.value)


@pytest.mark.parametrize('content', [b'<html>log in</html>', jpeg()[:3000]], ids=['page', 'cut'])
def test_what_is_no_picture_is_not_kept(two_pictures, monkeypatch, content):
    with serving(content) as server:
        monkeypatch.setattr(coco, 'HOST', server.address.rstrip('/'))
        with pytest.raises(MissingFile, match=r'lacks 2 .*first 000000000007.jpg from .*gave no picture.*run again'):
            prepare('coco_mini', two_pictures)
    assert not any(path.is_file() for path in (two_pictures / 'coco_mini').rglob('*') if 'jpg' in path.name)


def test_another_annotation_file_is_named(two_pictures):
    (two_pictures / 'list.json').write_text(json.dumps(dict(val=[7, 4711])))
    (two_pictures / 'coco/val2017').mkdir()
    for number in 7, 4711:
        (two_pictures / f'coco/val2017/{number:012d}.jpg').write_bytes(jpeg())
    with pytest.raises(UserError, match='panoptic_val2017.json lacks 1 of 2 pictures, e.g. 4711'):
        prepare('coco_mini', two_pictures, download=False)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_it_makes_the_annotations_of_the_published_numbers(shared_dir, tmp_path, split):
    """From that set's own maps, which are small already: pictures, segments and instances come out as they are."""
    mini = shared_dir / 'data/coco_mini'
    annotations = tmp_path / 'coco/annotations'
    shutil.copytree(mini / f'panoptic_{split}', annotations / f'panoptic_{split}2017')
    shutil.copy(mini / f'annotations/panoptic_{split}.json', annotations / f'panoptic_{split}2017.json')
    shutil.copytree(mini / f'images/{split}', tmp_path / f'coco/{split}2017')
    folder = prepare('coco_mini', tmp_path, splits=[split], download=False)
    for kind in 'panoptic', 'instances':
        made, wanted = (json.loads((place / f'annotations/{kind}_{split}.json').read_text())
                        for place in (folder, mini))
        assert {c['id'] for c in made['categories']} == {c['id'] for c in wanted['categories']}
        assert [i['id'] for i in made['images']] == [i['id'] for i in wanted['images']]
        for annotations in made, wanted:
            for entry in annotations['annotations']:
                entry.get('segments_info', []).sort(key=lambda segment: segment['id'])
                entry.pop('id', None)
        if kind == 'panoptic':
            assert made['annotations'] == wanted['annotations']
        else:
            key = json.dumps
            assert sorted(map(key, _plain(made))) == sorted(map(key, _plain(wanted)))


def _plain(content):
    return [[entry[name] for name in ('image_id', 'category_id', 'iscrowd', 'bbox', 'area', 'segmentation')]
            for entry in content['annotations']]
