from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image
from pycocotools import mask as coco_mask
from tiny_segmentors import CONVNEXT, TESTING, CountingTower, classifier_options, fc_clip, generator_options

from frozenmm.apis import OpenVocabularyInferencer
from frozenmm.apis.image_pipeline import ImagePipeline
from frozenmm.apis.open_vocabulary_inferencer import PLAIN_PIPELINE
from frozenmm.apis.vocabulary_text import parse_vocabulary
from frozenmm.compat.checkpoint import save_checkpoint_file
from frozenmm.compat.image_sources import NamedImage
from frozenmm.datasets.panoptic_files import read_panoptic_map
from frozenmm.foundation.frozen_module import frozen_modules
from frozenmm.registry import INFERENCERS

WORDS = ['red mug, mug', 'keyboard']


@pytest.fixture(scope='module')
def made():
    """A model whose masks are not all empty, so that there is something to write."""
    return fc_clip(seed=3)


@pytest.fixture
def inferencer(made):
    return small(OpenVocabularyInferencer(made, WORDS))


def small(inferencer):
    """The inferencer of a built model, but on small images."""
    inferencer.pipeline = ImagePipeline([dict(PLAIN_PIPELINE[0], scale=(64, 64)), PLAIN_PIPELINE[1]])
    return inferencer


def picture(height=48, width=80, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_every_kind_of_source_gives_the_same_result(inferencer, tmp_path):
    Image.fromarray(picture()).save(tmp_path / 'a.png')
    results = [inferencer(source)[0] for source in (tmp_path / 'a.png', str(tmp_path), picture(),
                                                    Image.fromarray(picture()), [picture()])]
    for sample in results:
        assert sample.classes == ('red mug', 'keyboard')
        assert torch.equal(sample.pred_panoptic_seg.sem_seg, results[0].pred_panoptic_seg.sem_seg)
        assert sample.pred_sem_seg.sem_seg.shape == (1, 48, 80)


def test_a_batch_gives_what_single_images_give():
    inferencer = OpenVocabularyInferencer(fc_clip(seed=3, mask_padding=True), WORDS)
    small(inferencer)
    images = [picture(64, 64), picture(64, 64, seed=1), picture(64, 64, seed=2)]
    together, alone = inferencer(images, batch_size=2), [inferencer(image)[0] for image in images]
    assert len(together) == 3
    for a, b in zip(together, alone):
        # summation order differs between batch sizes, so a pixel on the edge may change sides
        assert (a.pred_sem_seg.sem_seg == b.pred_sem_seg.sem_seg).float().mean() > 0.99


def test_a_second_vocabulary_encodes_its_new_words_and_nothing_else(made):
    tower = CountingTower()
    model = fc_clip(classifier=classifier_options(text_tower=tower))
    inferencer = OpenVocabularyInferencer(model, WORDS)
    small(inferencer)
    first = inferencer(picture())[0]
    before, networks = tower.encoded, {name: id(module.network) for name, module in frozen_modules(model).items()}
    weights = [parameter.clone() for parameter in model.parameters()]
    inferencer.set_vocabulary(['sofa'])
    other = inferencer(picture())[0]
    templates = len(model.classifier.templates)
    assert tower.encoded - before == templates and other.classes == ('sofa', )
    inferencer.set_vocabulary(WORDS)
    again = inferencer(picture())[0]
    assert tower.encoded - before == templates  # known words cost nothing
    assert torch.equal(first.pred_sem_seg.sem_seg, again.pred_sem_seg.sem_seg)
    assert networks == {name: id(module.network) for name, module in frozen_modules(model).items()}
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters()))


@pytest.mark.parametrize(('task', 'fields'), [
    ('panoptic', {'pred_panoptic_seg'}), ('instance', {'pred_instances'}), ('semantic', {'pred_sem_seg'})])
def test_only_what_the_task_asks_for_is_computed(made, tmp_path, task, fields):
    inferencer = OpenVocabularyInferencer(made, WORDS, task=task)
    small(inferencer)
    configured = made.postprocessor.tasks
    out = tmp_path / 'out'
    sample = inferencer(picture(), out_dir=out)[0]
    assert {key for key in sample.keys() if key.startswith('pred')} == fields
    assert made.postprocessor.tasks == configured
    written = {path.relative_to(out).as_posix() for path in out.rglob('*') if path.is_file()}
    own = dict(panoptic={'panoptic.json', 'panoptic/image_0000.png'}, semantic={
        'semantic_classes.csv', 'semantic/image_0000.png'}, instance={
        'coco_results.json', 'coco_images.json', 'coco_annotations.json'})
    assert written == own[task] | {'image_0000_overlay.png', 'results.jsonl'}


def test_files_hold_what_the_data_sample_holds(inferencer, tmp_path):
    inferencer.set_vocabulary([dict(name='red mug', id=7, isthing=True), dict(name='table', id=3, isthing=False)])
    sample = inferencer(picture(), out_dir=tmp_path, min_score=0)[0]
    content = json.loads((tmp_path / 'panoptic.json').read_text())
    ids = read_panoptic_map(tmp_path / 'panoptic/image_0000.png')
    (annotation, ) = content['annotations']
    assert annotation['file_name'] == 'image_0000.png' and content['images'][0]['id'] == annotation['image_id']
    assert ids.shape == (48, 80) and len(annotation['segments_info']) == len(sample.segments_info) > 0
    for info, own in zip(annotation['segments_info'], sample.segments_info):
        mask = sample.pred_panoptic_seg.sem_seg[0].numpy() == own['value']
        np.testing.assert_array_equal(ids == info['id'], mask)
        assert info['area'] == mask.sum() and info['category_id'] in (3, 7) and 0 < info['score'] <= 1
        x, y, width, height = info['bbox']
        assert mask[y:y + height, x:x + width].sum() == mask.sum()
    runs = json.loads((tmp_path / 'coco_results.json').read_text())
    filled = sample.pred_instances[sample.pred_instances.masks.flatten(1).any(1)]
    assert len(runs) == len(filled) > 0
    for run, mask, score in zip(runs, filled.masks, filled.scores):
        np.testing.assert_array_equal(coco_mask.decode(run['segmentation']), mask.numpy())
        assert run['score'] == pytest.approx(float(score)) and run['category_id'] == 7
    with Image.open(tmp_path / 'image_0000_overlay.png') as drawn:
        assert drawn.width >= 800 and drawn.height > 480


def test_an_interrupted_write_leaves_no_half_file(inferencer, tmp_path, monkeypatch):
    import os

    def fail(*_):
        raise OSError('disk full')
    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='disk full'):
        inferencer(picture(), out_dir=tmp_path / 'out')
    assert list((tmp_path / 'out').iterdir()) == []


@pytest.mark.parametrize('shape', [(1, 50), (50, 1), (1, 1), (2, 3000)])
def test_thin_images_give_results_of_their_size(inferencer, shape):
    sample = inferencer(picture(*shape))[0]
    assert sample.pred_sem_seg.sem_seg.shape == sample.pred_panoptic_seg.sem_seg.shape == (1, *shape)
    assert sample.pred_instances.masks.shape[1:] == shape


def test_gray_and_transparent_images_give_results(inferencer):
    gray = picture()[..., 0]
    transparent = np.concatenate([picture(), np.full((48, 80, 1), 255, np.uint8)], 2)
    assert inferencer(gray)[0].pred_sem_seg.sem_seg.shape == (1, 48, 80)
    assert torch.equal(inferencer(transparent)[0].pred_sem_seg.sem_seg, inferencer(picture())[0].pred_sem_seg.sem_seg)


def test_weights_are_loaded_and_those_of_another_model_refused(made, tmp_path):
    other = fc_clip(seed=5)
    save_checkpoint_file(tmp_path / 'w.safetensors', {key: value.contiguous() for key, value in
                                                      other.state_dict().items()}, {})
    model = fc_clip(seed=3)
    OpenVocabularyInferencer(model, WORDS, weights=tmp_path / 'w.safetensors')
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))
    save_checkpoint_file(tmp_path / 'x.safetensors', {'a': torch.zeros(1)}, {})
    with pytest.raises(ValueError, match='x.safetensors does not fit the model.*another config'):
        OpenVocabularyInferencer(model, WORDS, weights=tmp_path / 'x.safetensors')
    with pytest.raises(FileNotFoundError, match='nothing.pth'):
        OpenVocabularyInferencer(model, WORDS, weights=tmp_path / 'nothing.pth')


def test_a_seen_mask_in_the_wrong_order_is_refused(made):
    # the model was trained with cats
    OpenVocabularyInferencer(made, ['cat', 'zebra'], seen=torch.tensor([True, False]))
    with pytest.raises(ValueError, match="marks class 0 'zebra' as seen.*another order"):
        OpenVocabularyInferencer(made, ['zebra', 'cat'], seen=torch.tensor([True, False]))


@pytest.mark.parametrize(('change', 'message'), [
    (dict(vocabulary=['cat', 'cat']), "class 1 'cat' has the same words as class 0"),
    (dict(vocabulary=['cat', ' ']), 'class 1 .* has an empty name'),
    (dict(vocabulary=['cat, ']), 'empty synonym 1'),
    (dict(vocabulary=[]), 'vocabulary has no classes'),
    (dict(task='depth'), "task must be one of .* got 'depth'"),
])
def test_bad_requests_are_refused_before_anything_slow(made, change, message):
    with pytest.raises(ValueError, match=message):
        OpenVocabularyInferencer(made, **change)


def test_bad_vocabulary_files_are_refused(made, tmp_path):
    (tmp_path / 'v.txt').write_text('cat\n\ndog\n')
    with pytest.raises(ValueError, match='v.txt: line 2 .* empty name'):
        OpenVocabularyInferencer(made, tmp_path / 'v.txt')
    (tmp_path / 'v.txt').write_text('cat\ndog\ncat\n')
    with pytest.raises(ValueError, match="line 3 'cat' has the same words as line 1"):
        OpenVocabularyInferencer(made, tmp_path / 'v.txt')


def test_an_unknown_config_is_answered_with_near_names():
    with pytest.raises(FileNotFoundError, match='nearest: .*fc_clip_rn50'):
        OpenVocabularyInferencer('fc_clip_rn5', ['cat'])


def test_a_config_of_another_kind_is_refused():
    with pytest.raises(ValueError, match='the config has no `model`'):
        OpenVocabularyInferencer(dict(data=1), ['cat'])
    with pytest.raises(ValueError, match='builds a EfficientNetLiteTower'):
        OpenVocabularyInferencer(dict(model=dict(type='frozenmm.EfficientNetLiteTower', weights='random')), ['cat'])


def test_a_config_is_built_in_its_scope_and_gives_the_test_size():
    model = dict(type='frozenmm.FCCLIP', tower=CONVNEXT | dict(type='frozenmm.OpenCLIPTower'),
                 mask_generator=generator_options(),
                 classifier=classifier_options(text_tower=dict(
                     type='frozenmm.CLIPTextTower', weights='random',
                     model=dict(width=16, layers=1, heads=2, output_dim=16))),
                 data_preprocessor=dict(type='DetDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True,
                                        pad_size_divisor=32))
    pipeline = [dict(type='LoadImageFromFile', to_float32=True), dict(type='Resize', scale=(96, 64), keep_ratio=True),
                dict(type='PackDetInputs')]
    before = DefaultScope._instance_dict.copy()
    inferencer = OpenVocabularyInferencer(dict(
        default_scope='mmdet', model=model, test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    assert inferencer.pipeline.as_float
    sample = inferencer(picture(48, 80))[0]
    assert sample.img_shape == (58, 96) and sample.classes == tuple(word.split(',')[0] for word in TESTING)
    assert DefaultScope._instance_dict == before  # the process's scope is as it was


def test_a_batch_size_below_one_is_refused(inferencer):
    with pytest.raises(ValueError, match='batch_size must be at least 1, got 0'):
        inferencer(picture(), batch_size=0)


def test_without_words_it_says_what_is_missing():
    model = fc_clip(classifier=classifier_options(train_vocabulary=None, vocabulary=None))
    with pytest.raises(ValueError, match='there is no vocabulary'):
        OpenVocabularyInferencer(model)(picture())


def test_it_is_registered():
    assert INFERENCERS.get('OpenVocabularyInferencer') is OpenVocabularyInferencer


def test_a_typed_vocabulary_has_classes_and_synonyms():
    words = parse_vocabulary(' red  mug|mug, keyboard')
    assert [entry.words for entry in words] == [('red mug', 'mug'), ('keyboard', )]
    assert len(parse_vocabulary('ade20k_150')) == 150
    with pytest.raises(ValueError, match='empty name'):
        parse_vocabulary('cat,,dog')
    with pytest.raises(FileNotFoundError, match='there is no nothing.txt, which should be a vocabulary'):
        parse_vocabulary('nothing.txt')


def test_the_detections_of_supervision_take_the_results(inferencer):
    supervision = pytest.importorskip('supervision')
    sample = inferencer(picture())[0]
    found = supervision.Detections.from_mmdetection(sample)
    truth = sample.pred_instances
    assert len(found) == len(truth) > 0
    assert found.mask.dtype == bool and found.mask.shape == (len(truth), 48, 80)
    assert np.array_equal(found.mask, truth.masks.numpy()) and np.array_equal(found.class_id, truth.labels.numpy())
    names = [sample.classes[index] for index in found.class_id]
    drawn = supervision.MaskAnnotator().annotate(picture().copy(), found)
    drawn = supervision.LabelAnnotator().annotate(drawn, found, labels=names)
    assert drawn.shape == (48, 80, 3) and (drawn != picture()).any()


def test_tasks_of_calls_that_run_side_by_side_do_not_mix(inferencer):
    from concurrent.futures import ThreadPoolExecutor
    tasks = ['panoptic', 'semantic', 'instance', 'all'] * 2
    image = NamedImage('a', picture())
    with ThreadPoolExecutor(4) as pool:
        samples = list(pool.map(lambda task: inferencer.predict([image], task=task)[0], tasks))
    fields = dict(panoptic={'pred_panoptic_seg'}, semantic={'pred_sem_seg'}, instance={'pred_instances'},
                  all={'pred_panoptic_seg', 'pred_sem_seg', 'pred_instances'})
    for task, sample in zip(tasks, samples):
        assert {key for key in sample.keys() if key.startswith('pred')} == fields[task]
    with pytest.raises(ValueError, match='task must be one of'):
        inferencer.predict([image], task='depth')


def test_threads_that_change_the_vocabulary_get_answers_in_their_words(inferencer, monkeypatch):
    vocabularies = [['red mug, mug', 'keyboard'], ['eye', 'fur', 'whisker'], ['cat', 'dog']]
    alone = {}
    for words in vocabularies:
        inferencer.set_vocabulary(words)
        alone[tuple(inferencer.vocabulary.names)] = inferencer(picture())[0].pred_sem_seg.sem_seg
    test_step = inferencer.model.test_step
    monkeypatch.setattr(inferencer.model, 'test_step', lambda batch: (time.sleep(0.02), test_step(batch))[1])

    def work(number):
        inferencer.set_vocabulary(vocabularies[number % 3])
        return inferencer.predict([NamedImage('a', picture())])[0]

    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(work, range(12)))
    for result in results:  # of some thread's words: a change between the two lines of another thread is allowed
        torch.testing.assert_close(result.pred_sem_seg.sem_seg, alone[result.classes], atol=0, rtol=0)
