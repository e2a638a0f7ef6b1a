"""Masks of other people: every row of the field inputs trains on the right targets, or is refused in a sentence."""
from __future__ import annotations

import json

import pytest
import torch
from mmengine.registry import DefaultScope

from frozenmm.errors import UserError
from frozenmm.registry import DATASETS
from frozenmm.segmentation.mask2former.targets import targets_of

BASE = 'fc_clip/fc_clip_conse-lite0_coco-mini.py'
WORDS = ['car', 'road', 'sky']
SMALL = ('model.mask_generator.decoder.num_queries=10', 'model.criterion.num_points=64',
         'train_dataloader.batch_size=2')


def panoptic(root, words, model_words=None):
    return f'''
model = dict(classifier=dict(vocabulary={words!r},
                             train_vocabulary=dict(_delete_=True, classes={(model_words or words)!r})))
train_dataloader = dict(dataset=dict(_delete_=True, type='frozenmm.CocoPanoptic', data_root={str(root)!r},
    ann_file='panoptic.json', data_prefix=dict(img='images/', seg='pan/'), vocabulary={words!r}, pipeline=[
        dict(type='LoadImageFromFile'), dict(type='frozenmm.LoadPanopticMaps'), dict(type='PackDetInputs')]))
val_dataloader = val_cfg = val_evaluator = test_dataloader = test_cfg = test_evaluator = None
'''


def semantic(root, words=WORDS, options=''):
    return f'''
model = dict(classifier=dict(train_vocabulary=dict(_delete_=True, classes={words!r}), vocabulary={words!r}))
train_dataloader = dict(dataset=dict(_delete_=True, type='frozenmm.SemanticMaps', data_root={str(root)!r},
    data_prefix=dict(img='images/', seg='labels/'), vocabulary={words!r}, {options} pipeline=[
        dict(type='LoadImageFromFile'), dict(type='frozenmm.LoadLabelMap'), dict(type='PackDetInputs')]))
val_dataloader = val_cfg = val_evaluator = test_dataloader = test_cfg = test_evaluator = None
'''


def targets(runner, index=0):
    """What the criterion gets for one picture: its labels, and pixels of each mask."""
    from frozenmm.segmentation.fc_clip.text_rows import things_of
    model = runner.model
    with DefaultScope.overwrite_default_scope('mmdet'):
        sample = runner.train_dataloader.dataset[index]['data_samples']
    words = model.classifier.train_vocabulary
    found = targets_of(sample, len(words), things_of(words), tuple(sample.img_shape), torch.device('cpu'))
    return sorted(zip(found.labels.tolist(), found.masks.sum((1, 2)).tolist()))


FOUR = [(0, 500), (0, 1200), (1, 4764), (2, 5824)]


@pytest.mark.parametrize('name', ['pan', 'pan_gray8', 'pan_palette', 'pan_lostseg'])
def test_the_files_flag_counts_and_every_kind_of_map_gives_four_targets(field, run, name):
    runner, printed = run(BASE, panoptic(field(f'segmentation/{name}'), WORDS), SMALL)
    assert runner.iter == 1
    for index in range(4):
        assert targets(runner, index) == FOUR
    assert "stuff ['road', 'sky']" in printed and "things ['car']" in printed
    lost = 4 if name == 'pan_lostseg' else 0
    assert f'train: 4 images, 16 annotations kept, {lost} dropped' in printed
    assert ('(no pixel 4)' in printed) == bool(lost)


def test_what_the_file_calls_stuff_is_trained_as_stuff_and_said(field, run):
    runner, printed = run(BASE, panoptic(field('segmentation/pan_all_stuff_flag'), WORDS), SMALL)
    assert targets(runner) == [(0, 1700), (1, 4764), (2, 5824)]
    assert "it decides: things [], stuff ['car', 'road', 'sky']" in printed


@pytest.mark.parametrize('where', ['both', 'model'])
def test_words_that_say_thing_against_the_file_are_refused_with_both_values(field, run, where):
    stated = [dict(name='car', isthing=True), dict(name='road', isthing=False), dict(name='sky', isthing=False)]
    text = panoptic(field('segmentation/pan_all_stuff_flag'), stated if where == 'both' else WORDS, stated)
    with pytest.raises(UserError, match=r"'car' is a thing, but .* stuff|'car' is a thing, but .*isthing = 0"):
        run(BASE, text, SMALL)


def test_a_turn_that_the_maps_lack_is_named_with_all_sizes(field, run):
    with pytest.raises(UserError, match=r'000\.jpg has 96x128 pixels as shown and 128x96 as stored, its map .*000\.png '
                                        r'128x96, and the annotation file says 128x96; its EXIF .*orientation 6'):
        run(BASE, panoptic(field('segmentation/pan_exif'), WORDS), SMALL)


def test_without_isthing_the_words_decide_or_all_are_things(field, run):
    root = field('segmentation/pan_no_isthing')
    stated = [dict(name='car', isthing=True), dict(name='road', isthing=False), dict(name='sky', isthing=False)]
    runner, _ = run(BASE, panoptic(root, WORDS, stated), SMALL)
    assert targets(runner) == FOUR
    assert runner.train_dataloader.dataset.metainfo['thing_classes'] == ('car', )
    runner, printed = run(BASE, panoptic(root, WORDS), SMALL)
    assert targets(runner) == FOUR
    assert "things ['car', 'road', 'sky']" in printed


def test_a_crowd_is_no_target(field, run):
    runner, printed = run(BASE, panoptic(field('segmentation/pan_crowd'), WORDS), SMALL)
    assert targets(runner) == [(0, 1200), (1, 4764), (2, 5824)]
    assert '12 annotations kept, 4 dropped (crowd 4)' in printed


@pytest.mark.parametrize('name', ['sem', 'sem_palette'])
def test_label_maps_alone_train(field, run, name):
    runner, printed = run(BASE, semantic(field(f'segmentation/{name}')), SMALL)
    assert runner.iter == 1
    assert [label for label, _ in targets(runner)] == [0, 1, 2]
    assert sum(pixels for _, pixels in targets(runner)) == 96 * 128
    assert 'train: 4 images, 4 annotations kept, 0 dropped' in printed


def test_labels_beyond_the_classes_are_refused_with_the_option_that_fits(field, run):
    root = field('segmentation/sem_beyond')
    with pytest.raises(UserError, match=r'00\d\.png has the labels \[1, 2, 3\], but there are 3 classes, 0 to 2; '
                                        'labels that begin with 1 need reduce_zero_label=True'):
        run(BASE, semantic(root), SMALL)
    runner, _ = run(BASE, semantic(root, options='reduce_zero_label=True,'), SMALL)
    assert [label for label, _ in targets(runner)] == [0, 1, 2]


@pytest.mark.parametrize('name', ['inst', 'inst_emptyseg'])
def test_objects_without_outline_are_dropped_and_counted(field, run, name):
    root = field(f'segmentation/{name}')
    text = f'''
model = dict(classifier=dict(train_vocabulary=dict(_delete_=True, classes=['car']), vocabulary=['car']))
train_dataloader = dict(dataset=dict(_delete_=True, type='CocoDataset', data_root={str(root)!r},
    ann_file='instances.json', data_prefix=dict(img='images/'), metainfo=dict(classes=('car', )), pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='PackDetInputs')]))
val_dataloader = val_cfg = val_evaluator = test_dataloader = test_cfg = test_evaluator = None
'''
    if name == 'inst':
        runner, printed = run(BASE, text, SMALL)
        assert [label for label, _ in targets(runner)] == [0, 0]
        assert '4 images, 8 annotations kept, 0 dropped' in printed
        return
    content = json.loads((root / 'instances.json').read_text())
    empty = sum(not entry['segmentation'] for entry in content['annotations'])
    if empty == len(content['annotations']):
        with pytest.raises(UserError, match=f'no annotation is left of {empty} .*no outline {empty}'):
            run(BASE, text, SMALL)
    else:
        runner, printed = run(BASE, text, SMALL)
        kept = len(content['annotations']) - empty
        assert f'{kept} annotations kept, {empty} dropped (no outline {empty})' in printed


@pytest.mark.parametrize('change', ['order', 'other'])
def test_words_of_model_and_data_set_in_another_order_or_of_another_kind_are_refused(field, run, change):
    words = ['sky', 'road', 'car'] if change == 'order' else ['car', 'road', 'tree']
    with pytest.raises(UserError, match=r'classifier\.train_vocabulary has 3 classes and train_dataloader has 3, '
                                        + ('in another order' if change == 'order' else 'not the same classes')):
        run(BASE, panoptic(field('segmentation/pan'), WORDS, words), SMALL)


def test_a_sample_keeps_boxes_of_its_pixels_where_the_file_has_none(field, run):
    root = field('segmentation/pan')
    content = json.loads((root / 'panoptic.json').read_text())
    for annotation in content['annotations']:
        for segment in annotation['segments_info']:
            for key in ('bbox', 'area', 'iscrowd'):
                del segment[key]
    (root / 'panoptic.json').write_text(json.dumps(content))
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(dict(
            type='frozenmm.CocoPanoptic', data_root=str(root), ann_file='panoptic.json',
            data_prefix=dict(img='images/', seg='pan/'), pipeline=[
                dict(type='LoadImageFromFile'), dict(type='frozenmm.LoadPanopticMaps'), dict(type='PackDetInputs')]))
        boxes = dataset[0]['data_samples'].gt_instances.bboxes
    assert boxes.tensor.tolist() == [[10, 40, 50, 70], [90, 60, 115, 80]]
