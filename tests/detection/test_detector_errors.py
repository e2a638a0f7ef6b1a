"""Bad configs and inputs of EnhancedDINO get an error that says what to do."""
from __future__ import annotations

import copy

import pytest
import tiny_dino as tiny
import torch
from torch import nn

from frozenmm.detection.frozen_detr import compat_record
from frozenmm.detection.frozen_detr.denoising import DenoisingQueries
from frozenmm.detection.frozen_detr.enhancer import FrozenEnhancer
from frozenmm.detection.frozen_detr.image_queries import ImageQueries, image_query_boxes
from frozenmm.detection.frozen_detr.patch_levels import PatchLevel
from frozenmm.foundation.state_records import as_record


def changed(path, value, *enhancers, **changes):
    """The enhanced config with one entry replaced, e.g. 'encoder.layer_cfg.self_attn_cfg.num_levels'."""
    config = tiny.enhanced(*enhancers, **changes)
    *place, last = path.split('.')
    node = config
    for key in place:
        node = node[key]
    node[last] = value
    return config


@pytest.mark.parametrize('config,message', [
    (lambda: tiny.enhanced(tiny.tiny(2)), r'image_queries must be one of \[0, 1, 5, 14, 30\], got 2'),
    (lambda: tiny.enhanced(tiny.tiny(1), tiny.tiny(5)), r'the enhancers \[0, 1\] all give some'),
    (lambda: tiny.enhanced(tiny.tiny(0, ('res5',))), r"tiny has no map 'res5'; .* Did you mean 'res"),
    (lambda: tiny.enhanced(tiny.tiny(0, ('res4',)), patch_groups=5), '5 groups do not divide the 32 channels'),
    (lambda: tiny.enhanced(tiny.tiny(0, ('res4',)), patch_norm='BN'), r"must be one of \['GN', 'LN'\], got 'BN'"),
    (lambda: changed('encoder.layer_cfg.self_attn_cfg.num_levels', 7), 'encoder attention has num_levels=7'),
    (lambda: changed('decoder.layer_cfg.cross_attn_cfg.num_levels', 4, tiny.tiny(0, ('res4',))),
     'decoder attention has num_levels=4'),
    (lambda: changed('positional_encoding.num_feats', 8), 'num_feats must be half of the encoder.s 32 channels, got 8'),
    (lambda: tiny.enhanced(as_two_stage=False), 'DINO needs as_two_stage=True, got False'),
    (lambda: tiny.enhanced(with_box_refine=False), 'DINO needs with_box_refine=True'),
    (lambda: changed('bbox_head.reference_eps', 0.7), 'reference_eps must lie between 0 and 0.5, got 0.7'),
    (lambda: changed('bbox_head.loss_cls', dict(type='mmdet.CrossEntropyLoss')), 'set use_sigmoid=True in loss_cls'),
])
def test_bad_configs_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        tiny.build(config())


def test_an_enhancer_needs_an_image_tower():
    with pytest.raises(TypeError, match='needs an image tower, got ResNet'):
        FrozenEnhancer(dict(type='mmdet.ResNet', depth=18))


def test_a_single_map_name_is_no_list():
    with pytest.raises(TypeError, match=r"write patch_maps=\['res4'\]"):
        FrozenEnhancer(tiny.TinyTower(), patch_maps='res4')


def test_numbers_of_levels_must_agree_with_the_neck():
    config = tiny.enhanced()
    config['neck']['num_outs'] = 4
    with pytest.raises(ValueError, match='the neck gives 4 levels, but num_feature_levels is 3'):
        tiny.outputs(tiny.build(config), tiny.batch())


def test_features_for_another_number_of_towers_are_refused():
    model = tiny.build(tiny.enhanced(tiny.tiny(1)))
    model.feature_source = lambda samples: []
    with pytest.raises(ValueError, match='features of 0 towers, but the detector has 1 enhancers'):
        tiny.outputs(model, tiny.batch())


@pytest.mark.parametrize('tokens,message', [
    (None, 'the features hold no image tokens, but the detector uses 5'),
    (torch.zeros(2, 1, 20), r'5 image queries need image tokens \(B, 5 or more')])
def test_features_with_too_few_tokens_are_refused(tokens, message):
    model = tiny.build(tiny.enhanced(tiny.tiny(5)))
    data = model.data_preprocessor(copy.deepcopy(tiny.batch()))
    features = model.foundation_features(data['inputs'], data['data_samples'])
    features[0].tokens = tokens
    model.feature_source = lambda samples: features
    with pytest.raises(ValueError, match=message):
        tiny.outputs(model, tiny.batch())


def test_images_without_samples_are_refused():
    with pytest.raises(ValueError, match='needs data samples with img_shape'):
        tiny.build(tiny.enhanced())(torch.zeros(1, 3, 64, 64), None, mode='tensor')


def test_an_official_checkpoint_names_the_converter():
    model = tiny.build(tiny.enhanced())
    with pytest.raises(ValueError, match=r'tools/convert.py frozen_detr'):
        model.load_state_dict({'transformer.level_embed': torch.zeros(4, 32)})


def test_official_weights_without_a_place_for_the_neck_bias_are_refused():
    model = tiny.build(tiny.enhanced())
    state = model.state_dict() | {compat_record.RECORD: as_record(compat_record.OFFICIAL)}
    model.load_state_dict(state)
    with pytest.raises(ValueError, match=r'neck.convs.0.conv.bias, .* need neck=dict\(bias=True\)'):
        model.load_state_dict(state | {'neck.convs.0.conv.bias': torch.zeros(32)})


@pytest.mark.parametrize('count', [0, 2])
def test_image_queries_come_in_pyramids(count):
    with pytest.raises(ValueError, match=r'must be one of \[1, 5, 14, 30\]'):
        ImageQueries(8, 8, 1, count=count)
    with pytest.raises(ValueError, match=r'must be one of \[1, 5, 14, 30\]'):
        image_query_boxes([(10, 10)], count)


def test_patch_levels_keep_pytorchs_initialisation():
    level = PatchLevel(12, 32)
    assert isinstance(level.norm, nn.GroupNorm) and level.norm.num_groups == 32
    assert level.projection.weight.abs().max() <= (1 / 12)**0.5


def test_numbers_of_the_head_under_their_old_names():
    old = changed('bbox_head.reference_eps', 1e-3)
    old['bbox_head']['clip_boxes'] = False
    with pytest.warns(FutureWarning, match='clip_boxes=False is now called compat=True'):
        heads = [tiny.build(old).bbox_head, tiny.build(changed('bbox_head.compat', True)).bbox_head]
    assert {(head.reference_eps, head.clip_boxes) for head in heads} == {(1e-3, False)}
    plain = tiny.build(tiny.enhanced()).bbox_head
    assert (plain.reference_eps, plain.clip_boxes) == (1e-5, True)


def test_noise_is_that_of_dino_unless_told_otherwise():
    queries = DenoisingQueries(3, 8, 5, group_cfg=dict(dynamic=False, num_groups=2))
    assert (queries.label_noise_scale, queries.box_noise_scale, queries.num_image_queries) == (0.5, 1.0, 0)
