"""Episodes over folders of images and label maps: which there are, what they ask, what bad data is told."""
from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from PIL import Image

from frozenmm.datasets.episodes import EpisodicSegDataset, LoadEpisodeMap, read_label_map
from frozenmm.datasets.few_shot import COCO20iDataset, FSS1000Dataset, PASCAL5iDataset, fold_table, unseen_classes
from frozenmm.datasets.mosaic import Mosaic4Dataset, mosaic4, write_mosaics
from frozenmm.datasets.semantic_maps import write_semantic_maps

NAMES = ('cat', 'dog', 'tree', 'car', 'cup')
LOAD = [dict(type='LoadImageFromFile'), dict(type='frozenmm.LoadEpisodeMap')]


@pytest.fixture(autouse=True)
def _scope():
    pytest.importorskip('mmcv')
    init_default_scope('mmengine')


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def picture(root, stem, labels, images='images', maps='maps'):
    labels = np.asarray(labels, np.uint8)
    save(root / maps / f'{stem}.png', labels)
    save(root / images / f'{stem}.jpg', np.repeat(labels[..., None] * 20, 3, -1))


@pytest.fixture
def folder(tmp_path):
    picture(tmp_path, 'a', [[0, 1, 1, 2], [255, 0, 1, 2]])
    picture(tmp_path, 'b', [[3, 3, 3, 3], [0, 0, 0, 1]])
    picture(tmp_path, 'c', [[0, 0, 0, 0], [0, 0, 0, 255]])
    picture(tmp_path, 'd', [[4, 4, 5, 5], [2, 2, 0, 0]])
    return tmp_path


def dataset(folder, **options):
    settings = dict(classes=NAMES, data_root=str(folder), data_prefix=dict(img_path='images', seg_map_path='maps'),
                    pipeline=LOAD)
    return EpisodicSegDataset(**settings | options)


def asked(data):
    return [(data.get_data_info(i)['img_path'][-5], *data.get_data_info(i)['asked']) for i in range(len(data))]


def test_there_is_an_episode_for_every_image_and_class_that_it_shows(folder):
    assert asked(dataset(folder)) == [('a', 1), ('a', 2), ('b', 1), ('b', 3), ('d', 2), ('d', 4), ('d', 5)]
    assert asked(dataset(folder, class_ids=[1, 3])) == [('a', 1), ('b', 1), ('b', 3)]
    assert asked(dataset(folder, min_pixels=2)) == [('a', 1), ('a', 2), ('b', 3), ('d', 2), ('d', 4), ('d', 5)]


def test_classes_that_are_not_asked_for_are_background(folder):
    data = dataset(folder, test_mode=True)
    assert data[1]['gt_seg_map'].tolist() == [[0, 0, 0, 1], [255, 0, 0, 1]]
    assert data[1]['class_names'] == ['dog'] and data[1]['class_ids'] == [2]


def test_several_classes_have_their_place_in_the_map(folder):
    data = dataset(folder, classes_per_episode=None, test_mode=True)
    assert asked(data) == [('a', 1, 2), ('b', 1, 3), ('d', 2, 4, 5)]
    assert data[2]['gt_seg_map'].tolist() == [[2, 2, 3, 3], [1, 1, 0, 0]]
    assert data[2]['class_names'] == ['dog', 'car', 'cup']


def test_training_draws_classes_anew_and_a_test_does_not(folder):
    train = dataset(folder, classes_per_episode=2, negatives=1)
    np.random.seed(0)
    drawn = {tuple(train.prepare_data(2)['class_ids']) for _ in range(40)}
    assert {row[:2] for row in drawn} == {(2, 4), (2, 5), (4, 5)} and {row[2] for row in drawn} == {1, 3}
    test = dataset(folder, classes_per_episode=2, negatives=1, test_mode=True)
    assert len({tuple(test[2]['class_ids']) for _ in range(10)}) == 1


def test_negatives_are_classes_that_the_image_does_not_show(folder):
    data = dataset(folder, negatives=9, test_mode=True, class_ids=[1, 2, 3])
    sample = data[0]
    assert sample['class_ids'] == [1, 3] and set(np.unique(sample['gt_seg_map'])) == {0, 1, 255}


def test_in_training_a_negative_comes_as_often_as_it_is_shown(folder):
    """Some classes are shown by two images, some by one, the bus by none."""
    shown = Counter(number for present in dataset(folder).presence().values() for number in present)
    data = dataset(folder, classes=[*NAMES, 'bus'], classes_per_episode=2, negatives=1)
    np.random.seed(0)
    drawn = Counter(data.prepare_data(0)['class_ids'][-1] for _ in range(600))
    absent = [number for number in range(1, 6) if number not in data.get_data_info(0)['present']]
    assert set(drawn) == set(absent)  # a class that nothing shows would be known as always absent
    for number in absent:
        assert drawn[number] / 600 == pytest.approx(shown[number] / sum(shown[n] for n in absent), abs=0.08)


def test_a_count_is_even_over_classes_and_repeats_with_the_seed(folder):
    drawn = asked(dataset(folder, count=10, seed=3))
    assert [number for _, number in drawn] == [1, 2, 3, 4, 5] * 2
    assert drawn == asked(dataset(folder, count=10, seed=3))
    assert {image for image, number in drawn if number == 1} == {'a', 'b'}


def test_the_classes_shown_are_read_once(folder, monkeypatch):
    first = asked(dataset(folder))
    monkeypatch.setattr(EpisodicSegDataset, '_areas', lambda *_: pytest.fail('read again'))
    assert asked(dataset(folder)) == first


def test_named_pairs_replace_all_pairs(folder):
    assert asked(dataset(folder, pairs=[('d', 4), ('a', 2)])) == [('d', 4), ('a', 2)]


@pytest.mark.parametrize(('change', 'error', 'message'), [
    (dict(class_ids=[0]), ValueError, r'class_ids must be among 1..5 \(0 is background\), got \[0\]'),
    (dict(class_ids=[]), ValueError, 'got none'),
    (dict(classes_per_episode=0), ValueError, 'classes_per_episode must be at least 1'),
    (dict(negatives=-1), ValueError, 'negatives at least 0, got 1 and -1'),
    (dict(pairs=[], classes_per_episode=2), ValueError, 'pairs name one class each'),
    (dict(pairs=[('c', 1)]), ValueError, r'shows no cat on 1 or more pixels, only background; an episode without'),
    (dict(pairs=[('aa', 1)]), FileNotFoundError, 'without label map.*nearest: a'),
    (dict(min_pixels=9), ValueError, r'no image .* shows any .* \(cat, dog.*4 images were looked at'),
    (dict(data_prefix=dict(img_path='images', seg_map_path='no')), FileNotFoundError, 'label maps .* does not exist'),
    (dict(seg_map_suffix='.tif'), FileNotFoundError, r'no label maps \*.tif'),
    (dict(classes=NAMES[:3]), ValueError, r'd.png holds the values \[4, 5\], but the class table has 3 classes'),
])
def test_bad_data_is_named(folder, change, error, message):
    with pytest.raises(error, match=message):
        dataset(folder, **change)


def test_a_map_of_another_size_than_its_image_is_named(folder):
    save(folder / 'images' / 'a.jpg', np.zeros((5, 5, 3)))
    with pytest.raises(ValueError, match=r'a.png is 2x4, its image .*a.jpg 5x5 pixels'):
        dataset(folder, test_mode=True)[0]


def test_a_map_that_lost_its_class_is_named(folder):
    data = dataset(folder, test_mode=True)
    save(folder / 'maps' / 'a.png', np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"shows no pixel of 'cat' \(class 1\) any more"):
        data[0]


def test_a_colour_map_and_a_missing_one_are_named(folder):
    results = dict(seg_map_path=folder / 'images' / 'a.jpg', class_ids=[1], class_names=['cat'])
    with pytest.raises(ValueError, match='has 3 channels; a label map has one'):
        LoadEpisodeMap().transform(results)
    with pytest.raises(FileNotFoundError, match='there is no .*, which should be a label map'):
        LoadEpisodeMap().transform(results | dict(seg_map_path='nothing.png'))


def test_folds_are_those_of_the_benchmarks():
    assert unseen_classes('pascal5i', 1) == [6, 7, 8, 9, 10]
    assert unseen_classes('coco20i', 3)[:3] == [4, 8, 12]
    for name in 'pascal5i', 'coco20i':
        everything = sorted(number for fold in range(4) for number in unseen_classes(name, fold))
        assert everything == list(range(1, len(everything) + 1))
    assert [len(pairs) for pairs in fold_table('pascal5i')['test_pairs']] == [346, 451, 725, 346]
    for fold, pairs in enumerate(fold_table('pascal5i')['test_pairs']):
        assert {number for _, number in pairs} == set(unseen_classes('pascal5i', fold))
    for fold, pairs in enumerate(fold_table('coco20i')['first_test_pairs']):
        assert len(pairs) == 1000 and {number for _, number in pairs} == set(unseen_classes('coco20i', fold))
    sizes = [len(set(fold_table('fss1000')[split])) for split in ('train', 'val', 'test')]
    assert sizes == [520, 240, 240] and len(set(sum((fold_table('fss1000')[s] for s in ('train', 'val', 'test')),
                                                    []))) == 1000


@pytest.mark.parametrize('build', [PASCAL5iDataset, COCO20iDataset])
def test_an_unknown_fold_or_split_is_refused(build):
    with pytest.raises(ValueError, match=r'fold must be one of \[0, 1, 2, 3\], got 4'):
        build(4, 'train')
    with pytest.raises(ValueError, match=r"split must be one of \['train', 'test', 'all'\], got 'val'"):
        build(0, 'val')


def test_other_unknown_names_are_refused():
    with pytest.raises(ValueError, match="benchmark must be"):
        unseen_classes('voc', 0)
    with pytest.raises(ValueError, match="test must be one of .*, got 'some'"):
        COCO20iDataset(0, 'test', test='some')
    with pytest.raises(ValueError, match="split must be one of .*'val'.*got 'dev'"):
        FSS1000Dataset('dev')


def test_pascal_training_leaves_out_the_test_images(tmp_path):
    for stem, labels in {'2007_000033': [[1, 0]], 'x': [[6, 1]], 'y': [[20, 255]]}.items():
        picture(tmp_path, stem, labels, 'JPEGImages', 'SegmentationClassAug')
    lists = tmp_path / 'ImageSets' / 'Segmentation'
    options = dict(data_root=str(tmp_path), pipeline=LOAD)
    with pytest.raises(FileNotFoundError, match='val.txt, which says what belongs to the test'):
        PASCAL5iDataset(0, 'train', **options)
    lists.mkdir(parents=True)
    (lists / 'val.txt').write_text('2007_000033\n')
    train = PASCAL5iDataset(0, 'train', **options)
    assert asked(train) == [('x', 6), ('y', 20)]
    test = PASCAL5iDataset(0, 'test', pairs=[('2007_000033', 1)], **options)
    assert len(test) == 1 and test[0]['class_names'] == ['aeroplane']


def coco(instances=True):
    categories = [dict(id=1, name='person'), dict(id=2, name='bicycle'), dict(id=18, name='dog'),
                  dict(id=99, name='sky')]
    categories += [dict(id=number, name=name) for number, name in zip(fold_table('coco20i')['coco_ids'],
                                                                     fold_table('coco20i')['names'])
                   if number not in (1, 2, 18)]
    if instances:
        def box(x1, y1, x2, y2):
            return [[x1, y1, x2, y1, x2, y2, x1, y2]]
        annotations = [
            dict(image_id=7, category_id=18, segmentation=box(2, 2, 4, 4), area=4, iscrowd=0),
            dict(image_id=7, category_id=1, segmentation=box(0, 0, 6, 6), area=36, iscrowd=0),
            dict(image_id=7, category_id=2, segmentation=dict(size=[8, 8], counts=[56, 8]), area=8, iscrowd=1)]
    else:
        annotations = [dict(image_id=7, file_name='p.png', segments_info=[
            dict(id=300, category_id=18, iscrowd=0), dict(id=5, category_id=99, iscrowd=0)])]
    return dict(images=[dict(id=7, file_name='p.jpg', width=8, height=8)], categories=categories,
                annotations=annotations)


def test_instances_become_label_maps_with_the_small_on_top_and_crowds_ignored(tmp_path):
    (tmp_path / 'instances.json').write_text(json.dumps(coco()))
    save(tmp_path / 'images' / 'p.jpg', np.zeros((8, 8, 3)))
    data = COCO20iDataset(0, 'test', data_root=str(tmp_path), annotations='instances.json', pipeline=LOAD,
                          data_prefix=dict(img_path='images', seg_map_path='maps'))
    assert sorted(number for _, number in asked(data)) == [1, 17] and data.names([17]) == ['dog']
    labels = np.asarray(Image.open(tmp_path / 'maps' / 'p.png'))
    assert labels[0, 0] == 1 and labels[3, 3] == 17 and (labels[:, 7] == 255).all() and labels[7, 0] == 0


def test_panoptic_annotations_become_label_maps(tmp_path):
    (tmp_path / 'panoptic.json').write_text(json.dumps(coco(instances=False)))
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[:2] = (300 % 256, 300 // 256, 0)
    colours[2:] = (5, 0, 0)
    save(tmp_path / 'pan' / 'p.png', colours)
    classes = ('person', 'dog')
    folder = write_semantic_maps(tmp_path / 'panoptic.json', tmp_path / 'maps', classes=classes,
                                 panoptic_folder=tmp_path / 'pan')
    assert np.asarray(Image.open(folder / 'p.png')).tolist() == [[2] * 4, [2] * 4, [0] * 4, [0] * 4]
    before = (folder / 'p.png').stat().st_mtime_ns
    write_semantic_maps(tmp_path / 'panoptic.json', tmp_path / 'maps', classes=classes,
                        panoptic_folder=tmp_path / 'pan')
    assert (folder / 'p.png').stat().st_mtime_ns == before
    with pytest.raises(ValueError, match='holds label maps of other annotations or classes'):
        write_semantic_maps(tmp_path / 'panoptic.json', tmp_path / 'maps', classes=('dog', ),
                            panoptic_folder=tmp_path / 'pan')
    with pytest.raises(FileNotFoundError, match='there is no .*, which should be a panoptic map'):
        write_semantic_maps(tmp_path / 'panoptic.json', tmp_path / 'other', classes=classes, panoptic_folder=tmp_path)
    with pytest.raises(ValueError, match='give panoptic_folder'):
        write_semantic_maps(tmp_path / 'panoptic.json', tmp_path / 'other', classes=classes)


def test_annotations_without_the_classes_are_refused(tmp_path):
    path = tmp_path / 'instances.json'
    path.write_text(json.dumps(coco()))
    with pytest.raises(ValueError, match=r"has no categories \['dragon'\]"):
        write_semantic_maps(path, tmp_path / 'maps', classes=('dragon', ))
    with pytest.raises(ValueError, match=r'1 came, of which \[1234\] are unknown'):
        write_semantic_maps(path, tmp_path / 'maps', classes=('dog', ), category_ids=[1234])
    with pytest.raises(FileNotFoundError, match='there is no .*, which should be a COCO annotation file'):
        write_semantic_maps(tmp_path / 'no.json', tmp_path / 'maps', classes=('dog', ))


def fss(root, classes=('ac_wall', 'acorn', 'fountain', 'zucchini', 'taxi')):
    names = [sorted(fold_table('fss1000')['test'])[i] for i in range(len(classes))]
    for index, name in enumerate(names):
        for number in 1, 2:
            save(root / name / f'{number}.jpg', np.full((6, 6, 3), 40 * index + number))
            mask = np.zeros((6, 6, 3))
            mask[index:, :3] = 255
            save(root / name / f'{number}.png', mask)
    return names


def test_fss_takes_the_class_from_the_folder(tmp_path, monkeypatch):
    names = fss(tmp_path)
    table = dict(fold_table('fss1000'), test=names)
    monkeypatch.setattr('frozenmm.datasets.few_shot.fold_table', lambda _: table)
    data = FSS1000Dataset('test', data_root=str(tmp_path), pipeline=LOAD, test_mode=True)
    assert len(data) == 10 and data.get_data_info(3)['asked'] == [762]
    sample = data[3]
    assert sample['class_names'] == [names[1].replace('_', ' ')]
    assert sample['gt_seg_map'].sum() == 15 and set(np.unique(sample['gt_seg_map'])) == {0, 1}
    with pytest.raises(FileNotFoundError, match='the class folder .* of FSS-1000 is missing'):
        FSS1000Dataset('train', data_root=str(tmp_path))


def test_the_tiles_of_a_mosaic_lie_in_reading_order():
    masks = [[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 0], [1, 1]], [[1, 1], [1, 1]]]
    images = [np.full((2, 2, 3), 10 * (tile + 1), np.uint8) for tile in range(4)]
    canvas, labels = mosaic4(images, [np.asarray(mask, bool) for mask in masks], 2)
    assert labels.tolist() == [[1, 0, 0, 2], [0, 0, 0, 0], [0, 0, 4, 4], [3, 3, 4, 4]]
    assert canvas[::2, ::2, 0].tolist() == [[10, 20], [30, 40]]
    with pytest.raises(ValueError, match='has 4 tiles, got 3 images and 4 masks'):
        mosaic4(images[:3], masks, 2)


def test_mosaics_are_the_same_every_time_and_name_their_tiles(folder, tmp_path):
    source = dataset(folder)
    options = dict(count=3, side=16, pipeline=LOAD)
    data = Mosaic4Dataset(source, str(tmp_path / 'one'), **options)
    again = Mosaic4Dataset(source, str(tmp_path / 'two'), **options)
    for number in range(3):
        one, two = data[number], again[number]
        assert np.array_equal(one['img'], two['img']) and np.array_equal(one['gt_seg_map'], two['gt_seg_map'])
        assert one['img'].shape == (32, 32, 3) and len(set(one['class_ids'])) == 4
        assert one['class_names'] == [NAMES[i - 1] for i in one['class_ids']]
        assert set(np.unique(one['gt_seg_map'])) - {255} == {0, 1, 2, 3, 4}
    other = write_mosaics(source, tmp_path / 'three', count=3, side=16, seed=1)
    assert (other / 'mosaics.json').read_text() != (tmp_path / 'one' / 'mosaics.json').read_text()
    with pytest.raises(ValueError, match='holds mosaics of another source, seed'):
        write_mosaics(source, tmp_path / 'one', count=3, side=16, seed=1)


def test_a_class_counts_on_the_tiles_of_the_other_names_too(folder, tmp_path):
    """Every image shows several classes; on the canvas each one asked for is labelled wherever it is."""
    source = dataset(folder)
    written = write_mosaics(source, tmp_path / 'm', count=4, side=16)
    shown = {path.name: path for path in map(Path, {source.get_data_info(i)['img_path'] for i in range(len(source))})}
    repeated = 0
    for number, tiles in enumerate(json.loads((written / 'mosaics.json').read_text())['mosaics']):
        labels = np.asarray(Image.open(written / 'labels' / f'{number:05d}.png'))
        for tile, entry in enumerate(tiles):
            stem = shown[entry['image']].stem
            original = read_label_map(Path(source.data_prefix['seg_map_path'], f'{stem}.png'))
            rows, columns = (slice(16 * place, 16 * (place + 1)) for place in divmod(tile, 2))
            wanted = {q + 1 for q, other in enumerate(tiles) if (original == other['class_id']).any()}
            assert set(np.unique(labels[rows, columns])) - {0, 255} == wanted
            repeated += len(wanted) > 1
    assert repeated


def test_mosaics_need_four_classes_and_single_episodes(folder, tmp_path):
    with pytest.raises(ValueError, match=r"4 distinct classes, but the source shows 2 only: \['cat', 'dog'\]"):
        write_mosaics(dataset(folder, class_ids=[1, 2]), tmp_path / 'm', count=1)
    with pytest.raises(ValueError, match='one class per episode'):
        write_mosaics(dataset(folder, classes_per_episode=None), tmp_path / 'm', count=1)
