"""Two small images per public data set, in the publisher's own layout and file formats; pixels are random."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from frozenmm.datasets.panoptic_files import segment_colours
from frozenmm.foundation.vocabulary import Vocabulary

HEIGHT, WIDTH = 24, 32


def picture(path: Path, size: tuple[int, int] = (HEIGHT, WIDTH), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def array(path: Path, pixels: np.ndarray, palette: list[int] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette)
    image.save(path)


def columns(*widths_and_values: tuple[int, int], kind: type = np.uint8) -> np.ndarray:
    """(24, 32) of vertical stripes."""
    row = np.concatenate([np.full(width, value, kind) for width, value in widths_and_values])
    assert len(row) == WIDTH
    return np.repeat(row[None], HEIGHT, 0)


def coco(root: Path) -> None:
    """COCO with a person, a dog and sky, unpacked; the panoptic maps are still an archive, as published."""
    import shutil
    folder = root / 'coco'
    segments = dict(panoptic=[], instances=[])
    for number in 1, 2:
        name = f'{number:012d}'
        picture(folder / 'val2017' / f'{name}.jpg', seed=number)
        array(folder / 'annotations' / 'panoptic_val2017' / f'{name}.png',
              segment_colours(columns((8, 1000), (8, 300), (8, 70000), (8, 0), kind=np.int64)))
        infos = [dict(id=i, category_id=c, iscrowd=0, area=192, bbox=[x, 0, 8, 24])
                 for i, c, x in ((1000, 1, 0), (300, 18, 8), (70000, 187, 16))]
        segments['panoptic'].append(dict(image_id=number, file_name=f'{name}.png', segments_info=infos))
        segments['instances'] += [dict(
            id=10 * number + i, image_id=number, category_id=info['category_id'], iscrowd=0, area=192,
            bbox=info['bbox'], segmentation=[[info['bbox'][0], 0, info['bbox'][0] + 8, 0, info['bbox'][0] + 8, 24,
                                              info['bbox'][0], 24]]) for i, info in enumerate(infos[:2])]
    images = [dict(id=number, file_name=f'{number:012d}.jpg', height=HEIGHT, width=WIDTH) for number in (1, 2)]
    # COCO's own names, in which "sky" is "sky-other-merged"
    names = {1: 'person', 18: 'dog', 187: 'sky-other-merged'}
    for kind, entries in segments.items():
        categories = [dict(id=entry.id, name=names.get(entry.id, entry.name), isthing=int(entry.isthing))
                      for entry in Vocabulary.named('coco_panoptic_133') if entry.isthing or kind == 'panoptic']
        (folder / 'annotations' / f'{kind}_val2017.json').write_text(json.dumps(
            dict(images=images, annotations=entries, categories=categories)))
    inner = folder / 'annotations' / 'panoptic_val2017'
    shutil.make_archive(str(inner), 'zip', inner.parent, inner.name)
    shutil.rmtree(inner)


def coco_mini(root: Path) -> None:
    """A whole COCO that holds coco_mini's validation pictures, each half a dog and half sky."""
    from frozenmm.datasets.prepare import coco_mini as module
    numbers = json.loads(Path(module.__file__).with_suffix('.json').read_text())['val']
    names = {number: f'{number:012d}' for number in numbers}
    annotations = root / 'coco' / 'annotations'
    for name in names.values():
        picture(root / 'coco/val2017' / f'{name}.jpg')
        array(annotations / 'panoptic_val2017' / f'{name}.png',
              segment_colours(columns((16, 300), (16, 70000), kind=np.int64)))
    segments = [dict(id=key, category_id=category, iscrowd=0, area=384, bbox=[x, 0, 16, 24])
                for key, category, x in ((300, 18, 0), (70000, 187, 16))]
    (annotations / 'panoptic_val2017.json').write_text(json.dumps(dict(
        images=[dict(id=n, file_name=f'{name}.jpg', height=HEIGHT, width=WIDTH) for n, name in names.items()],
        annotations=[dict(image_id=n, file_name=f'{name}.png', segments_info=segments) for n, name in names.items()],
        categories=[dict(id=18, name='dog', isthing=1), dict(id=187, name='sky-other-merged', isthing=0)])))


def ade20k(root: Path) -> None:
    """Wall, sky, two chairs (one that the semantic map calls wall), void."""
    folder = root / 'ADEChallengeData2016'
    for number in 1, 2:
        name = f'ADE_val_{number:08d}'
        picture(folder / 'images' / 'validation' / f'{name}.jpg', seed=number)
        array(folder / 'annotations' / 'validation' / f'{name}.png', columns((8, 1), (8, 3), (8, 20), (8, 0)))
        # chair is class 20 of the 150 and class 8 of the 100
        instances = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        instances[..., 0] = columns((4, 8), (12, 0), (6, 8), (10, 0))
        instances[..., 1] = columns((4, 1), (12, 0), (6, 2), (10, 0))
        array(folder / 'annotations_instance' / 'validation' / f'{name}.png', instances)


def ade20k_full(root: Path) -> None:
    """Wall and building of the full annotation, a class that the 847 lack, and void; the second image is large."""
    wall, building = Vocabulary.named('ade20k_847').ids[:2]
    for number, size in ((1, (HEIGHT, WIDTH)), (2, (600, 900))):
        place = root / 'ADE20K_2021_17_01' / 'images' / 'ADE' / 'validation' / 'urban' / f'street_{number}'
        name = f'ADE_val_{number:08d}'
        picture(place / f'{name}.jpg', size, seed=number)
        classes = np.zeros(size, np.int64)
        quarter = size[1] // 4
        for part, value in enumerate((wall, building, 1)):
            classes[:, part * quarter:(part + 1) * quarter] = value
        instance = np.random.default_rng(0).integers(0, 256, size)
        # red holds the class's high part and, in its last digit, what the release leaves free
        red = classes // 256 * 10 + (np.arange(size[1]) % 10)[None]
        array(place / f'{name}_seg.png', np.stack([red, classes % 256, instance], -1).astype(np.uint8))


def cityscapes(root: Path) -> None:
    """Road, two cars, a group of persons, a trailer (left out of the evaluation), the ego vehicle."""
    folder = root / 'cityscapes'
    for number in 1, 2:
        name = f'ulm_{number:06d}_000019'
        picture(folder / 'leftImg8bit' / 'val' / 'ulm' / f'{name}_leftImg8bit.png', seed=number)
        values = columns((8, 7), (6, 26000), (6, 26001), (4, 24), (4, 30000), (4, 1), kind=np.uint16)
        place = folder / 'gtFine' / 'val' / 'ulm'
        array(place / f'{name}_gtFine_instanceIds.png', values)
        array(place / f'{name}_gtFine_labelIds.png', np.where(values < 1000, values, values // 1000).astype(np.uint8))


def mapillary_vistas(root: Path) -> None:
    """A bird (label 0, number 0), two cars, sky, unlabelled; panoptic maps are missing and must be made."""
    folder = root / 'mapillary_vistas' / 'validation'
    for number in 1, 2:
        picture(folder / 'images' / f'image-{number}.jpg', seed=number)
        array(folder / 'instances' / f'image-{number}.png', columns(
            (4, 0), (8, 55 * 256), (8, 55 * 256 + 1), (8, 27 * 256), (4, 65 * 256), kind=np.uint16))


def pascal_voc(root: Path) -> None:
    """Background, a cat, a border, a train; the second map is a copy that lost its palette."""
    from frozenmm.datasets.prepare.pascal_voc import BORDER, palette
    folder = root / 'VOCdevkit' / 'VOC2012'
    labels = columns((8, 0), (10, 8), (2, 255), (12, 19))
    colours = np.zeros((256, 3), np.uint8)
    colours[:21], colours[255] = palette(21), BORDER
    for number in 1, 2:
        picture(folder / 'JPEGImages' / f'2007_{number:06d}.jpg', seed=number)
    array(folder / 'SegmentationClass' / '2007_000001.png', labels, colours.reshape(-1).tolist())
    array(folder / 'SegmentationClass' / '2007_000002.png', colours[labels])
    lists = folder / 'ImageSets' / 'Segmentation'
    lists.mkdir(parents=True)
    (lists / 'val.txt').write_text('2007_000001\n2007_000002\n')


def pascal_context(root: Path) -> None:
    """Aeroplane (in both lists), accordion (among the 459 only), road (called street among the 59), void."""
    folder = root / 'VOCdevkit' / 'VOC2010'
    whole = Vocabulary.named('pascal_context_459')
    for number in 1, 2:
        picture(folder / 'JPEGImages' / f'2008_{number:06d}.jpg', seed=number)
        (folder / 'trainval').mkdir(exist_ok=True)
        scipy.io.savemat(folder / 'trainval' / f'2008_{number:06d}.mat', dict(LabelMap=columns(
            (8, whole.index('aeroplane') + 1), (8, whole.index('accordion') + 1), (8, whole.index('road') + 1), (8, 0),
            kind=np.uint16)))
    lists = folder / 'ImageSets' / 'Main'
    lists.mkdir(parents=True)
    (lists / 'val.txt').write_text('2008_000001\n2008_000002\n')


def lvis(root: Path) -> None:
    """Three categories of different frequency; one image comes from COCO's training pictures."""
    categories = [dict(id=1, name='aerosol_can', synonyms=['aerosol_can', 'spray_can'], frequency='c', image_count=2),
                  dict(id=2, name='bat_(animal)', synonyms=['bat_(animal)'], frequency='r', image_count=1),
                  dict(id=3, name='cat', synonyms=['cat'], frequency='f', image_count=9)]
    images, annotations = [], []
    for number, place in ((1, 'val2017'), (2, 'train2017')):
        picture(root / 'coco' / place / f'{number:012d}.jpg', seed=number)
        images.append(dict(id=number, height=HEIGHT, width=WIDTH, neg_category_ids=[2], not_exhaustive_category_ids=[],
                           coco_url=f'http://images.cocodataset.org/{place}/{number:012d}.jpg'))
        annotations.append(dict(id=number, image_id=number, category_id=3, area=192, bbox=[0, 0, 8, 24],
                                segmentation=[[0, 0, 8, 0, 8, 24, 0, 24]]))
    (root / 'lvis').mkdir()
    (root / 'lvis' / 'lvis_v1_val.json').write_text(json.dumps(
        dict(images=images, annotations=annotations, categories=categories)))


def bdd100k(root: Path) -> None:
    """Road, two cars, a crowd of persons, an ignored truck, unlabelled."""
    folder = root / 'bdd100k'
    for number in 1, 2:
        name = f'abc-{number}'
        picture(folder / 'images' / '10k' / 'val' / f'{name}.jpg', seed=number)
        widths = (8, 6, 6, 4, 4, 4)
        channels = [columns(*zip(widths, values)) for values in (
            (7, 35, 35, 31, 40, 0), (0, 8, 0, 2, 1, 0), (0, 1, 1, 0, 2, 0), (1, 4, 5, 9, 0, 0))]
        array(folder / 'labels' / 'pan_seg' / 'bitmasks' / 'val' / f'{name}.png', np.stack(channels, -1))
        array(folder / 'labels' / 'sem_seg' / 'masks' / 'val' / f'{name}.png', columns(
            (8, 0), (12, 13), (4, 11), (4, 14), (4, 255)))
