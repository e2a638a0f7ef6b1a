"""Classes from examples through an inferencer: added without training, removed without a trace."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from test_open_vocabulary_inferencer import picture, small
from tiny_segmentors import RESNET, fc_clip, frozen_seg

from frozenmm import ClassMemory
from frozenmm.apis import OpenVocabularyInferencer
from frozenmm.apis.region_encoder import region_mask
from frozenmm.errors import UserError
from frozenmm.registry import MODELS
from frozenmm_command import main

WORDS = ['red mug, mug', 'keyboard']
HALF = (0, 0, 40, 48)


def knowing(tmp_path, model, words=WORDS):
    return small(OpenVocabularyInferencer(model, words, memory=tmp_path / 'memory.sqlite'))


def everything(sample):
    return [sample.pred_panoptic_seg.sem_seg, sample.pred_sem_seg.sem_seg, sample.pred_instances.scores,
            sample.pred_instances.labels, sample.pred_instances.masks]


def same(a, b):
    return a.classes == b.classes and all(torch.equal(one, other) for one, other in zip(everything(a), everything(b)))


@pytest.mark.parametrize('make', [fc_clip, frozen_seg, lambda seed: fc_clip(seed, tower=RESNET)],
                         ids=['fc_clip', 'frozen_seg', 'resnet'])
def test_an_example_changes_results_and_removing_it_restores_them_bit_for_bit(tmp_path, make):
    model = make(seed=3)
    plain = small(OpenVocabularyInferencer(model, WORDS))(picture())[0]
    segment = knowing(tmp_path, model)
    assert same(segment(picture())[0], plain)
    for box in HALF, (40, 0, 80, 48), (0, 0, 80, 48):
        segment.memory.add(picture(), 'keyboard', box=box)
    assert not same(segment(picture())[0], plain)
    segment.memory.remove('keyboard')
    assert same(segment(picture())[0], plain)


def test_word_cells_learn_a_class_and_its_surroundings_from_a_box_and_forget_it_without_a_trace(tmp_path):
    words = [dict(name='mug', isthing=True), dict(name='keyboard', isthing=True)]
    model = MODELS.build(dict(
        type='frozenmm.WordCellSegmentor', tower=dict(type='frozenmm.EfficientNetLiteTower', weights='random'),
        train_vocabulary=words, calibration=dict(imagenet=(1., 0.), trained=(1., 0.)), least_score=0.0,
        grouping=dict(smallest=20),
        data_preprocessor=dict(type='mmdet.DetDataPreprocessor', mean=[127.] * 3, std=[64.] * 3)))
    segment = knowing(tmp_path, model, words=['qzx 17'])
    plain = segment(picture())[0]
    segment.memory.add(picture(), 'qzx 17', box=HALF)
    assert segment.memory.list() == {'qzx 17': 1} and len(segment.memory.surroundings())
    assert not torch.equal(segment(picture())[0].pred_sem_seg.sem_seg, plain.pred_sem_seg.sem_seg)
    segment.memory.remove('qzx 17')
    assert same(segment(picture())[0], plain) and not len(segment.memory.surroundings())


def test_a_class_without_a_word_joins_the_classes_of_the_model_and_goes_again(tmp_path):
    model = fc_clip(seed=3)
    plain = small(OpenVocabularyInferencer(model))(picture())[0]
    segment = knowing(tmp_path, model, words=None)
    for box in HALF, (0, 0, 80, 48), (30, 10, 80, 48):
        segment.memory.add(picture(), 'qzx 17', box=box)
    found = segment(picture())[0]
    assert found.classes == (*plain.classes, 'qzx 17')
    assert float((found.pred_sem_seg.sem_seg == len(plain.classes)).float().mean()) > 0.5
    segment.memory.remove('qzx 17')
    assert same(segment(picture())[0], plain)
    segment.memory.add(picture(), 'qzx 17', box=HALF)
    segment.set_vocabulary(WORDS)
    assert segment(picture())[0].classes == ('red mug', 'keyboard')  # words of one's own are all there is


def test_mask_and_box_of_the_same_pixels_are_the_same_example(tmp_path):
    segment = knowing(tmp_path, fc_clip(seed=3))
    inside = np.zeros((48, 80), np.uint8)
    inside[:, :40] = 255
    Image.fromarray(inside).save(tmp_path / 'mask.png')
    for region in dict(box=HALF), dict(mask=inside), dict(mask=tmp_path / 'mask.png'), dict(box=(0, 0, 80, 48)):
        segment.memory.add(picture(), 'mug', **region)
    vectors = segment.memory.examples().vectors
    assert torch.equal(vectors[0], vectors[1]) and torch.equal(vectors[0], vectors[2])
    assert not torch.allclose(vectors[0], vectors[3])


@pytest.mark.parametrize('tower', [{}, dict(tower=RESNET)], ids=['convnext', 'resnet'])
def test_a_region_smaller_than_a_cell_has_a_vector(tmp_path, tower):
    segment = knowing(tmp_path, fc_clip(seed=3, **tower))
    segment.memory.add(picture(), 'mug', box=(10, 10, 12, 11))
    segment.memory.add(picture(), 'mug', box=(70, 40, 71, 42))
    vectors = segment.memory.examples().vectors
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))
    assert not torch.allclose(vectors[0], vectors[1])


def test_a_memory_of_another_model_is_refused_by_name(tmp_path):
    knowing(tmp_path, fc_clip(seed=3)).memory.add(picture(), 'mug', box=HALF)
    with pytest.raises(UserError, match=r"holds examples as .* sees them, but the model's tower is .*RN|CLIP"):
        knowing(tmp_path, fc_clip(seed=3, tower=RESNET))


def test_a_model_without_frozen_branch_says_so(tmp_path):
    from tiny_segmentors import classifier_options
    with pytest.raises(UserError, match='no frozen branch'):
        knowing(tmp_path, fc_clip(classifier=classifier_options(ensemble=dict(frozen=False))))


@pytest.mark.parametrize(('region', 'message'), [
    ({}, 'a mask or a box, one of both'), (dict(box=(0, 0, 1)), 'x1, y1, x2, y2'),
    (dict(box=(90, 0, 99, 9)), r'the box .* holds no pixel of its picture, which is 80 x 48'),
    (dict(mask=np.ones((80, 48))), r'shape \[80, 48\], but its picture has 48 rows and 80 columns'),
    (dict(mask=np.zeros((48, 80))), 'the mask holds no pixel'), (dict(box=(0, 0, 9, float('nan'))), 'in pixels')])
def test_a_region_that_does_not_fit_is_a_sentence(region, message):
    with pytest.raises(UserError, match=message):
        region_mask((48, 80), **region)


def test_the_command_lists_removes_and_exports(tmp_path, capsys):
    path = tmp_path / 'memory.sqlite'
    knowing(tmp_path, fc_clip(seed=3)).memory.add(picture(), 'my mug', box=HALF)
    main('memory', ['export', str(path), str(tmp_path / 'copy.sqlite')])
    main('memory', ['list', str(path)])
    main('memory', ['remove', str(path), 'my mug'])
    main('memory', ['list', str(path)])
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / 'copy.sqlite'), 'my mug: 1', 'my mug: 1 examples removed', 'no examples']
    assert ClassMemory(tmp_path / 'copy.sqlite').list() == {'my mug': 1}
    with pytest.raises(SystemExit) as ended:
        main('memory', ['add', str(path), 'a.png', '--name', 'mug', '--box', '1,2,x,4'])
    assert ended.value.code == 2 and '--box is X1,Y1,X2,Y2' in capsys.readouterr().err
