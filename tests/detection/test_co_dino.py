"""Co-DINO: mmdet's heads as collaborators, queries at what they assigned, and DINO where they are not asked."""
from __future__ import annotations

import copy

import pytest
import tiny_dino as tiny
import torch
from mmdet.models.layers import coordinate_to_encoding, inverse_sigmoid
from mmengine.structures import InstanceData
from torch import nn

from frozenmm.detection.frozen_detr.collaborators import FEWEST, MOST, Assignment, auxiliary_queries
from frozenmm.detection.frozen_detr.recorded import recorded, replaced
from frozenmm.registry import MODELS

SIZES = ((64, 96), (40, 72))


def total(losses):
    return sum(item.sum() for key, value in losses.items() if 'loss' in key
               for item in (value if isinstance(value, list) else [value]))


def detections(model, data):
    model.eval()
    with torch.no_grad():
        samples = model(**model.data_preprocessor(copy.deepcopy(data), False), mode='predict')
    return [sample.pred_instances for sample in samples]


@pytest.mark.parametrize('count,maps', [(0, ()), (0, ('res3', 'res4')), (1, ()), (5, ('res4',)), (14, ('res4',))])
def test_it_trains_every_parameter_and_detects(count, maps):
    enhancers = [tiny.tiny(count, maps)] if count or maps else []
    model = tiny.build(tiny.co_dino(*enhancers, patch_norm='LN'))
    losses = tiny.losses(model, tiny.batch(SIZES))
    total(losses).backward()
    assert {key.split('.')[0] for key in losses} >= {'roi', 'dense', 'aux0', 'aux1', 'loss_rpn_cls', 'dn_loss_cls'}
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    assert not [key for key, value in trained.items() if value.grad is None or not torch.isfinite(value.grad).all()]
    assert all(len(found.bboxes) == 5 for found in detections(model, tiny.batch(SIZES)))


def test_without_collaborators_it_is_dino():
    data = tiny.batch(SIZES)
    ours = tiny.build(tiny.co_dino(tiny.tiny(5, ('res4',)), test_cfg=dict(max_per_img=5)))
    dino = tiny.enhanced(tiny.tiny(5, ('res4',)))
    dino['bbox_head']['loss_cls'] = dict(type='mmdet.QualityFocalLoss', use_sigmoid=True, beta=2.0)
    dino = tiny.build(dino, seed=1)
    state = {key: value for key, value in ours.state_dict().items() if not key.startswith('collaborators.')}
    dino.load_state_dict(state, strict=True)
    expected, got = tiny.losses(dino, data), tiny.losses(ours, data)
    assert expected and not [key for key in expected if not torch.equal(expected[key], got[key])]
    for one, other in zip(detections(dino, data), detections(ours, data)):
        assert torch.equal(one.bboxes, other.bboxes) and torch.equal(one.scores, other.scores)


def test_the_collaborators_losses_are_those_of_mmdets_heads():
    model, data = tiny.build(tiny.co_dino()), tiny.batch(SIZES)
    batch = model.data_preprocessor(copy.deepcopy(data), True)
    maps = []
    with recorded(model.collaborators, 'maps') as calls, torch.random.fork_rng():
        torch.manual_seed(0)
        losses = model(**batch, mode='loss')
        maps = calls[0][1]
    assert [tuple(level.shape[-2:]) for level in maps] == [(8, 12), (4, 6), (2, 3), (1, 2)]
    expected = model.collaborators.dense_head.loss(maps, batch['data_samples'])
    for key, value in expected.items():
        assert all(torch.equal(*pair) for pair in zip(value, losses[f'dense.{key}'], strict=True))


def test_auxiliary_queries_stand_at_the_assigned_boxes_and_learn_their_objects():
    assignments = [
        Assignment(priors=torch.tensor([[0.0, 0, 50, 20]]), targets=torch.tensor([[10.0, 10, 30, 30]]),
                   labels=torch.tensor([2]), negatives=torch.rand(20, 4).sort(1).values * 20),
        Assignment(priors=torch.rand(400, 4).sort(1).values * 20, targets=torch.rand(400, 4),
                   labels=torch.ones(400).long(), negatives=torch.zeros(0, 4))]
    queries = auxiliary_queries(assignments, [(40, 100), (40, 100)], num_classes=3)
    assert queries.references.shape == (2, MOST, 4)
    torch.testing.assert_close(queries.references[0, 0], torch.tensor([0.25, 0.25, 0.5, 0.5]))
    torch.testing.assert_close(queries.targets[0, 0], torch.tensor([0.2, 0.5, 0.2, 0.5]))
    assert queries.labels[0, :2].tolist() == [2, 3] and (queries.labels[1] == 1).all()
    assert queries.label_weights.sum(1).tolist() == [21, MOST]  # one object and all its background; the rest is idle
    assert queries.box_weights[..., 0].sum(1).tolist() == [1, MOST]
    *_, positive, negative = queries.head_targets()
    assert (positive, negative) == (1 + MOST, MOST - 1)


def test_an_image_without_objects_gives_background_only():
    empty = Assignment(torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0).long(), torch.ones(30, 4))
    queries = auxiliary_queries([empty], [(10, 10)], num_classes=3)
    assert (queries.labels == 3).all() and queries.labels.shape == (1, FEWEST) and not queries.box_weights.any()
    model = tiny.build(tiny.co_dino(tiny.tiny(1, ('res4',))))
    losses = tiny.losses(model, tiny.batch(SIZES, targets=(0, 0)))
    total(losses).backward()
    assert torch.isfinite(total(losses)) and losses['aux0.loss_bbox'] == 0
    assert not [key for key, value in model.named_parameters() if value.requires_grad and value.grad is None]


def test_known_targets_take_the_place_of_the_matching_and_image_queries_serve_them_too():
    model, data = tiny.build(tiny.co_dino(tiny.tiny(5))), tiny.batch(SIZES)
    seen = []
    model.decoder.register_forward_hook(
        lambda module, args, inputs, output: seen.append((inputs['self_attn_mask'], inputs['image_queries'])),
        with_kwargs=True)
    with recorded(model.bbox_head, 'get_targets') as calls:
        tiny.losses(model, data)
    assert len(calls) == 3  # two decoder layers and the encoder; no matching for the auxiliary queries
    assert len(seen) == 3 and seen[0][0] is not None and seen[1][0] is None and seen[2][0] is None
    assert seen[0][1] is seen[1][1] is seen[2][1] and seen[0][1] is not None


def officially(model, index, queries, memory, levels, image_queries):
    """The fork's auxiliary pass: image queries are rows of every layer and are cut off behind it; nothing is masked."""
    boxes = inverse_sigmoid(queries.references, eps=1e-5)
    x = model.collaborators.projections[index](model.get_proposal_pos_embed(boxes, num_pos_feats=tiny.DIM // 2))
    reference, states, references = queries.references, [], [queries.references]
    for number, layer in enumerate(model.decoder.layers):
        rows = torch.cat([x, image_queries.queries[number]], 1)
        scaled = torch.cat([reference, image_queries.references], 1)[:, :, None] * levels.valid_ratios.repeat(
            1, 1, 2)[:, None]
        sine = coordinate_to_encoding(scaled[:, :, 0], num_feats=tiny.DIM // 2)
        rows = layer(rows, query_pos=model.decoder.ref_point_head(sine), value=memory, reference_points=scaled,
                     key_padding_mask=levels.mask, spatial_shapes=levels.spatial_shapes,
                     level_start_index=levels.start_index, self_attn_mask=None)
        x = rows[:, :x.shape[1]]
        new = (model.bbox_head.reg_branches[number](x) + inverse_sigmoid(reference, eps=1e-3)).sigmoid()
        reference = new.detach()
        states.append(model.decoder.norm(x))
        references.append(new)
    return torch.stack(states), references


def test_auxiliary_queries_run_as_in_the_fork():
    model, data = tiny.build(tiny.co_dino(tiny.tiny(5, ('res4',)), patch_norm='LN')), tiny.batch(SIZES)
    torch.manual_seed(0)
    for parameter in model.bbox_head.reg_branches.parameters():  # they begin at zero
        nn.init.normal_(parameter, std=0.1)
    with recorded(model, '_decode_auxiliary') as calls:
        tiny.losses(model, data)
    assert len(calls) == 2
    for arguments, (states, references) in calls:
        expected, boxes = officially(model, *arguments)
        torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-4)
        for one, other in zip(references, boxes, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('parts,sources', [(('rpn_head', 'roi_head'), 1), (('dense_head',), 1)])
def test_some_of_the_collaborators_are_enough(parts, sources):
    chosen = {name: value for name, value in tiny.collaborators().items() if name in parts}
    model = tiny.build(tiny.co_dino(collaborators=chosen))
    losses = tiny.losses(model, tiny.batch())
    assert torch.isfinite(total(losses)) and len(model.collaborators.projections) == sources
    assert ('aux1.loss_cls' in losses) is False


@pytest.mark.parametrize('change,message', [
    (dict(rpn_head=None), 'come together'),
    (dict(rpn_head=None, roi_head=None, dense_head=None), 'or all three'),
    (dict(dense_head=dict(tiny.collaborators()['dense_head'], anchor_generator=dict(
        type='mmdet.AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8, 16]))),
     'dense_head has anchors for 2 maps, but gets 4')])
def test_collaborators_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(tiny.co_dino(collaborators=tiny.collaborators() | change))


def test_under_autocast_and_without_denoising():
    model = tiny.build(tiny.co_dino(tiny.tiny(5, ('res4',)), dn_cfg=None))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = tiny.losses(model, tiny.batch(SIZES))
        total(losses).backward()
    assert torch.isfinite(total(losses)) and not any('dn_' in key for key in losses)


def test_two_towers_and_fewer_cells_than_queries():
    model = tiny.build(tiny.co_dino(tiny.tiny(5, ('res4',)), tiny.tiny(0, ('res3',), seed=8), num_queries=30))
    data = tiny.batch(((32, 32), (32, 32)))  # 16 + 4 + 1 cells
    losses = tiny.losses(model, data)
    total(losses).backward()
    assert torch.isfinite(total(losses)) and len(model.patch_levels) == 2
    assert tiny.outputs(model, data)[0].shape[2] == 21 and all(len(found) for found in detections(model, data))


def test_a_plain_dino_checkpoint_loads_but_for_the_new_parts():
    plain = tiny.build(tiny.config()).state_dict()
    model = tiny.build(tiny.co_dino(tiny.tiny(5, ('res4',))), seed=1)
    found = model.load_state_dict(plain, strict=False)
    assert not found.unexpected_keys
    assert {key.split('.')[0] for key in found.missing_keys} <= {'collaborators', 'enhancers', 'patch_levels',
                                                                 'image_queries'}


def test_nms_takes_as_many_pairs_as_queries_and_keeps_the_best():
    head = tiny.build(tiny.co_dino(num_queries=10)).bbox_head
    logits = torch.full((10, 3), -6.0)
    logits[0, 1], logits[1, 1], logits[2, 0] = 3.0, 2.0, 1.0
    boxes = torch.full((10, 4), 0.5)
    boxes[2] = torch.tensor([0.2, 0.2, 0.1, 0.1])
    meta = dict(img_shape=(100, 100), scale_factor=(1.0, 1.0))
    found = head._predict_by_feat_single(logits, boxes, meta)
    assert isinstance(found, InstanceData)
    # the second box lies on the first, so its score decays to nothing; the third stays
    assert found.labels[:2].tolist() == [1, 0]
    torch.testing.assert_close(found.scores[:2], torch.tensor([3.0, 1.0]).sigmoid())
    head.test_cfg = dict(max_per_img=5)
    assert head._predict_by_feat_single(logits, boxes, meta).labels[:3].tolist() == [1, 1, 0]


def test_recorded_and_replaced_leave_no_trace():
    module = nn.Linear(2, 3)
    with recorded(module, 'forward') as calls, replaced(module, 'extra_repr', lambda: 'other'):
        module(torch.zeros(1, 2))
        assert module.extra_repr() == 'other'
    assert len(calls) == 1 and calls[0][1].shape == (1, 3)
    assert not {'forward', 'extra_repr'} & set(vars(module)) and 'in_features=2' in module.extra_repr()
