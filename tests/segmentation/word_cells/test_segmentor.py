"""The model that puts opinions, grouping and results together."""
from __future__ import annotations

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import PixelData

from frozenmm.errors import UserError, WrongKind
from frozenmm.foundation.class_memory import ClassMemory
from frozenmm.registry import MODELS
from frozenmm.segmentation.word_cells import segmentor
from frozenmm.segmentation.word_cells.segmentor import WordCellSegmentor

WORDS = [dict(name='person', isthing=True), dict(name='bear', isthing=True), dict(name='grass', isthing=False)]
OPTIONS = dict(
    type='frozenmm.WordCellSegmentor', tower=dict(type='frozenmm.EfficientNetLiteTower', weights='random'),
    train_vocabulary=WORDS, calibration=dict(imagenet=(1., 0.), trained=(1., 0.)),
    data_preprocessor=dict(type='mmdet.DetDataPreprocessor', mean=[127.] * 3, std=[64.] * 3, bgr_to_rgb=True))


class Vectors:
    """An encoder of vectors that are made already."""

    def __init__(self, chosen: WordCellSegmentor) -> None:
        self.signature = chosen.region_signature


def model(**changes: object) -> WordCellSegmentor:
    torch.manual_seed(0)
    return MODELS.build(dict(OPTIONS, **{'least_score': 0.0, **changes})).eval()


def sample(height: int = 64, width: int = 96) -> DetDataSample:
    return DetDataSample(metainfo=dict(ori_shape=(height * 2, width * 2), img_shape=(height, width)))


def test_results_of_all_tasks_have_the_pictures_size():
    found, = model(grouping=dict(floor=0.0)).predict(torch.randn(1, 3, 64, 96), [sample()])
    assert found.pred_panoptic_seg.sem_seg.shape == found.pred_sem_seg.sem_seg.shape == (1, 128, 192)
    assert len(found.segments_info) and len(found.pred_instances.scores)


def test_where_nobody_is_sure_there_is_nothing():
    found, = model(grouping=dict(floor=1.0)).predict(torch.randn(1, 3, 64, 96), [sample()])
    assert found.segments_info == [] and not len(found.pred_instances.scores)
    assert (found.pred_panoptic_seg.sem_seg == 3).all() and (found.pred_sem_seg.sem_seg == 3).all()


def test_a_segment_that_scores_too_low_is_left_out():
    images = torch.randn(1, 3, 64, 96)
    found, = model(grouping=dict(floor=0.0)).predict(images, [sample()])
    score = max(info['score'] for info in found.segments_info)
    for least, kept in (score - 0.01, True), (score + 0.01, False):
        found, = model(grouping=dict(floor=0.0), least_score=least).predict(images, [sample()])
        assert bool(found.segments_info) == bool(len(found.pred_instances.scores)) == kept


def test_a_word_that_nobody_knows_is_said_and_never_found(monkeypatch):
    chosen, said = model(grouping=dict(floor=0.0)), []
    monkeypatch.setattr(segmentor, 'print_log', lambda text, logger: said.append(text))
    chosen.set_vocabulary(['unicorn', 'zebra'])
    assert len(said) == 1 and "no class for 'unicorn' and" in said[0]
    found, = chosen.predict(torch.randn(1, 3, 64, 96), [sample()])
    assert {info['category_id'] for info in found.segments_info} == {1}


def test_what_examples_say_is_all_that_a_memory_changes(tmp_path):
    chosen, image = model(grouping=dict(floor=0.3, smallest=20)), torch.randn(1, 3, 64, 96)
    chosen.set_vocabulary(['unicorn', 'zebra'])
    plain, = chosen.predict(image, [sample()])
    memory = ClassMemory(tmp_path / 'memory.sqlite', Vectors(chosen))
    chosen.remember(memory)
    assert torch.equal(chosen.predict(image, [sample()])[0].pred_sem_seg.sem_seg, plain.pred_sem_seg.sem_seg)
    masks = torch.zeros(2, *chosen.grouping.grid(64, 96))
    masks[0, :, :160], masks[1, :, 160:] = 1, 1
    left, right = chosen.region_vectors(chosen.views(image), masks)
    memory.add_vectors(['unicorn'], left[None], surroundings=right[None])
    found, = chosen.predict(image, [sample()])
    unicorn = found.pred_sem_seg.sem_seg[0] == 0
    assert unicorn[:, :96].float().mean() > unicorn[:, 96:].float().mean()
    memory.remove('unicorn')
    assert torch.equal(chosen.predict(image, [sample()])[0].pred_sem_seg.sem_seg, plain.pred_sem_seg.sem_seg)


def test_a_word_with_examples_is_not_called_unknown(tmp_path, monkeypatch):
    chosen, said = model(), []
    monkeypatch.setattr(segmentor, 'print_log', lambda text, logger: said.append(text))
    memory = ClassMemory(tmp_path / 'memory.sqlite', Vectors(chosen))
    memory.add_vectors(['unicorn'], torch.randn(1, chosen.region_signature['channels']))
    chosen.remember(memory)
    chosen.set_vocabulary(['unicorn'])
    assert said == []


def test_padding_changes_nothing():
    chosen, image = model(grouping=dict(floor=0.0)), torch.randn(1, 3, 64, 96)
    padded = torch.nn.functional.pad(image, (0, 32, 0, 64))
    alone, = chosen.predict(image, [sample()])
    among, = chosen.predict(padded, [sample()])
    assert torch.equal(alone.pred_panoptic_seg.sem_seg, among.pred_panoptic_seg.sem_seg)


def test_the_loss_falls_and_counts_labels_only():
    chosen = model().train()
    images, data = torch.randn(1, 3, 64, 64), sample(64, 64)
    data.gt_sem_seg = PixelData(sem_seg=torch.full((1, 64, 64), 255).index_fill_(2, torch.arange(32), 1))
    optimizer = torch.optim.Adam(chosen.head.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = chosen.loss(images, [data])['loss_cells']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 3
    data.gt_sem_seg = PixelData(sem_seg=torch.full((1, 64, 64), 255))
    assert float(chosen.loss(images, [data])['loss_cells'].detach()) == 0


def test_another_tower_is_refused():
    with pytest.raises(WrongKind, match='must be an EfficientNetLiteTower'):
        model(tower=dict(type='frozenmm.DINOv2Tower', weights='random', model=dict(
            embed_dim=16, depth=1, num_heads=2, patch_size=14, img_size=28)))


def test_scales_must_be_positive():
    with pytest.raises(UserError, match='scales must be positive'):
        model(scales=())
