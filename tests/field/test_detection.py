"""Boxes of other people through `data_root=`: right targets and counts, or a sentence before the first step."""
from __future__ import annotations

import json

import pytest

from frozenmm.errors import UserError

BASE = 'quickstart/dino_enhanced_coco.py'
SMALL = ('model.num_queries=20', 'model.dn_cfg.group_cfg.num_dn_queries=4', 'train_dataloader.batch_size=2',
         'val_dataloader.batch_size=2', 'model.test_cfg.max_per_img=20')
BOX = [2, 2, 62, 47]


def train(run, root, *options):
    return run(BASE, '', (f'data_root={root}', *SMALL, *options))


def boxes(runner):
    dataset = runner.train_dataloader.dataset
    return [[(entry['bbox'], entry['bbox_label'], entry['ignore_flag'])
             for entry in dataset.get_data_info(index)['instances']] for index in range(len(dataset))]


@pytest.mark.parametrize(('name', 'said'), [
    ('area_zero', 'annotations had no area, or 0; it is taken from their boxes'),
    ('no_area', 'annotations had no area, or 0; it is taken from their boxes'),
    ('no_iscrowd', 'annotations had no iscrowd; they count as single objects'),
    ('no_height', ''),
    ('roboflow_root_class', "category 0 'wk' has no annotation and only repeats or groups others; it is no class"),
])
def test_keys_that_lack_get_their_defaults_before_training(field, run, name, said):
    runner, printed = train(run, field(f'detection/{name}'))
    assert boxes(runner) == [[(BOX, 0, 0)]] * 2
    assert runner.train_dataloader.dataset.metainfo['classes'] == ('wk', )
    assert runner.cfg.model.bbox_head.num_classes == 1
    assert said in printed and 'train: 2 images, 2 annotations kept, 0 dropped' in printed
    runner.val_loop.run()
    assert runner.val_evaluator.metrics[0]._coco_api.get_ann_ids()


def test_a_strip_trains_with_more_queries_than_it_has_cells(field, run):
    runner, printed = train(run, field('detection/strip_train'), 'model.num_queries=150')
    assert runner.iter == 1 and boxes(runner) == [[([2, 2, 602, 22], 0, 0)]] * 2


def change(root, edit):
    path = root / 'annotations/instances_train.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return root


def test_what_is_left_out_is_counted_with_its_reason(field, run):
    def edit(content):
        first = content['annotations'][0]
        content['annotations'] += [dict(first, id=10, bbox=[500, 500, 10, 10]), dict(first, id=11, bbox=[5, 5, 0.5, 9]),
                                   dict(first, id=12, iscrowd=1), dict(first, id=13, category_id=99),
                                   dict(first, id=14, bbox=[])]
    runner, printed = train(run, change(field('detection/no_iscrowd'), edit))
    assert ('train: 2 images, 2 annotations kept, 5 dropped (crowd 1, no box 1, outside the picture 1, '
            'size below 1 px 1, unknown category 1)') in printed
    assert [len([box for box in image if not box[2]]) for image in boxes(runner)] == [1, 1]


def test_a_set_with_nothing_left_is_refused(field, run):
    def edit(content):
        for entry in content['annotations']:
            entry['bbox'] = [500, 500, 10, 10]
    with pytest.raises(UserError, match=r'instances_train.json: no annotation is left of 2 \(outside the picture 2\)'):
        train(run, change(field('detection/no_area'), edit))


def test_two_used_categories_of_one_name_are_refused(field, run):
    def edit(content):
        content['annotations'][0]['category_id'] = 0
    with pytest.raises(UserError, match=r"the categories \[0, 1\] are all called 'wk' and all have annotations"):
        train(run, change(field('detection/roboflow_root_class'), edit))


def test_labels_follow_the_classes_of_the_config_whatever_the_files_order(field, run):
    root = field('detection/no_area')
    for split in 'train', 'val':
        path = root / f'annotations/instances_{split}.json'
        content = json.loads(path.read_text())
        content['categories'] = [dict(id=3, name='other'), *content['categories']]
        path.write_text(json.dumps(content))
    for classes, label in (['wk', 'other'], 0), (['other', 'wk'], 1):
        runner, _ = train(run, root, *(f'{loader}_dataloader.dataset.metainfo.classes={",".join(classes)}'
                                       for loader in ('train', 'val')))
        assert boxes(runner) == [[(BOX, label, 0)]] * 2


def test_another_number_of_classes_in_the_model_is_refused(field, run):
    with pytest.raises(UserError, match=r'model\.bbox_head\.num_classes = 3, but train_dataloader has 1 classes'):
        train(run, field('detection/no_area'), 'model.bbox_head.num_classes=3')


def test_a_picture_of_another_size_is_refused(field, run):
    def edit(content):
        content['images'][0].update(width=90, height=120)
    with pytest.raises(UserError, match=r'1\.png has 120x90 pixels .* the annotation file says 90x120'):
        train(run, change(field('detection/no_area'), edit))
