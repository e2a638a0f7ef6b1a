"""Automatic masks: equal to the official generator, and what FrozenSeg does with them."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from small_sam import DECODER, ENCODER, official_sam
from tiny_segmentors import batch, frozen_seg

from frozenmm.foundation.mask_prompters import SAMPrompter
from frozenmm.segmentation.frozen_seg.automatic_masks import (
    AutomaticMasks,
    mask_boxes,
    point_grid,
    stability,
    without_small_regions,
)

ALL = dict(points_per_side=4, points_per_batch=5, iou_threshold=-100.0, stability_threshold=0.0, min_area=0, count=1000)


@pytest.fixture(scope='module')
def sam(tmp_path_factory):
    path = tmp_path_factory.mktemp('sam') / 'small_sam.pth'
    return official_sam(path), SAMPrompter(ENCODER, path, decoder=DECODER)


@pytest.fixture(scope='module')
def picture():
    return np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)


def blobs(decoder, image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings):
    """Rippled discs at places that depend on the prompt, because an untrained decoder answers all prompts alike."""
    generator = torch.Generator().manual_seed(3)
    token = sparse_prompt_embeddings[:, 0]
    drawn = token @ torch.randn(token.shape[1], 16, generator=generator)
    x, y, radius, slope = drawn.sigmoid().view(-1, 4, 4).unbind(2)
    steps = (torch.arange(16) + 0.5) / 16
    distance = torch.hypot(steps - x[..., None, None], steps[:, None] - y[..., None, None])
    ripples = torch.sin(40 * steps) * torch.sin(35 * steps[:, None] + 9 * x[..., None, None])
    logits = (10 + 30 * slope[..., None, None]) * (0.1 + 0.3 * radius[..., None, None] - distance) + 2 * ripples
    return logits + image_embeddings.mean(), (x + y + radius + slope) / 4


@pytest.mark.parametrize('min_area', [0, 40])
def test_masks_are_those_of_the_official_generator(sam, picture, min_area, monkeypatch):
    from segment_anything import SamAutomaticMaskGenerator
    from segment_anything.modeling import MaskDecoder
    monkeypatch.setattr(MaskDecoder, 'predict_masks', blobs)
    model, prompter = sam
    official = SamAutomaticMaskGenerator(
        model, points_per_side=8, points_per_batch=5, stability_score_offset=0.5, box_nms_thresh=0.6,
        pred_iou_thresh=0.35, stability_score_thresh=0.7, min_mask_region_area=min_area).generate(picture)
    ours = AutomaticMasks(prompter, points_per_side=8, points_per_batch=5, stability_offset=0.5, nms_threshold=0.6,
                          iou_threshold=0.35, stability_threshold=0.7, min_area=min_area, resolution='image',
                          count=1000)(picture)
    assert 5 < len(official) < 150  # of 192
    assert ours.size == (64, 32) and len(ours.logits) == len(official)
    official = sorted(official, key=lambda record: record['predicted_iou'])
    order = ours.predicted_iou.argsort()
    wanted = torch.tensor([record['predicted_iou'] for record in official])
    torch.testing.assert_close(ours.predicted_iou[order], wanted, atol=1e-4, rtol=1e-4)
    differing = np.stack([record['segmentation'] for record in official]) != (ours.logits[order] > 0).numpy()
    assert differing.mean() < 1e-3  # logits within rounding of zero


def test_masks_at_the_decoder_s_resolution_are_nearly_the_same(sam, picture):
    whole, small = (AutomaticMasks(sam[1], **ALL, nms_threshold=1.0, resolution=name)(picture)
                    for name in ('image', 'mask'))
    assert small.logits.shape[1:] == (16, 8) and whole.logits.shape[1:] == (64, 32)
    assert len(small.logits) == len(whole.logits) == 48
    one, other = whole.predicted_iou.argsort(), small.predicted_iou.argsort()
    agree = (whole.full()[one] > 0) == (small.full()[other] > 0)
    assert agree.float().mean() > 0.95


def test_the_largest_or_the_best_masks_are_kept(sam, picture):
    every = AutomaticMasks(sam[1], **ALL)(picture)
    largest = AutomaticMasks(sam[1], **dict(ALL, count=3))(picture)
    best = AutomaticMasks(sam[1], **dict(ALL, count=3), choice='best')(picture)
    areas = (every.logits > 0).sum((1, 2))
    assert (largest.logits > 0).sum((1, 2)).tolist() == areas.sort(descending=True).values[:3].tolist()
    torch.testing.assert_close(best.predicted_iou, every.predicted_iou.sort(descending=True).values[:3])


def test_nothing_that_passes_gives_no_masks(sam, picture):
    none = AutomaticMasks(sam[1], points_per_side=2, iou_threshold=1e6)(picture)
    assert none.logits.shape[0] == 0 and none.full().shape == (0, 64, 32)


def test_points_lie_in_the_middle_of_their_cells():
    assert point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_stability_is_the_overlap_of_two_cuts():
    logits = torch.tensor([[[2.0, 0.5], [-0.5, -2.0]], [[2.0, 2.0], [-2.0, -2.0]]])
    torch.testing.assert_close(stability(logits, 1.0), torch.tensor([1 / 3, 1.0]))


def test_boxes_name_the_first_and_last_pixel():
    masks = torch.zeros(2, 5, 7, dtype=torch.bool)
    masks[0, 1:4, 2:6] = True
    assert mask_boxes(masks).tolist() == [[2, 1, 5, 3], [0, 0, 0, 0]]


def test_small_holes_and_islands_go():
    mask = np.zeros((12, 12), bool)
    mask[1:8, 1:8], mask[3, 3], mask[10, 10] = True, False, True
    cleaned, changed = without_small_regions(mask, 4)
    assert changed and cleaned[3, 3] and not cleaned[10, 10] and cleaned.sum() == 49
    assert without_small_regions(cleaned, 4)[1] is False
    lonely = np.zeros((12, 12), bool)
    lonely[2, 2:4], lonely[8, 8] = True, True
    assert without_small_regions(lonely, 50)[0].nonzero()[0].tolist() == [2, 2]


def test_impossible_options_are_refused(sam):
    prompter = sam[1]
    with pytest.raises(ValueError, match=r"resolution must be one of \['mask', 'image'\], got 'full'"):
        AutomaticMasks(prompter, resolution='full')
    with pytest.raises(ValueError, match='points_per_side, points_per_batch and count must be at least 1'):
        AutomaticMasks(prompter, points_per_side=0)
    with pytest.raises(TypeError, match='automatic masks need a MaskPrompter, got Linear'):
        AutomaticMasks(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r'expected a picture \(H, W, 3\) uint8 RGB, got float64'):
        AutomaticMasks(prompter)(np.zeros((8, 8, 3)))


SMALL_SAM = dict(type='SAMPrompter', model=ENCODER, weights='random', decoder=DECODER)
MAKER = dict(ALL, prompter=SMALL_SAM, points_per_side=3)
TASKS = dict(tasks=('semantic', 'proposals'), class_scores=True)


def test_masks_are_made_at_test_time_where_a_sample_brings_none():
    model, plain = frozen_seg(postprocess=TASKS, sam_masks=dict(automatic=MAKER)), frozen_seg(postprocess=TASKS)
    plain.load_state_dict(model.state_dict())  # the mask maker leaves no trace in a checkpoint
    data = batch((64, 90), (48, 96), output=(33, 47))
    with torch.no_grad():
        found = model.test_step(data)
        given = batch((64, 90), (48, 96), output=(33, 47))
        for sample, made in zip(given['data_samples'], found):
            assert made.sam_masks.size == (33, 47) and 0 < len(made.sam_masks.logits) <= 27
            sample.sam_masks = made.sam_masks
        again = plain.test_step(given)
    for one, other in zip(found, again):
        assert one.pred_proposals.masks.shape[0] == 8 + len(one.sam_masks.logits)
        assert torch.equal(one.pred_proposals.masks, other.pred_proposals.masks)
        torch.testing.assert_close(one.seg_logits.data, other.seg_logits.data)


def test_the_padding_of_a_batch_does_not_reach_the_masks():
    model = frozen_seg(postprocess=TASKS, sam_masks=dict(automatic=MAKER))
    with torch.no_grad():
        alone = model.test_step(batch((64, 90)))[0].sam_masks
        together = model.test_step(batch((64, 90), (96, 128)))[0].sam_masks
    torch.testing.assert_close(alone.logits, together.logits, atol=1e-3, rtol=1e-3)


def test_a_folder_and_masks_at_test_time_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match='not both; leave one out'):
        frozen_seg(sam_masks=dict(folder=str(tmp_path), automatic=MAKER))
    with pytest.raises(ValueError, match='this model makes no SAM masks'):
        frozen_seg().add_masks(torch.zeros(1, 3, 64, 64), batch((64, 64))['data_samples'])


def test_automatic_masks_under_their_old_name():
    with pytest.warns(FutureWarning, match='automatic_masks is now called sam_masks'):
        model = frozen_seg(automatic_masks=MAKER)
    assert model.automatic_masks.options.points_per_side == 3
