"""Every detector of mmdet's DETR family with enhancers, and equal to mmdet's without."""
from __future__ import annotations

import copy
from pathlib import Path

import mmdet
import numpy as np
import pytest
import tiny_dino as tiny
import tiny_family as family
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from frozenmm.apis.detection_inferencer import DetectionInferencer
from frozenmm.compat.mmdet_bert import run_on_transformers_5
from frozenmm.detection.frozen_detr.family import EnhancedConditionalDETR
from frozenmm.detection.frozen_detr.self_attention import image_queries_in

every_variant = pytest.mark.parametrize('name', family.DETECTORS)
every_detector = pytest.mark.parametrize('name', [name for name in family.DETECTORS
                                                  if name not in ('deformable-two-stage-plain', 'dab-patterns')])


@pytest.fixture(scope='module')
def bert(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('bert'))
    family.write_bert(folder)
    return folder


def results(model, data):
    """Raw outputs and detections in eval mode."""
    model.eval()
    found = model.data_preprocessor(copy.deepcopy(data), False)
    with torch.no_grad():
        samples = model(**found, mode='predict')
    return [(sample.pred_instances.bboxes, sample.pred_instances.scores, sample.pred_instances.labels)
            for sample in samples]


def gradients(model, data):
    """Losses and the gradients that they give."""
    model.zero_grad()
    losses = {}
    for key, value in tiny.losses(model, data).items():  # DDQ gives lists
        losses |= {f'{key}.{index}': item for index, item in enumerate(value if isinstance(value, list) else [value])}
    sum(value.sum() for value in losses.values()).backward()
    return losses, {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@every_variant
def test_without_enhancers_it_is_mmdets_detector(name, bert):
    plain = tiny.build(family.config(name, plain=True, bert=bert))
    if name == 'grounding':
        run_on_transformers_5(plain.language_model)
    ours = tiny.build(family.config(name, bert=bert), seed=1)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    ours.load_state_dict(plain.state_dict(), strict=True)
    for sizes in ((64, 64), (64, 64)), ((64, 96), (40, 72)):
        data = family.batch(sizes)
        for expected, got in zip(results(plain, data), results(ours, data), strict=True):
            assert all(torch.equal(*pair) for pair in zip(expected, got, strict=True))
        for expected, got in zip(gradients(plain, data), gradients(ours, data), strict=True):
            assert expected.keys() == got.keys() and expected
            assert not [key for key in expected if not torch.equal(expected[key], got[key])]


@every_detector
@pytest.mark.parametrize('count,maps', [(0, ('res3', 'res4')), (1, ()), (5, ('res4',))])
def test_it_trains_and_detects_with_image_queries_and_maps(name, count, maps, bert):
    model = tiny.build(family.config(name, tiny.tiny(count, maps), bert=bert))
    data = family.batch(((64, 96), (40, 72)))
    losses, given = gradients(model, data)
    assert all(torch.isfinite(value).all() for value in [*losses.values(), *given.values()])
    trained = [key for key, _ in model.enhancement.named_parameters()]
    assert trained and not [key for key in trained if f'enhancement.{key}' not in given]
    assert all(len(boxes) == 5 and torch.isfinite(boxes).all() for boxes, _, _ in results(model, data))


@every_detector
def test_it_trains_and_detects_under_autocast(name, bert):
    model = tiny.build(family.config(name, tiny.tiny(14, ('res4',)), tiny.tiny(0, ('res3',), seed=8), bert=bert))
    data = family.batch(((64, 96), (40, 72)))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses, given = gradients(copy.deepcopy(model), data)
        assert all(torch.isfinite(value).all() for value in [*losses.values(), *given.values()])
        assert all(torch.isfinite(scores).all() for _, scores, _ in results(model, data))


@every_detector
def test_tokens_and_maps_change_what_it_sees(name, bert):
    model, data = tiny.build(family.config(name, tiny.tiny(5, ('res4',)), bert=bert)), family.batch()
    batch = model.data_preprocessor(copy.deepcopy(data))
    features = model.foundation_features(batch['inputs'], batch['data_samples'])
    model.feature_source = lambda samples: features
    before = results(model, data)
    features[0].tokens[:, 4] += 1.0
    with_tokens = results(model, data)
    features[0].maps['res4'].mul_(-2)
    with_maps = results(model, data)
    for first, second in (before, with_tokens), (with_tokens, with_maps):
        assert not torch.equal(first[0][1], second[0][1])


@every_detector
def test_a_plain_checkpoint_loads_and_keeps_its_weights(name, bert):
    plain = tiny.build(family.config(name, plain=True, bert=bert)).state_dict()
    model = tiny.build(family.config(name, tiny.tiny(5, ('res4',)), bert=bert), seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items() if torch.is_tensor(value)}
    found = model.load_state_dict(plain, strict=False)
    assert not found.unexpected_keys and all(key.startswith('enhancement.') for key in found.missing_keys)
    grown = [key for key, value in plain.items() if value.shape != before[key].shape]
    assert bool(grown) == (name not in family.SINGLE_SCALE)
    for key, value in plain.items():
        groups = 4 if 'self_attn' in key else 1
        loaded = model.state_dict()[key]
        if key in grown:
            loaded, fresh = (tensor.view(groups, 4, -1) for tensor in (loaded, before[key]))
            assert torch.equal(loaded[:, 3], fresh[:, 3])
            loaded, value = loaded[:, :3], value.view(groups, 3, -1)
        assert torch.equal(loaded, value), key


@every_detector
def test_the_config_given_is_not_changed(name, bert):
    config = family.config(name, tiny.tiny(1, ('res4',)), bert=bert)
    before = copy.deepcopy(config)
    tiny.build(config)
    assert config == before


@pytest.mark.parametrize('name', ['deformable-two-stage', 'ddq', 'grounding'])
def test_a_small_image_gives_as_many_queries_as_it_has_cells(name, bert):
    model = tiny.build(family.config(name, tiny.tiny(1, ('res4',)), bert=bert, num_queries=30))
    data = family.batch(((32, 32), (32, 32)))  # 16 + 4 + 1 cells
    seen = []
    model.decoder.register_forward_hook(lambda module, args, output: seen.append(output[0].shape[2]))
    losses, _ = gradients(model, data)
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(len(boxes) == 5 for boxes, _, _ in results(model, data))
    assert seen[-1] == (30 if name == 'ddq' else 21)  # DDQ fills up with zeros by itself


def test_a_trained_ddq_has_the_weights_of_a_new_one():
    plain, ours = (tiny.build(family.config('ddq', plain=plain)) for plain in (True, False))
    before = ours.state_dict().keys()
    for model in plain, ours, ours:
        gradients(model, family.batch())
    assert ours.state_dict().keys() == before
    assert any(key.startswith('decoder.aux_reg_branches') for key in plain.state_dict())
    ours.load_state_dict(plain.state_dict(), strict=True)


def test_image_queries_leave_the_decoder_as_they_found_it():
    model = tiny.build(family.config('conditional', tiny.tiny(5)))
    assert isinstance(model, EnhancedConditionalDETR)
    layers, rows = model.decoder.layers, [torch.zeros(2, 5, family.DIM)] * 2
    with pytest.raises(RuntimeError, match='inside'), image_queries_in(layers, rows, rows[0]):
        assert all(layer.self_attn._forward_hooks for layer in layers)
        raise RuntimeError('inside')
    assert not any(layer.self_attn._forward_hooks or layer.self_attn._forward_pre_hooks for layer in layers)


def test_masks_grow_by_open_rows_and_columns():
    attention = _Recorder()
    layers = nn.ModuleList([nn.Module()])
    layers[0].self_attn = attention
    query = torch.randn(2, 3, 8)
    with image_queries_in(layers, [torch.ones(2, 1, 8)], torch.full((2, 1, 8), 2.0)):
        for mask in torch.ones(3, 3, dtype=torch.bool), torch.ones(4, 3, 3, dtype=torch.bool):
            output = layers[0].self_attn(query=query, key=query, query_pos=query, attn_mask=mask)
            grown = attention.inputs
            assert torch.equal(output, query) and grown['attn_mask'].shape[-2:] == (4, 4)
            assert grown['attn_mask'][..., :3, :3].all() and not grown['attn_mask'][..., 3].any()
            assert (grown['key'][:, 3] == 1).all() and (grown['query_pos'][:, 3] == 2).all()


class _Recorder(nn.Module):
    """Remembers its inputs and gives the query back."""

    def forward(self, **inputs):
        self.inputs = inputs
        return inputs['query']


def test_two_stage_deformable_detr_is_no_dino():
    config = family.config('deformable-two-stage') | dict(type='frozenmm.EnhancedDINO')
    with pytest.raises(ValueError, match='needs a DINOHead, got DeformableDETRHead; .* '
                                         "type='frozenmm.EnhancedDeformableDETR'"):
        tiny.build(config)


def test_levels_of_the_neck_must_agree():
    config = family.config('deformable')
    config['neck']['num_outs'] = 4
    with pytest.raises(ValueError, match='the neck gives 4 levels, but num_feature_levels is 3'):
        results(tiny.build(config), family.batch())


CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'


@pytest.mark.skipif(not CONFIGS.is_dir(), reason='this mmdet comes without its configs')
@pytest.mark.parametrize('path', ['deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
                                  'deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py',
                                  'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py',
                                  'dab_detr/dab-detr_r50_8xb2-50e_coco.py', 'ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py',
                                  'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
                                  'grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py'])
def test_mmdets_own_configs_take_enhancers(path, bert):
    model = Config.fromfile(CONFIGS / path).model
    model.type, model.enhancers = f'frozenmm.Enhanced{model.type}', [tiny.tiny(5, ('res4',))]
    model.backbone.init_cfg, model.num_queries = None, 30  # no download, a short test
    if 'language_model' in model:
        model.language_model.update(name=bert, add_pooling_layer=False)
        model.encoder.num_cp = 0  # needs fairscale
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = tiny.build(model)
    losses = tiny.losses(built, family.batch(((96, 128), (72, 128))))
    assert all(torch.isfinite(value).all() for item in losses.values()
               for value in (item if isinstance(item, list) else [item]))
    assert len(built.enhancement.patch_levels) == 1 and built.enhancement.image_queries.count == 5


def test_an_inferencer_gives_grounding_dino_the_names_of_the_classes(bert):
    pipeline = [dict(type='mmdet.LoadImageFromFile'), dict(type='mmdet.Resize', scale=(64, 64), keep_ratio=True),
                dict(type='mmdet.PackDetInputs', meta_keys=('ori_shape', 'img_shape', 'scale_factor'))]
    dataset = dict(type='mmdet.CocoDataset', metainfo=dict(classes=('dog', 'cat', 'bird')), pipeline=pipeline)
    inferencer = DetectionInferencer(Config(dict(
        model=family.config('grounding', tiny.tiny(1, ('res4',)), bert=bert), default_scope='mmdet',
        test_dataloader=dict(dataset=dataset))), device='cpu')
    [found] = inferencer(np.zeros((48, 64, 3), np.uint8))
    names = found.pred_instances.label_names
    assert names and set(names) <= {'dog', 'cat', 'bird'}
