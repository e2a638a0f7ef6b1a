"""Every data set's own formats become what the configs read."""
from __future__ import annotations

import json

import numpy as np
import pytest
import raw_layouts
from PIL import Image
from pycocotools import mask as coco_mask

import frozenmm  # noqa: F401
from frozenmm.datasets.panoptic_files import read_panoptic_file, read_panoptic_map
from frozenmm.datasets.prepare import PREPARATIONS, prepare
from frozenmm.foundation.vocabulary import Vocabulary


def made(name, root):
    getattr(raw_layouts, name)(root)
    return prepare(name, root, download=False)


def segment_table(json_path, maps, image=0):
    """Category, crowd, first column and width of every segment of an image, checked against its map."""
    found = read_panoptic_file(json_path).images[image]
    ids = read_panoptic_map(maps / found.map_name)
    assert set(np.unique(ids).tolist()) - {0} == {segment.id for segment in found.segments}
    for segment in found.segments:
        x, y, width, height = segment.bbox
        assert segment.area == (ids == segment.id).sum() == (ids[:, x:x + width] == segment.id).sum()
        assert (y, height) == (0, 24)
    return sorted((int(segment.bbox[0]), int(segment.bbox[2]), segment.category_id, segment.is_crowd)
                  for segment in found.segments)


def labels(path):
    with Image.open(path) as image:
        pixels = np.asarray(image)
    assert (pixels == pixels[:1]).all()
    return pixels.dtype, [int(value) for value in pixels[0]]


def test_coco_unpacks_the_maps_and_checks_that_every_image_is_there(tmp_path):
    folder = made('coco', tmp_path)
    assert segment_table(folder / 'annotations/panoptic_val2017.json', folder / 'annotations/panoptic_val2017') == [
        (0, 8, 1, False), (8, 8, 18, False), (16, 8, 187, False)]
    (folder / 'val2017/000000000002.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'val2017 lacks 1 of 2 files, e.g. 000000000002.jpg; delete'):
        prepare('coco', tmp_path, download=False)


def test_ade20k_takes_stuff_from_the_semantic_map_and_things_from_the_instance_map(tmp_path):
    folder = made('ade20k', tmp_path)
    # wall (0) loses 4 columns to a chair (19); the semantic map's chair (16..23) is a thing only where an instance is
    assert segment_table(folder / 'ade20k_panoptic_val.json', folder / 'ade20k_panoptic_val') == [
        (0, 4, 19, False), (4, 4, 0, False), (8, 8, 2, False), (16, 6, 19, False)]
    content = json.loads((folder / 'ade20k_instance_val.json').read_text())
    assert len(content['categories']) == 100 and content['categories'][0] == dict(id=7, name='bed', isthing=1)
    assert [entry['bbox'] for entry in content['annotations'][:2]] == [[0, 0, 4, 24], [16, 0, 6, 24]]
    first = content['annotations'][0]
    assert coco_mask.decode(first['segmentation']).sum() == first['area'] == 4 * 24
    assert first['image_id'] == 'ADE_val_00000001' and len({entry['id'] for entry in content['annotations']}) == 4


def test_the_full_ade20k_becomes_847_labels_at_512_pixels(tmp_path):
    folder = made('ade20k_full', tmp_path)
    kind, values = labels(folder / 'labels_847/val/ADE_val_00000001.png')
    assert kind == np.uint16 and values == [0] * 8 + [1] * 8 + [65535] * 16
    kind, values = labels(folder / 'labels_847/val/ADE_val_00000002.png')
    assert len(values) == 768 and values[:190] == [0] * 190 and values[194:380] == [1] * 186
    for number, size in ((1, (32, 24)), (2, (768, 512))):
        with Image.open(folder / f'images_512/val/ADE_val_0000000{number}.jpg') as image:
            assert image.size == size


def test_cityscapes_knows_groups_and_leaves_out_what_the_evaluation_leaves_out(tmp_path):
    folder = made('cityscapes', tmp_path)
    assert segment_table(folder / 'annotations/panoptic_val.json', folder / 'panoptic_val') == [
        (0, 8, 7, False), (8, 6, 26, False), (14, 6, 26, False), (20, 4, 24, True)]
    assert read_panoptic_file(folder / 'annotations/panoptic_val.json').images[0].file_name == \
        'ulm/ulm_000001_000019_leftImg8bit.png'
    content = json.loads((folder / 'annotations/instances_val.json').read_text())
    assert [(entry['category_id'], entry['iscrowd']) for entry in content['annotations'][:3]] == [
        (24, 1), (26, 0), (26, 0)]
    kind, values = labels(folder / 'labels_19/val/ulm_000001_000019.png')
    assert kind == np.uint8 and values == [0] * 8 + [13] * 12 + [11] * 4 + [255] * 8


def test_mapillary_maps_are_made_where_the_release_has_none(tmp_path):
    folder = made('mapillary_vistas', tmp_path) / 'validation/panoptic'
    assert segment_table(folder / 'panoptic_2018.json', folder) == [
        (0, 4, 1, False), (4, 8, 56, False), (12, 8, 56, False), (20, 8, 28, False)]


def test_mapillary_2_is_used_through_its_folder_of_version_1_2(tmp_path):
    raw_layouts.mapillary_vistas(tmp_path)
    prepare('mapillary_vistas', tmp_path, download=False)
    part = tmp_path / 'mapillary_vistas/validation'
    (part / 'v1.2').mkdir()
    for name in 'panoptic', 'instances':
        (part / name).rename(part / 'v1.2' / name)
    prepare('mapillary_vistas', tmp_path, download=False)
    assert (part / 'panoptic').is_symlink() and (part / 'panoptic/panoptic_2018.json').is_file()


def test_mapillary_annotations_of_version_2_are_refused(tmp_path):
    raw_layouts.mapillary_vistas(tmp_path)
    folder = tmp_path / 'mapillary_vistas/validation/panoptic'
    folder.mkdir()
    (folder / 'panoptic_2018.json').write_text(json.dumps(
        dict(images=[], annotations=[], categories=[dict(id=i, name=str(i), isthing=0) for i in range(1, 124)])))
    with pytest.raises(ValueError, match=r'123 categories with ids 1..123; the 65 of version 1.2'):
        prepare('mapillary_vistas', tmp_path, download=False)


def test_voc_keeps_void_borders_with_or_without_a_palette(tmp_path):
    folder = made('pascal_voc', tmp_path)
    for number in 1, 2:
        kind, values = labels(folder / f'labels_21/2007_00000{number}.png')
        assert kind == np.uint8 and values == [0] * 8 + [8] * 10 + [255] * 2 + [19] * 12


def test_voc_colours_are_those_of_the_published_palette():
    from frozenmm.datasets.prepare.pascal_voc import palette
    assert palette(21)[:5] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
    assert palette(21)[15] == (192, 128, 128) and palette(21)[20] == (0, 64, 128)  # person, tv monitor


def test_context_matlab_files_become_459_and_59_labels(tmp_path):
    folder = made('pascal_context', tmp_path)
    kind, values = labels(folder / 'labels_459/2008_000001.png')
    whole, frequent = Vocabulary.named('pascal_context_459'), Vocabulary.named('pascal_context_59')
    assert kind == np.uint16
    assert values == [1] * 8 + [0] * 8 + [whole.index('road')] * 8 + [65535] * 8
    kind, values = labels(folder / 'labels_59/2008_000001.png')
    assert kind == np.uint8 and values == [0] * 8 + [255] * 8 + [frequent.index('street')] * 8 + [255] * 8


def test_all_59_classes_of_context_are_found_among_the_459():
    from frozenmm.datasets.prepare.pascal_context import frequent_classes
    table = frequent_classes()
    assert sorted(table[table >= 0].tolist()) == list(range(59)) and table[-1] == -1
    # the publisher's numbers (from 1) of aeroplane, bag, bed, ... wood piece
    assert (np.flatnonzero(table >= 0) + 1).tolist() == sorted([
        2, 259, 260, 415, 324, 9, 258, 144, 18, 19, 22, 23, 397, 25, 284, 158, 159, 416, 33, 162, 420, 454, 295, 296,
        427, 44, 45, 46, 308, 59, 440, 445, 31, 232, 65, 354, 424, 68, 326, 72, 458, 34, 207, 80, 355, 85, 347, 220,
        349, 360, 98, 187, 104, 105, 366, 189, 368, 113, 115])


def test_lvis_gives_its_vocabulary_with_synonyms(tmp_path):
    vocabulary = Vocabulary.read(made('lvis', tmp_path) / 'vocabulary.json')
    assert [entry.words for entry in vocabulary] == [('aerosol can', 'spray can'), ('bat (animal)', ), ('cat', )]
    assert vocabulary.ids == [1, 2, 3] and vocabulary.thing_mask.all()


def test_bdd100k_bitmasks_become_segments_and_crowds(tmp_path):
    folder = made('bdd100k', tmp_path)
    assert segment_table(folder / 'annotations/panoptic_val.json', folder / 'panoptic_val') == [
        (0, 8, 7, False), (8, 6, 35, False), (14, 6, 35, False), (20, 4, 31, True), (24, 4, 40, True)]


def test_there_is_a_raw_layout_and_so_a_test_for_every_data_set():
    assert all(hasattr(raw_layouts, name) for name in PREPARATIONS)


@pytest.mark.parametrize('name', PREPARATIONS)
def test_a_second_run_writes_nothing(tmp_path, name):
    made(name, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()
              and path.name != 'vocabulary.json'}
    prepare(name, tmp_path, download=False)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert not [path for path in tmp_path.rglob('.*')
                if path.is_file() and path.name != '.prepare.lock']  # no journal, no half file


@pytest.mark.parametrize('name', ['ade20k', 'cityscapes', 'bdd100k'])
def test_an_interrupted_run_goes_on_with_the_images_that_lack(tmp_path, name, monkeypatch):
    from frozenmm.datasets.prepare import annotations
    getattr(raw_layouts, name)(tmp_path)
    write, written = annotations.write_whole, []

    def until_the_second_map(path, content):
        if path.suffix == '.png' and len(written) == 1:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)
    monkeypatch.setattr(annotations, 'write_whole', until_the_second_map)
    with pytest.raises(KeyboardInterrupt):
        prepare(name, tmp_path, download=False)
    (journal, ) = tmp_path.rglob('.*.journal')
    with journal.open('a') as file:
        file.write('{"image": {"id": "half a li')  # the machine went down while writing
    monkeypatch.setattr(annotations, 'write_whole', write)
    first, = written
    before = first.stat().st_mtime_ns
    prepare(name, tmp_path, download=False)
    assert first.stat().st_mtime_ns == before
    (json_path, ) = [path for path in tmp_path.rglob('*panoptic_val.json')]
    assert len(read_panoptic_file(json_path).images) == 2


@pytest.mark.parametrize(('name', 'spoil', 'kind', 'message'), [
    ('ade20k', lambda f: raw_layouts.array(f / 'annotations_instance/validation/ADE_val_00000001.png',
                                           np.full((24, 32, 3), 101, np.uint8)),
     ValueError, r'object 101 of .*ADE_val_00000001.png has the classes \[101\]; one of 1..100'),
    ('ade20k', lambda f: raw_layouts.picture(f / 'images/validation/ADE_val_00000001.jpg', (30, 30)),
     ValueError, r'ADE_val_00000001.png has 32x24 pixels, but .*ADE_val_00000001.jpg has 30x30'),
    ('ade20k', lambda f: (f / 'annotations/validation/ADE_val_00000001.png').write_bytes(b'no picture'),
     ValueError, 'ADE_val_00000001.png is no readable image'),
    ('ade20k', lambda f: (f / 'annotations/validation/ADE_val_00000001.png').unlink(),
     FileNotFoundError, 'there is no .*ADE_val_00000001.png, .* is its archive unpacked completely'),
    ('ade20k', lambda f: (f / 'ade20k_panoptic_val.json').write_text('{"images": []}'),
     ValueError, r'ade20k_panoptic_val.json lacks 2 of 2 images, e.g. ADE_val_00000001; .* Delete it'),
    ('ade20k', lambda f: (f / 'ade20k_panoptic_val.json').write_text('{"ima'),
     ValueError, 'ade20k_panoptic_val.json cannot be read as a COCO annotation file: .*; delete it'),
    ('pascal_context', lambda f: (f / 'trainval/2008_000001.mat').write_bytes(b'no matrix' * 40),
     ValueError, '2008_000001.mat cannot be read as a MATLAB file'),
    ('pascal_context', lambda f: raw_layouts.scipy.io.savemat(f / 'trainval/2008_000001.mat', dict(a=1)),
     ValueError, "2008_000001.mat cannot be read as a MATLAB file .* no variable 'LabelMap'"),
    ('pascal_context', lambda f: raw_layouts.scipy.io.savemat(f / 'trainval/2008_000001.mat', dict(
        LabelMap=np.full((24, 32), 460))), ValueError, r'with values 0..459; got \(24, 32\) with 460..460'),
    ('pascal_context', lambda f: (f / 'trainval/2008_000002.mat').unlink(),
     FileNotFoundError, '2008_000002.mat, which .* is trainval.tar.gz unpacked'),
    ('pascal_voc',
     lambda f: raw_layouts.array(f / 'SegmentationClass/2007_000001.png', np.full((24, 32), 21, np.uint8)),
     ValueError, r'2007_000001.png has the values \[21\]; 0..20 and 255'),
    ('pascal_voc', lambda f: raw_layouts.picture(f / 'SegmentationClass/2007_000001.png'),
     ValueError, "2007_000001.png has the colours .*which no class of PASCAL VOC has"),
    ('bdd100k', lambda f: raw_layouts.picture(f / 'labels/pan_seg/bitmasks/val/abc-1.png'),
     ValueError, r'abc-1.png has the shape \(24, 32, 3\); a bitmask of BDD100K has four channels'),
    ('lvis', lambda f: (f / 'lvis_v1_val.json').write_text('{"categories": [{"id": 1}]}'),
     ValueError, "lvis_v1_val.json cannot be read as an annotation file of LVIS v1: the key 'synonyms' is missing"),
])
def test_what_is_wrong_with_the_data_is_said(tmp_path, name, spoil, kind, message):
    getattr(raw_layouts, name)(tmp_path)
    spoil(tmp_path / PREPARATIONS[name].folder)
    with pytest.raises(kind, match=message):
        prepare(name, tmp_path, download=False)
