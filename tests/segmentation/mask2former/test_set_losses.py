"""Matching, points, targets and losses."""
from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData

from frozenmm.segmentation.mask2former import criterion as criterion_module
from frozenmm.segmentation.mask2former.criterion import MaskTargets, SetCriterion, dice_loss
from frozenmm.segmentation.mask2former.matcher import HungarianMatcher, matching_costs
from frozenmm.segmentation.mask2former.points import PointSampler, sample_points
from frozenmm.segmentation.mask2former.targets import targets_of

WEIGHTS = dict(class_weight=2.0, mask_weight=5.0, dice_weight=5.0)
CPU = torch.device('cpu')


def predictions(generator, count=2, layers=2):
    return ([torch.randn(count, 5, 4, generator=generator) for _ in range(layers)],
            [torch.randn(count, 5, 8, 8, generator=generator) for _ in range(layers)])


def annotations(generator, *counts):
    return [MaskTargets(torch.randint(0, 3, (count,), generator=generator),
                        torch.rand(count, 32, 32, generator=generator) > 0.5) for count in counts]


def test_the_assignment_is_the_cheapest_of_all(generator):
    logits, masks = torch.randn(1, 4, 3, generator=generator), torch.randn(1, 4, 6, 6, generator=generator)
    labels, targets = torch.tensor([0, 1, 1]), torch.rand(3, 12, 12, generator=generator).round()
    points = torch.rand(1, 30, 2, generator=generator)
    (queries, chosen), = HungarianMatcher(**WEIGHTS)(logits, masks, [labels], [targets], points)
    costs = matching_costs(logits[0], sample_points(masks, points)[0], labels, sample_points(targets[None], points)[0],
                           **WEIGHTS)
    best = min(sum(costs[query, index].item() for index, query in enumerate(order))
               for order in permutations(range(4), 3))
    assert costs[queries, chosen].sum().item() == pytest.approx(best, rel=1e-5)
    assert queries.tolist() == sorted(queries.tolist())


def test_costs_are_the_losses_of_each_pair(generator):
    logits, target = torch.randn(1, 20, generator=generator), torch.rand(1, 20, generator=generator).round()
    only_mask = matching_costs(torch.zeros(1, 2), logits, torch.tensor([0]), target, class_weight=0.0, mask_weight=1.0,
                               dice_weight=0.0)
    only_dice = matching_costs(torch.zeros(1, 2), logits, torch.tensor([0]), target, class_weight=0.0, mask_weight=0.0,
                               dice_weight=1.0)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(only_mask[0, 0], expected)
    torch.testing.assert_close(only_dice[0], dice_loss(logits, target))


def test_predictions_that_are_not_numbers_are_an_error(generator):
    logits, masks = predictions(generator, 1, 1)
    masks[0][0, 0] = torch.nan  # a whole mask, so that no draw of points can miss it
    with pytest.raises(ValueError, match='the matching costs contain NaN or infinity: the predictions have diverged'):
        SetCriterion(num_points=16)(logits, masks, annotations(generator, 2))


def test_images_without_annotation_only_teach_void(generator):
    logits, masks = predictions(generator)
    leaf = masks[-1].requires_grad_()
    losses = SetCriterion(num_points=16)(logits, masks, annotations(generator, 0, 0))
    sum(losses.values()).backward()
    assert losses['loss_mask'] == 0 and losses['loss_dice'] == 0 and losses['loss_ce'] > 0
    assert leaf.grad is not None and not leaf.grad.any()


def test_earlier_layers_have_numbered_losses(generator):
    logits, masks = predictions(generator, layers=3)
    losses = SetCriterion(num_points=16)(logits, masks, annotations(generator, 1, 2))
    assert set(losses) == {f'{prefix}loss_{name}' for prefix in ('', 'd0.', 'd1.') for name in ('ce', 'mask', 'dice')}


def test_losses_do_not_depend_on_autocast(generator):
    logits, masks = predictions(generator, layers=1)
    targets = annotations(generator, 1, 2)
    values = []
    for enabled in (False, True):
        module = SetCriterion(num_points=16)
        module.sampler.generator = torch.Generator().manual_seed(3)
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            values.append(module(logits, masks, targets))
    for name in values[0]:
        assert torch.equal(values[0][name], values[1][name]) and values[1][name].dtype == torch.float32


def test_the_number_of_masks_is_averaged_over_ranks(generator, monkeypatch):
    logits, masks = predictions(generator, layers=1)
    targets = annotations(generator, 1, 2)
    values = []
    for world in (1, 2):
        module = SetCriterion(num_points=16)
        module.sampler.generator = torch.Generator().manual_seed(3)
        monkeypatch.setattr(criterion_module, 'get_world_size', lambda world=world: world)
        # the other rank has no annotation, so the mean is half of ours
        monkeypatch.setattr(criterion_module, 'all_reduce', lambda count, op: count.mul_(0.5) if op == 'mean' else None)
        values.append(module(logits, masks, targets))
    torch.testing.assert_close(values[1]['loss_mask'], 2 * values[0]['loss_mask'])
    torch.testing.assert_close(values[1]['loss_ce'], values[0]['loss_ce'])


def test_void_weighs_a_tenth(generator):
    logits = torch.randn(1, 5, 4, generator=generator)
    losses = SetCriterion(num_points=16).unweighted([logits], [torch.randn(1, 5, 8, 8)], annotations(generator, 0))
    torch.testing.assert_close(losses[0]['ce'], -logits.log_softmax(-1)[..., -1].mean())
    one = [MaskTargets(torch.tensor([1]), torch.ones(1, 8, 8))]
    masks = torch.full((1, 5, 8, 8), -9.0)
    masks[0, 2] = 9.0
    loss = SetCriterion(num_points=16).unweighted([logits], [masks], one)[0]['ce']
    entropy = -logits[0].log_softmax(-1)
    expected = (entropy[2, 1] + 0.1 * (entropy[:, -1].sum() - entropy[2, -1])) / (1 + 0.4)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize('label', [-1, 3])
def test_labels_outside_the_vocabulary_are_an_error(generator, label):
    logits, masks = predictions(generator, 1, 1)
    with pytest.raises(ValueError, match=r'a label outside 0\.\.2; check that the training vocabulary'):
        SetCriterion(num_points=4)(logits, masks, [MaskTargets(torch.tensor([label]), torch.ones(1, 8, 8))])


def test_numbers_that_do_not_fit_are_errors(generator):
    logits, masks = predictions(generator, 2, 1)
    with pytest.raises(ValueError, match='1 annotated images for a batch of 2'):
        SetCriterion(num_points=4)(logits, masks, annotations(generator, 1))
    with pytest.raises(ValueError, match='image 1 has 2 labels but 1 masks'):
        wrong = MaskTargets(torch.tensor([0, 1]), torch.ones(1, 8, 8))
        SetCriterion(num_points=4)(logits, masks, [*annotations(generator, 1), wrong])


def test_most_points_lie_where_the_prediction_is_least_certain():
    logits = torch.linspace(-8, 8, 32).expand(1, 32, 32)  # zero in the middle of every row
    sampler = PointSampler(400, generator=torch.Generator().manual_seed(0))
    points = sampler.loss(0, logits)
    assert points.shape == (1, 400, 2) and 0 <= points.min() and points.max() <= 1
    near = ((points[0, :, 0] - 0.5).abs() < 0.15).float().mean()
    assert near > 0.75


def test_all_masks_of_an_image_share_the_matching_points():
    points = PointSampler(7, generator=torch.Generator().manual_seed(0)).matching(0, 3, CPU)
    assert points.shape == (3, 7, 2) and not torch.equal(points[0], points[1])


@pytest.mark.parametrize('options', [dict(num_points=0), dict(oversample_ratio=0.5), dict(importance_ratio=2.0)])
def test_impossible_points_are_refused(options):
    with pytest.raises(ValueError, match='points need num_points >= 1'):
        PointSampler(**dict(dict(num_points=4), **options))


def annotated(semantic=None, **instances):
    sample = DetDataSample()
    if instances:
        sample.gt_instances = InstanceData(**instances)
    if semantic is not None:
        sample.gt_sem_seg = PixelData(sem_seg=semantic)
    return sample


def test_things_come_from_instances_and_stuff_from_the_map():
    semantic = torch.tensor([[[0, 2, 2], [3, 0, 255]]])
    sample = annotated(semantic, labels=torch.tensor([0, 0]), masks=BitmapMasks(np.eye(6).reshape(6, 2, 3)[:2], 2, 3))
    targets = targets_of(sample, 4, (0, 1), (4, 4), CPU)
    assert targets.labels.tolist() == [0, 0, 2, 3] and targets.masks.shape == (4, 4, 4)
    assert targets.masks[2].nonzero().tolist() == [[0, 1], [0, 2]] and targets.masks[3].nonzero().tolist() == [[1, 0]]
    assert targets.masks[1].nonzero().tolist() == [[0, 1]]


def test_without_instances_every_class_of_the_map_is_a_segment():
    targets = targets_of(annotated(torch.tensor([[[0, 1], [255, -1]]])), 3, (0, 1, 2), (2, 2), CPU)
    assert targets.labels.tolist() == [0, 1] and targets.masks.dtype == torch.bool


def test_samples_without_annotation_are_an_error():
    with pytest.raises(ValueError, match='neither gt_instances nor gt_sem_seg'):
        targets_of(annotated(), 3, (), (2, 2), CPU)


def test_instances_without_masks_are_an_error():
    with pytest.raises(ValueError, match='gt_instances holds no masks; load them with LoadPanopticAnnotations'):
        targets_of(annotated(labels=torch.tensor([0])), 3, (), (2, 2), CPU)


def test_masks_larger_than_the_batch_are_an_error():
    with pytest.raises(ValueError, match='annotated masks are 5x2, larger than the batch of 4x4'):
        targets_of(annotated(labels=torch.tensor([0]), masks=torch.ones(1, 5, 2)), 3, (), (4, 4), CPU)


def test_a_probable_class_makes_a_pair_cheap():
    class_logits = torch.tensor([[3.0, -3.0, 0.0], [-3.0, 3.0, 0.0]])
    costs = matching_costs(class_logits, torch.zeros(2, 4), torch.tensor([0, 1]), torch.ones(2, 4), class_weight=2.0,
                           mask_weight=0.0, dice_weight=0.0)
    torch.testing.assert_close(costs, -2 * class_logits.softmax(-1)[:, :2])


def test_weights_and_points_are_those_of_the_official_configuration():
    assert HungarianMatcher().weights == dict(class_weight=2.0, mask_weight=5.0, dice_weight=5.0)
    sampler = PointSampler()
    assert (sampler.num_points, sampler.oversample_ratio, sampler.importance_ratio) == (12544, 3.0, 0.75)
    assert SetCriterion().weights == dict(ce=2.0, mask=5.0, dice=5.0) and SetCriterion().void_weight == 0.1


def test_the_smallest_settings_of_the_points_are_allowed():
    assert PointSampler(1, oversample_ratio=1, importance_ratio=0).loss(0, torch.zeros(2, 4, 4)).shape == (2, 1, 2)
    assert PointSampler(4, importance_ratio=1).loss(0, torch.zeros(2, 4, 4)).shape == (2, 4, 2)


def test_a_point_at_the_centre_of_a_cell_reads_that_cell_and_one_at_the_corner_a_quarter():
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    points = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.0, 0.0]]])
    torch.testing.assert_close(sample_points(maps, points)[0, 0], torch.tensor([1.0, 2.0, 3.0, 0.25]))
