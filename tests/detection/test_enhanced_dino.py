"""What frozen features do inside EnhancedDINO."""
from __future__ import annotations

import copy

import pytest
import tiny_dino as tiny
import torch
from torch import nn

from frozenmm.structures import ImageStats


def rename(batch):
    """The batch under the argument names of `foundation_features`."""
    return dict(images=batch['inputs'], batch_data_samples=batch['data_samples'])


def given(model, data, change=None):
    """Feed the features of the towers through `feature_source`, changed on the way."""
    batch = model.data_preprocessor(copy.deepcopy(data))
    features = model.foundation_features(**rename(batch))
    if change is not None:
        change(features)
    model.feature_source = lambda samples: features
    return model


@pytest.mark.parametrize('maps', [(), ('res4',), ('res3', 'res4')], ids=lambda maps: f'P{len(maps)}')
@pytest.mark.parametrize('count', [0, 1, 5, 14])
def test_every_number_of_tokens_and_maps_trains(count, maps):
    model = tiny.build(tiny.enhanced(tiny.tiny(count, maps), layers=1))
    losses = tiny.losses(model, tiny.batch())
    sum(value.sum() for value in losses.values()).backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in model.parameters())
    assert len(model.level_embed) == 3 + len(maps)
    assert model.encoder.layers[0].self_attn.num_levels == 3 + len(maps)
    assert model.decoder.layers[0].cross_attn.num_levels == 3


def test_changing_image_tokens_changes_the_decoder_output():
    model, data = tiny.build(tiny.enhanced(tiny.tiny(5))), tiny.batch()
    before = tiny.outputs(given(model, data), data)[0]
    model.feature_source = None
    after = tiny.outputs(given(model, data, lambda features: features[0].tokens[:, 3].add_(1.0)), data)[0]
    # the last token of the pyramid moves all layers, since each attends to it
    assert ((before - after).abs().amax((1, 2, 3)) > 1e-5).all()


def test_changing_a_frozen_map_changes_the_encoder_output():
    model, data = tiny.build(tiny.enhanced(tiny.tiny(0, ('res4',)))), tiny.batch()
    # attention weights begin at zero, so all levels count alike from the first step
    before = tiny.outputs(given(model, data), data)[0]
    model.feature_source = None
    after = tiny.outputs(given(model, data, lambda features: features[0].maps['res4'].mul_(-2)), data)[0]
    assert not torch.allclose(before, after, atol=1e-5)


def full_rows(decoder, query, memory, levels, *, self_attn_mask, reference_points, reg_branches, image_queries):
    """The official way: image queries run through the whole stock layer and are cut off behind it."""
    count = query.shape[1]
    if self_attn_mask is not None:
        square = self_attn_mask.new_zeros(self_attn_mask.shape[1], self_attn_mask.shape[1])
        square[:count] = self_attn_mask
        self_attn_mask = square
    states, references = [], [reference_points]
    for index, layer in enumerate(decoder.layers):
        rows = torch.cat([references[-1].detach(), image_queries.references], 1)
        query = layer(torch.cat([query, image_queries.queries[index]], 1), value=memory, key_padding_mask=levels.mask,
                      query_pos=decoder.query_positions(rows, levels.valid_ratios), self_attn_mask=self_attn_mask,
                      spatial_shapes=levels.spatial_shapes, level_start_index=levels.start_index,
                      reference_points=rows[:, :, None] * levels.valid_ratios[:, None].repeat(1, 1, 1, 2))[:, :count]
        references.append((reg_branches[index](query) + torch.logit(references[-1].detach(), eps=1e-3)).sigmoid())
        states.append(decoder.norm(query))
    return torch.stack(states), torch.stack(references)


@pytest.mark.parametrize('run', [tiny.outputs, tiny.losses], ids=['eval', 'denoising'])
def test_decoder_equals_full_rows_of_image_queries(run):
    model, calls = tiny.build(tiny.enhanced(tiny.tiny(5))), []
    for name, value in model.decoder.named_parameters():
        if 'sampling_offsets.weight' in name or 'attention_weights.weight' in name:
            nn.init.normal_(value, std=0.2)
    model.decoder.register_forward_hook(lambda module, args, inputs, result: calls.append((args, inputs, result)),
                                        with_kwargs=True)
    run(model, tiny.batch())
    arguments, inputs, result = calls[0]
    for got, expected in zip(result, full_rows(model.decoder, *arguments, **inputs), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_last_encoder_layer_skips_frozen_rows_without_changing_the_kept_ones():
    model, data = tiny.build(tiny.enhanced(tiny.tiny(0, ('res3', 'res4')))), tiny.batch()
    batch = model.data_preprocessor(copy.deepcopy(data))
    with torch.no_grad():
        maps = model.extract_feat(batch['inputs'])
        levels = model.join_levels(maps, [None] * 3, model.foundation_features(**rename(batch)))
        keep = levels.cells(3)
        torch.testing.assert_close(model.encoder(levels, keep=keep), model.encoder(levels)[:, :keep],
                                   rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('mode', ['squash', 'center_crop', 'pad', 'none'])
def test_padding_of_the_batch_does_not_change_an_image(mode):
    model = tiny.build(tiny.enhanced(tiny.tiny(5, ('res3', 'res4'), resize_mode=mode)))
    alone, padded = tiny.batch(((48, 64),), targets=(1,)), tiny.batch(((48, 64), (96, 128)), targets=(1, 1))
    padded['inputs'][0] = alone['inputs'][0]
    model.eval()
    results = []
    for data in alone, padded:
        batch = model.data_preprocessor(copy.deepcopy(data))
        features = model.foundation_features(**rename(batch))
        results.append((features[0].tokens[:1], features[0].maps['res4'][:1]))
    if mode == 'none':  # the map grows with the batch; its valid part is the same
        rows, columns = results[0][1].shape[-2:]
        results[1] = (results[0][0], results[1][1][..., :rows, :columns])
    for small, large in zip(*results):
        torch.testing.assert_close(small, large, rtol=1e-5, atol=1e-5)


def test_a_padding_tower_masks_its_padding_in_the_encoder():
    model = tiny.build(tiny.enhanced(tiny.tiny(0, ('res4',), resize_mode='pad')))
    data = tiny.batch(((64, 64), (32, 64)))
    batch = model.data_preprocessor(copy.deepcopy(data))
    features = model.foundation_features(**rename(batch))
    levels = model.join_levels(model.extract_feat(batch['inputs']), [None] * 3, features)
    mask = levels.mask[:, levels.cells(3):].view(2, 4, 4)
    assert not mask[0].any() and mask[1, 2:].all() and not mask[1, :2].any()
    assert levels.valid_ratios[1, 3].tolist() == [1.0, 0.5]


def test_the_tower_sees_the_batch_behind_the_preprocessor():
    model, data = tiny.build(tiny.enhanced(tiny.tiny(1))), tiny.batch()
    batch = model.data_preprocessor(copy.deepcopy(data))
    raw = torch.stack([torch.nn.functional.pad(image.flip(0).float(), (0, 0, 0, 64 - image.shape[1]))
                       for image in data['inputs']])
    expected = model.enhancers[0].tower(raw, [(64, 64), (48, 64)], ImageStats(), num_tokens=1)
    got = model.foundation_features(**rename(batch))[0]
    torch.testing.assert_close(got.tokens, expected.tokens, rtol=1e-4, atol=1e-4)


def test_feature_source_replaces_the_towers():
    model, data = tiny.build(tiny.enhanced(tiny.tiny(5, ('res4',)))), tiny.batch()
    expected = tiny.outputs(model, data)
    given(model, data)
    model.enhancers[0].tower.forward = None  # would fail if it were called
    for got, want in zip(tiny.outputs(model, data), expected, strict=True):
        assert torch.equal(got, want)


def test_a_larger_pyramid_serves_a_smaller_one():
    model, data = tiny.build(tiny.enhanced(tiny.tiny(5))), tiny.batch()
    expected = tiny.outputs(model, data)[0]
    batch = model.data_preprocessor(copy.deepcopy(data))
    sizes = [sample.img_shape for sample in batch['data_samples']]
    more = [model.enhancers[0].tower(batch['inputs'], sizes, model.image_stats, num_tokens=14)]
    model.feature_source = lambda samples: more
    torch.testing.assert_close(tiny.outputs(model, data)[0], expected, rtol=1e-5, atol=1e-6)


def test_two_towers_give_levels_in_their_order():
    model = tiny.build(tiny.enhanced(tiny.tiny(1, ('res4',)), tiny.tiny(0, ('res3',), seed=8)))
    assert [level.projection.in_channels for level in model.patch_levels] == [20, 12]
    assert torch.isfinite(tiny.outputs(model, tiny.batch())[0]).all()


def test_linear_patch_projection_of_the_other_code_base():
    model = tiny.build(tiny.enhanced(tiny.tiny(0, ('res4',)), patch_norm='LN'))
    assert isinstance(model.patch_levels[0].projection, nn.Linear)
    assert torch.isfinite(tiny.outputs(model, tiny.batch())[0]).all()


@pytest.mark.parametrize('count', [0, 5])
def test_training_without_denoising(count):
    model = tiny.build(tiny.enhanced(tiny.tiny(count), dn_cfg=None))
    losses = tiny.losses(model, tiny.batch())
    assert not any('dn_' in key for key in losses)
    sum(value.sum() for value in losses.values()).backward()
    assert all(value.grad is not None for value in model.parameters())


def test_label_embedding_stays_in_the_graph_without_targets():
    model = tiny.build(tiny.enhanced(tiny.tiny(5, ('res4',))))
    losses = tiny.losses(model, tiny.batch(targets=(0, 0)))
    sum(value.sum() for value in losses.values()).backward()
    assert model.dn_query_generator.label_embedding.weight.grad is not None


def test_bfloat16_autocast_trains_with_float32_boxes():
    model = tiny.build(tiny.enhanced(tiny.tiny(5, ('res4',))))
    with torch.autocast('cpu', torch.bfloat16):
        losses = tiny.losses(model, tiny.batch())
        logits, boxes = tiny.outputs(model, tiny.batch())
    assert all(torch.isfinite(value).all() and value.dtype == torch.float32 for value in losses.values())
    assert logits.dtype == boxes.dtype == torch.float32
    exact = tiny.losses(model, tiny.batch())
    for key, value in exact.items():
        torch.testing.assert_close(losses[key], value, rtol=0.15, atol=0.05)


def test_fewer_pairs_than_detections_asked_for():
    model = tiny.build(tiny.enhanced(test_cfg=dict(max_per_img=300)))
    model.eval()
    data = model.data_preprocessor(tiny.batch())
    assert len(model(**data, mode='predict')[0].pred_instances.scores) == 30


def test_tied_branches_are_one_module_and_the_encoder_keeps_its_own():
    head = dict(tiny.config()['bbox_head'], type='frozenmm.EnhancedDINOHead', tie_branches=True)
    model = tiny.build(tiny.enhanced(bbox_head=head))
    branches = model.bbox_head.cls_branches
    assert branches[0] is branches[1] and branches[2] is not branches[0]


def test_weights_without_frozen_maps_load_and_grow():
    plain = tiny.build(tiny.enhanced(), seed=3)
    for name, value in plain.named_parameters():
        if 'sampling_offsets' in name or 'attention_weights' in name:
            nn.init.normal_(value)
    model = tiny.build(tiny.enhanced(tiny.tiny(5, ('res4',))))
    fresh = copy.deepcopy(model.encoder.layers[0].self_attn.sampling_offsets.weight)
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all(key.split('.')[0] in ('image_queries', 'patch_levels', 'enhancers') for key in missing)
    assert torch.equal(model.level_embed[:3], plain.level_embed)
    grown = model.encoder.layers[0].self_attn.sampling_offsets.weight.view(4, 4, 2, 2, -1)
    assert torch.equal(grown[:, :3], plain.encoder.layers[0].self_attn.sampling_offsets.weight.view(4, 3, 2, 2, -1))
    assert torch.equal(grown[:, 3], fresh.view(4, 4, 2, 2, -1)[:, 3])
