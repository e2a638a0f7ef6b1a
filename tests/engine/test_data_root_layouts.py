"""`data_root=` on every layout that people have; written here, small."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from frozenmm.engine.data_root import MapOptions, requested_map_options, use_data_root
from frozenmm.errors import MissingFile, UnreadableFile, UserError
from frozenmm.registry import DATASETS


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))


def boxes_config():
    loader = dict(dataset=dict(type='CocoDataset', ann_file='a.json', pipeline=[]))
    return Config(dict(train_dataloader=loader, val_dataloader=loader,
                       val_evaluator=dict(type='CocoMetric', ann_file='a'), model=dict(bbox_head=dict(num_classes=80))))


def masks_config():
    pipeline = [dict(type='LoadImageFromFile'), dict(type='frozenmm.LoadPanopticMaps', with_mask=True)]
    loader = dict(dataset=dict(type='frozenmm.CocoPanoptic', ann_file='a.json', pipeline=pipeline))
    metrics = [dict(type='frozenmm.PanopticQuality', ann_file='a', seg_prefix='b', vocabulary='coco_panoptic_133'),
               dict(type='frozenmm.SemanticIoU', vocabulary='coco_panoptic_133')]
    return Config(dict(train_dataloader=loader, val_dataloader=loader, val_evaluator=metrics,
                       model=dict(classifier=dict(train_vocabulary='coco_panoptic_133',
                                                  vocabulary='coco_panoptic_133'))))


def picture(path, mode='RGB', value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 40, 3) if mode == 'RGB' else (20, 40), value, np.uint8)).save(path)


CAT = ('<object><name>cat</name><bndbox><xmin>1</xmin><ymin>3</ymin><xmax>10</xmax><ymax>8</ymax></bndbox>'
       '<difficult>0</difficult></object>')


def voc(root, objects=CAT):
    for split in 'train', 'val':
        (root / 'ImageSets/Main').mkdir(parents=True, exist_ok=True)
        (root / f'ImageSets/Main/{split}.txt').write_text(f'{split}0\n')
        picture(root / f'JPEGImages/{split}0.jpg')
        (root / 'Annotations').mkdir(exist_ok=True)
        (root / f'Annotations/{split}0.xml').write_text(
            f'<annotation><filename>{split}0.jpg</filename><size><width>40</width><height>20</height></size>{objects}'
            '</annotation>')
    return root


def yolo(root, lines='1 0.5 0.5 0.25 0.5\n'):
    (root / 'data.yaml').write_text('names: [dog, cat]\n')
    for split in 'train', 'valid':
        picture(root / split / 'images/a.jpg')
        (root / split / 'labels').mkdir()
        (root / split / 'labels/a.txt').write_text(lines)
    return root


def roboflow(root):
    for split in 'train', 'valid':
        picture(root / split / 'a.jpg')
        (root / split / '_annotations.coco.json').write_text(json.dumps(dict(
            images=[dict(id=0, file_name='a.jpg', width=40, height=20)],
            annotations=[dict(id=1, image_id=0, category_id=1, bbox=[0, 2, 10, 6])],
            categories=[dict(id=0, name='pets', supercategory='none'), dict(id=1, name='cat', supercategory='pets')])))
    return root


TRIANGLE = dict(label='cat', points=[[0, 2], [10, 2], [10, 8]], shape_type='polygon')


def labelme(root, shape=TRIANGLE):
    for split in 'train', 'val':
        picture(root / split / 'a.jpg')
        (root / split / 'a.json').write_text(json.dumps(dict(imagePath='a.jpg', shapes=[shape, dict(
            label='way', points=[[1, 1], [2, 2]], shape_type='line')])))
    return root


OUTLINE = dict(images=[dict(id=4, file_name='a.jpg', width=40, height=20)], categories=[dict(id=1, name='cat')],
               annotations=[dict(id=1, image_id=4, category_id=1, bbox=[0, 2, 10, 6], area=60, iscrowd=0,
                                 segmentation=[[0, 2, 10, 2, 10, 8]])])


def cvat(root):
    picture(root / 'images/default/a.jpg')
    (root / 'annotations').mkdir()
    (root / 'annotations/instances_default.json').write_text(json.dumps(OUTLINE))
    return root


def label_studio(root):
    picture(root / 'images/a.jpg')
    (root / 'result.json').write_text(json.dumps(dict(OUTLINE, images=[dict(OUTLINE['images'][0],
                                                                            file_name='images/a.jpg')])))
    return root


def yolo_outlines(root):
    return yolo(root, '1 0 0.1 0.25 0.1 0.25 0.4\n')


@pytest.mark.parametrize('write', [labelme, cvat, label_studio, yolo_outlines])
def test_outlines_of_things_train_mask_models(tmp_path, write):
    cfg = masks_config()
    use_data_root(cfg, write(tmp_path))
    dataset = cfg.train_dataloader.dataset
    assert dataset.type == 'mmdet.CocoDataset' and 'seg' not in dataset.data_prefix
    assert dataset.pipeline[1] == dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)
    entry, = json.loads((tmp_path / dataset.ann_file).read_text())['annotations']
    assert entry['bbox'] == pytest.approx([0, 2, 10, 6])
    assert entry['segmentation'] == [pytest.approx([0, 2, 10, 2, 10, 8])]
    assert [(word.name, word.isthing) for word in cfg.model.classifier.vocabulary.classes][-1] == ('cat', True)
    assert cfg.val_evaluator.type == 'frozenmm.SplitCocoMetric' and cfg.val_evaluator.metric == 'segm'
    loaded = DATASETS.build(dict(dataset, pipeline=[], _scope_='mmdet'))
    assert Path(loaded.get_data_info(0)['img_path']).is_file() and loaded.get_data_info(0)['instances'][0]['mask']


def test_boxes_alone_train_no_mask_model(tmp_path):
    with pytest.raises(MissingFile, match='it holds COCO layout .*for which another config is needed'):
        use_data_root(masks_config(), yolo(tmp_path))


@pytest.mark.parametrize(('write', 'classes', 'box'), [
    (labelme, ('cat', ), [0, 2, 10, 6]), (cvat, ('cat', ), [0, 2, 10, 6]),
    (voc, ('cat', ), [0, 2, 10, 6]), (yolo, ('dog', 'cat'), [15, 5, 10, 10]), (roboflow, ('cat', ), [0, 2, 10, 6])])
def test_boxes_of_other_layouts_are_read_as_coco(tmp_path, write, classes, box):
    cfg = boxes_config()
    use_data_root(cfg, write(tmp_path))
    dataset = cfg.train_dataloader.dataset
    assert tuple(dataset.metainfo.classes) == classes and cfg.model.bbox_head.num_classes == len(classes)
    content = json.loads((tmp_path / dataset.ann_file).read_text())
    assert [entry['bbox'] for entry in content['annotations']] == [box]
    assert (tmp_path / dataset.data_prefix.img / content['images'][0]['file_name']).is_file()
    val = tmp_path / cfg.val_dataloader.dataset.ann_file
    assert cfg.val_evaluator.ann_file == str(val)
    assert write is cvat or val != tmp_path / dataset.ann_file


@pytest.mark.parametrize(('write', 'text', 'message'), [
    (voc, '<object></object', 'train0.xml cannot be read as annotations of Pascal VOC'),
    (voc, '<object><name>cat</name></object>', 'train0.xml cannot be read as annotations of Pascal VOC'),
    (yolo, '7 0.5 0.5 1 1', r'a.txt cannot be read as labels of YOLO .*the class 7 is none of the 2 names'),
    (yolo, '1 0.5', 'a.txt cannot be read as labels of YOLO'),
    (labelme, dict(label='cat', points=[[1]]), 'a.json cannot be read as labels of LabelMe')])
def test_damaged_labels_are_refused_with_their_file(tmp_path, write, text, message):
    with pytest.raises(UnreadableFile, match=message):
        use_data_root(boxes_config(), write(tmp_path, text))


def label_maps(root):
    for split in 'train', 'val':
        picture(root / 'images' / split / 'a.jpg')
        picture(root / 'labels' / split / 'a.png', 'L', 1)
    return root


def test_label_maps_replace_panoptic_maps_with_words_and_metrics(tmp_path):
    cfg = masks_config()
    use_data_root(cfg, label_maps(tmp_path), requested_map_options({'words': ['sky', 'road'], 'void_labels': [11]}))
    dataset = cfg.train_dataloader.dataset
    assert dataset.type == 'frozenmm.SemanticMaps' and dataset.void_labels == [11] and 'ann_file' not in dataset
    assert dataset.pipeline[1] == dict(type='frozenmm.LoadLabelMap')
    assert [entry.name for entry in cfg.model.classifier.train_vocabulary.classes] == ['sky', 'road']
    assert [metric.type for metric in cfg.val_evaluator] == ['frozenmm.SemanticIoU']
    assert [entry.name for entry in cfg.val_evaluator[0].vocabulary.classes] == ['sky', 'road']


def test_words_of_label_maps_may_lie_beside_them_and_are_asked_for_otherwise(tmp_path):
    with pytest.raises(UserError, match=r'has no classes\.txt .*words="sky,building,\.\.\." beside data_root'):
        use_data_root(masks_config(), label_maps(tmp_path))
    (tmp_path / 'classes.txt').write_text('sky\nroad\n')
    cfg = masks_config()
    use_data_root(cfg, tmp_path)
    assert [entry.name for entry in cfg.model.classifier.vocabulary.classes] == ['sky', 'road']


def test_panoptic_folders_bring_their_words_and_files(tiny_coco):
    cfg = masks_config()
    use_data_root(cfg, tiny_coco, MapOptions())
    dataset = cfg.train_dataloader.dataset
    assert (dataset.type, dataset.ann_file) == ('frozenmm.CocoPanoptic', 'annotations/panoptic_train.json')
    assert [(entry.name, entry.isthing) for entry in cfg.model.classifier.train_vocabulary.classes] == [
        ('box', True), ('disc', True), ('ground', False)]
    assert cfg.val_evaluator[0].seg_prefix.endswith('panoptic_val')


def test_the_same_classes_in_another_folder_keep_the_words_of_the_config(tiny_coco):
    whole = [dict(entry) for entry in json.loads(Path(tiny_coco, 'annotations/panoptic_val.json').read_text())[
        'categories']]
    seen = dict(of=whole, without=['disc'])
    cfg = masks_config()
    cfg.model.classifier = dict(train_vocabulary=seen, vocabulary=whole)
    cfg.train_dataloader.dataset.vocabulary = seen
    cfg.val_evaluator = [dict(type='frozenmm.SplitCocoMetric', ann_file='a', metric='segm', vocabulary=whole,
                              train_vocabulary=seen)]
    use_data_root(cfg, tiny_coco)
    assert cfg.model.classifier.train_vocabulary == cfg.train_dataloader.dataset.vocabulary == seen
    assert cfg.train_dataloader.dataset.data_root == tiny_coco
    assert cfg.val_evaluator[0].train_vocabulary == seen
    assert cfg.val_evaluator[0].ann_file == str(Path(tiny_coco, 'annotations/instances_val.json'))


def test_a_folder_for_another_kind_of_config_is_refused_with_what_it_holds(tmp_path, tiny_coco):
    with pytest.raises(MissingFile, match='no train split of COCO layout .*it holds label maps .*another config'):
        use_data_root(boxes_config(), label_maps(tmp_path))
    cfg = boxes_config()
    cfg.train_dataloader.dataset.type = 'frozenmm.PASCAL5iDataset'
    with pytest.raises(UserError, match='data_root cannot replace the data set frozenmm.PASCAL5iDataset'):
        use_data_root(cfg, tiny_coco)
