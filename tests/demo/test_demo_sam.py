"""Training of the demonstration model."""
from __future__ import annotations

import pytest
import torch
from torch.utils.data import default_collate

from frozenmm.demo.prompt_scenes import PromptScenes
from frozenmm.demo.sam.prompted_iou import PromptedIoU
from frozenmm.demo.sam.prompts import BOX, POINT, TWO_POINTS, draw_prompts, mask_iou, region_masks
from frozenmm.demo.sam.training import dice_loss
from frozenmm.foundation import fingerprint
from frozenmm.registry import MODELS

HEAD = dict(channels=32, mask_channels=16, heads=4, decoder_depth=1, neck_depth=1)


def regions():
    found = torch.zeros(40, 60, dtype=torch.uint8)
    found[5:25, 10:40] = 1
    found[30:32, 50:53] = 2  # too small to be asked for
    found[28:38, 2:20] = 3
    return found


def build(seed=0, **changes):
    torch.manual_seed(seed)
    tower = dict(type='EfficientNetLiteTower', weights='random', resize_mode='none',
                 out_maps=['res2', 'res3', 'res4', 'res5'])
    return MODELS.build(dict(type='frozenmm.DemoSAM', tower=tower, head=HEAD, prompts=6, **changes))


def scenes(count=2, size=64):
    data = PromptScenes('train', count, size=size, objects=(1, 2), shapes=(1, 2))
    return default_collate([data[index] for index in range(count)])


@pytest.mark.parametrize('kind', [POINT, BOX, TWO_POINTS])
def test_prompts_ask_for_large_regions(generator, kind):
    shares = [float(number == kind) for number in range(3)]
    prompts = draw_prompts(regions(), 40, shares=shares, generator=generator)
    assert set(prompts.regions.tolist()) == {0, 1, 3} and set(prompts.kinds.tolist()) == {kind}
    assert 0 <= prompts.points.min() and prompts.points.max() <= 1
    pixels = (prompts.points * torch.tensor([60, 40])).long()
    if kind == BOX:
        assert prompts.labels.tolist() == [[2, 3]] * 40
        boxes = prompts.points[prompts.regions == 1].flatten(1) * torch.tensor([60, 40, 60, 40])
        assert (boxes.mean(0) - torch.tensor([10, 5, 40, 25])).abs().max() < 3 and boxes.std(0).min() > 0.5
        return
    under = regions()[pixels[..., 1], pixels[..., 0]]
    wanted = prompts.regions[:, None] == under
    assert wanted[:, 0].all()  # the first point lies inside
    used = prompts.labels >= 0
    assert used.all() == (kind == TWO_POINTS) and torch.equal(wanted[used], (prompts.labels == 1)[used])


def test_prompts_depend_on_the_generator_alone():
    one, other = (draw_prompts(regions(), 9, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one.points, other.points) and torch.equal(one.regions, other.regions)


def test_an_image_of_specks_is_refused():
    with pytest.raises(ValueError, match='no region of the image has 60 pixels'):
        draw_prompts(torch.arange(64).view(8, 8), 1)


def test_targets_are_where_a_region_fills_half_a_cell(generator):
    prompts = draw_prompts(regions(), 12, generator=generator)
    full, small = region_masks(regions(), prompts, (40, 60)), region_masks(regions(), prompts, (10, 15))
    for mask, number in zip(full, prompts.regions):
        assert torch.equal(mask, regions() == number)
    index = prompts.regions.tolist().index(1)
    assert small[index].nonzero().amin(0).tolist() == [1, 3] and small[index].sum() == 5 * 7


def test_overlap_and_dice_of_known_masks():
    one, other = torch.zeros(1, 4, 4, dtype=torch.bool), torch.zeros(1, 4, 4, dtype=torch.bool)
    one[:, :2], other[:, 1:3] = True, True
    torch.testing.assert_close(mask_iou(one, other), torch.tensor([1 / 3]))
    assert mask_iou(one & False, one & False).tolist() == [0]
    logits = torch.where(one, 50.0, -50.0)
    torch.testing.assert_close(dice_loss(logits, other), torch.tensor([1 - 9 / 17]))
    assert dice_loss(logits, one) < 1e-6


def test_a_step_trains_the_head_and_leaves_the_trunk():
    model = build().train()
    before = fingerprint(model.image_tower.network)
    losses = model(**scenes(), mode='loss')
    assert {'loss_mask', 'loss_iou', 'iou_point', 'iou_box'} == set(losses)
    (losses['loss_mask'] + losses['loss_iou']).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert fingerprint(model.image_tower.network) == before


def test_it_learns_two_regions():
    model, data = build().train(), scenes()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        torch.manual_seed(1)  # the same prompts
        loss = model(**data, mode='loss')['loss_mask']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_results_of_a_test_are_the_same_every_time_and_are_measured():
    model, data = build().eval(), scenes()
    one, other = (model(**data, mode='predict') for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for first, second in zip(one, other) for key in first)
    assert all(len(result['point_best']) + len(result['box']) == 6 for result in one)
    assert all((result['point_best'] >= result['point_chosen']).all() for result in one)
    metric = PromptedIoU()
    metric.process(None, one)
    found = metric.evaluate(2)
    want = 100 * torch.cat([result['box'] for result in one]).mean()
    assert found['prompt/box'] == pytest.approx(float(want)) and -1 <= found['prompt/correlation'] <= 1
