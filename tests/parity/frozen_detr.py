"""Adapters of the recorded Frozen-DETR cases: official weights through our converter into our public modules."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData
from torch import Tensor, nn

from frozenmm.convert.frozen_detr import finish, key_map_of
from frozenmm.convert.rename import rename_keys
from frozenmm.detection.frozen_detr import EnhancedDINO, FrozenEnhancer
from frozenmm.detection.frozen_detr.decoder import LayerImageQueries
from frozenmm.detection.frozen_detr.denoising import DenoisingNoise, DenoisingQueries
from frozenmm.detection.frozen_detr.image_queries import image_query_boxes, image_query_references
from frozenmm.detection.frozen_detr.levels import Levels, level_positions
from frozenmm.foundation import ImageTower, TowerInput
from frozenmm.foundation.image_towers.clip import CLIPTower
from frozenmm.foundation.image_towers.dinov2 import DINOv2Tower
from frozenmm.foundation.masked_tokens import multi_token_mask
from frozenmm.structures import ImageStats, TowerFeatures
from parity.cases import Case

NOT_COMPARED = {
    'dino_train_dn': [(r'loss_(xy|hw)(_.*)?', 'the official code only logs it: no part of the total, no gradient')],
}
RANKED = {'dino_eval': ('post_scores', ('post_labels', 'post_boxes'))}


@MMDET_MODELS.register_module(force=True)
class RecordedMaps(nn.Module):
    """A backbone that gives recorded feature maps."""

    maps: list[Tensor] = []

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.maps


class RecordedTower(ImageTower):
    """A tower that is never run: its features are recorded."""

    def __init__(self, channels: dict[str, int], token_channels: int) -> None:
        super().__init__(nn.Identity(), name='recorded', input=TowerInput(ImageStats(), 16, 16), channels=channels,
                         strides=dict.fromkeys(channels, 16), token_channels=token_channels)


def _towers(params: dict) -> list[FrozenEnhancer]:
    """Enhancers of one or two foundation models; the first one gives the image queries."""
    widths = [params.get('patch_token_dim'), params.get('patch_token_dim2')]
    count = params.get('num_class_tokens', 0)
    return [FrozenEnhancer(RecordedTower({'patch': width or 1}, params.get('class_token_dim', 1)),
                           image_queries=count if index == 0 else 0, patch_maps=['patch'] if width else [])
            for index, width in enumerate(widths) if width or (index == 0 and count)]


def _detector(params: dict, **changes: object) -> EnhancedDINO:
    """An EnhancedDINO of the sizes of a case, with the official numerics of training."""
    dim, heads, levels = params['hidden_dim'], params['nheads'], params['num_feature_levels']
    ffn = dict(embed_dims=dim, feedforward_channels=params['dim_feedforward'], ffn_drop=0.0)
    channels = params.get('backbone_channels', [dim])
    weight = params.get('loss_weight', dict(cls=1, bbox=5, giou=2))
    cost = params.get('cost', dict(cls=2, bbox=5, giou=2))
    alpha = params.get('focal_alpha', 0.25)
    encoder_attention = dict(embed_dims=dim, num_heads=heads, num_points=params.get('enc_n_points', 4), dropout=0.0)
    decoder_attention = dict(embed_dims=dim, num_heads=heads, num_points=params.get('dec_n_points', 4), dropout=0.0)
    config = dict(
        num_queries=params.get('num_queries', 1), num_feature_levels=levels, enhancers=_towers(params),
        patch_groups=params.get('gn_groups', dim), backbone=dict(type='mmdet.RecordedMaps'),
        neck=dict(type='mmdet.ChannelMapper', in_channels=channels, kernel_size=1, out_channels=dim, act_cfg=None,
                  bias=True, num_outs=levels,
                  norm_cfg=dict(type='GN', num_groups=params.get('input_proj_gn_groups', dim))),
        encoder=dict(num_layers=params.get('enc_layers', 1),
                     layer_cfg=dict(self_attn_cfg=encoder_attention, ffn_cfg=dict(ffn))),
        decoder=dict(num_layers=params.get('dec_layers', 1), return_intermediate=True, post_norm_cfg=None,
                     layer_cfg=dict(self_attn_cfg=dict(embed_dims=dim, num_heads=heads, dropout=0.0),
                                    cross_attn_cfg=decoder_attention, ffn_cfg=dict(ffn))),
        positional_encoding=dict(num_feats=dim // 2, normalize=True, offset=0.0,
                                 temperature=params.get('pe_temperature', 20)),
        bbox_head=dict(type='frozenmm.EnhancedDINOHead', num_classes=params.get('num_classes', 1), embed_dims=dim,
                       sync_cls_avg_factor=True, tie_branches=True,
                       loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=alpha,
                                     loss_weight=float(weight['cls'])),
                       loss_bbox=dict(type='mmdet.L1Loss', loss_weight=float(weight['bbox'])),
                       loss_iou=dict(type='mmdet.GIoULoss', loss_weight=float(weight['giou']))),
        train_cfg=dict(assigner=dict(type='mmdet.HungarianAssigner', match_costs=[
            dict(type='mmdet.FocalLossCost', weight=cost['cls'], alpha=alpha, eps=1e-8),
            dict(type='mmdet.BBoxL1Cost', weight=cost['bbox'], box_format='xywh'),
            dict(type='mmdet.IoUCost', iou_mode='giou', weight=cost['giou'])])),
        test_cfg=dict(max_per_img=params.get('num_select', 300)), dn_cfg=_denoising(params))
    return EnhancedDINO(**dict(config, **changes))


def _denoising(params: dict) -> dict:
    # the number of groups is recorded; the official rule that chose it has an oddity below 50 queries
    return dict(label_noise_scale=params.get('dn_label_noise_ratio', params.get('label_noise_ratio', 0.5)),
                box_noise_scale=params.get('dn_box_noise_scale', params.get('box_noise_scale', 1.0)),
                group_cfg=dict(dynamic=False, num_groups=params.get('num_dn_group', 1)))


def _load(model: nn.Module, weights: dict[str, Tensor], *, untouched: str = '(?!)') -> None:
    """Load official weights by the converter; parameters that stay as they are must match `untouched`."""
    state, report = rename_keys(weights, key_map_of(weights))
    report.require_all_matched('Frozen-DETR')
    tied = r'bbox_head\.(cls|reg)_branches\..*'  # one module under several names; its first name is always given
    missing, unexpected = model.load_state_dict(finish(state), strict=False)
    missing = [key for key in missing if not re.fullmatch(rf'{tied}|{untouched}|.*frozen_record', key)]
    if missing or unexpected:
        raise ValueError(f'missing {missing}, unexpected {unexpected}')


def _samples(case: Case, *, with_targets: bool) -> tuple[Tensor, list[DetDataSample]]:
    """An empty batch of the recorded size, and its samples."""
    mask = case.inputs['pixel_mask']
    samples = []
    for index, (width, height) in enumerate(case.inputs['img_wh'].tolist()):
        sample = DetDataSample(metainfo=dict(img_shape=(height, width), batch_input_shape=tuple(mask.shape[-2:])))
        boxes, labels = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
        if with_targets:
            boxes = bbox_cxcywh_to_xyxy(case.inputs[f'boxes{index}']) * torch.tensor([width, height] * 2)
            labels = case.inputs[f'labels{index}']
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        if 'orig_hw' in case.inputs:
            tall, wide = case.inputs['orig_hw'][index].tolist()
            sample.set_metainfo(dict(scale_factor=(width / wide, height / tall), ori_shape=(tall, wide)))
        samples.append(sample)
    return torch.zeros(len(samples), 3, *mask.shape[-2:]), samples


def _features(case: Case, model: EnhancedDINO) -> list[TowerFeatures]:
    """Recorded tower features."""
    batch = len(next(iter(case.inputs.values())))
    everything = torch.zeros(batch, 2, dtype=torch.long), torch.zeros(batch, 4)
    result = []
    for index, enhancer in enumerate(model.enhancers):
        maps = {name: case.inputs[f'patch_tokens{index + 1}'] for name in enhancer.patch_maps}
        result.append(TowerFeatures(maps, *everything,
                                    tokens=case.inputs['class_tokens'] if enhancer.image_queries else None))
    return result


@contextmanager
def _recorded_noise(generator: DenoisingQueries, inputs: dict[str, Tensor]) -> Iterator[None]:
    """Denoising with the recorded random numbers."""
    noise = DenoisingNoise(inputs['noise_label_p'], inputs['noise_new_label'], inputs['noise_box_sign'],
                           inputs['noise_box_part'])
    generator.draw_noise = lambda rows, device: noise
    try:
        yield
    finally:
        del generator.draw_noise


def _model_of(case: Case) -> EnhancedDINO:
    model = _detector(case.params)
    _load(model, case.weights)
    model.backbone.maps = [case.inputs[f'feat{index}'] for index in range(len(case.params['backbone_channels']))]
    model.feature_source = lambda samples: _features(case, model)
    return model


def dino_eval(case: Case) -> dict[str, Tensor]:
    model = _model_of(case).eval()
    images, samples = _samples(case, with_targets=False)
    with torch.no_grad():
        logits, boxes = model(images, samples, mode='tensor')
        detections = [sample.pred_instances for sample in model(images, samples, mode='predict')]
        # proposals are handed out in training only; with no targets there is nothing else to differ
        proposals = model.train().forward_transformer(model.extract_feat(images), samples, _features(case, model))
    outputs = dict(pred_logits=logits[-1], pred_boxes=boxes[-1], interm_logits=proposals['enc_outputs_class'],
                   interm_boxes=proposals['enc_outputs_coord'],
                   post_scores=torch.stack([found.scores for found in detections]),
                   post_labels=torch.stack([found.labels for found in detections]),
                   post_boxes=torch.stack([found.bboxes for found in detections]))
    for index in range(len(logits) - 1):
        outputs |= {f'aux{index}_logits': logits[index], f'aux{index}_boxes': boxes[index]}
    return outputs


def dino_train_dn(case: Case) -> dict[str, Tensor]:
    model = _model_of(case).train()
    for feature_map in model.backbone.maps:
        feature_map.requires_grad_()
    images, samples = _samples(case, with_targets=True)
    with _recorded_noise(model.dn_query_generator, case.inputs):
        losses = model(images, samples, mode='loss')
        with torch.no_grad():
            logits, boxes = model(images, samples, mode='tensor')
    total, _ = model.parse_losses(losses)
    total.backward()
    pad = case.params['pad_size']
    outputs = dict(total=total, dn_logits=logits[-1][:, :pad], dn_boxes=boxes[-1][:, :pad],
                   pred_logits=logits[-1][:, pad:], pred_boxes=boxes[-1][:, pad:])
    return outputs | _official_losses(losses, case.params['loss_weight']) | _official_gradients(case, model)


def _official_losses(losses: dict[str, Tensor], weights: dict[str, float]) -> dict[str, Tensor]:
    """Losses by official name, weights taken out."""
    names = dict(loss_cls=('loss_ce', weights['cls']), loss_bbox=('loss_bbox', weights['bbox']),
                 loss_iou=('loss_giou', weights['giou']))
    outputs = {}
    for key, value in losses.items():
        layer, part, name = re.fullmatch(r'(?:d(\d+)\.)?(dn_|enc_)?(loss_\w+)', key).groups()
        official, weight = names[name]
        suffix = {'dn_': '_dn', 'enc_': '_interm', None: ''}[part] + ('' if layer is None else f'_{layer}')
        outputs[official + suffix] = value.squeeze() / weight
    return outputs


def _official_gradients(case: Case, model: EnhancedDINO) -> dict[str, Tensor]:
    """Gradients by official name, through the converter's key map."""
    wanted = [key.removeprefix('grad.') for key in case.expected if key.startswith('grad.')]
    dummies = {key: torch.empty(0) for key in wanted if not key.startswith('in.')}
    names = rename_keys(dummies, key_map_of(case.weights))[1].renamed
    ours = {name: value.grad for name, value in model.named_parameters(remove_duplicate=False)}
    outputs = {f'grad.{key}': case.inputs[key.removeprefix('in.')].grad for key in wanted if key.startswith('in.')}
    for key, name in names.items():
        # the official label table has one row more, for an unknown label; nothing reads it
        unread = ours[name].new_zeros(len(case.weights[key]) - len(ours[name]), *ours[name].shape[1:])
        outputs[f'grad.{key}'] = torch.cat([ours[name], unread])
    return outputs


def encoder_fusion(case: Case) -> dict[str, Tensor]:
    params = case.params
    model = _detector(params)
    _load(model, case.weights, untouched=r'(?!encoder|level_embed|patch_levels).*')
    count = params['num_feature_levels']
    maps = [case.inputs[f'src{index}'] for index in range(count)]
    masks = [case.inputs[f'mask{index}'] for index in range(count)]
    features = _features(case, model)
    with torch.no_grad():
        levels = model.join_levels(maps, masks, features)
        kept = levels.cells(count)
        memory = model.encoder(levels)
        patches = [level(case.inputs[f'patch_tokens{index + 1}']) for index, level in enumerate(model.patch_levels)]
        positions = level_positions([*maps, *patches], [*masks, *[None] * len(patches)], model.positional_encoding)
        outputs = dict(valid_ratios=levels.valid_ratios, valid_ratios_kept=levels.first(count).valid_ratios,
                       memory_kept=model.encoder(levels, keep=kept), memory_patch_tail=memory[:, kept:])
    outputs |= {f'patch_src{index + 1}': patch for index, patch in enumerate(patches)}
    return outputs | {f'pos{index}': position[:1] for index, position in enumerate(positions)}


def decoder_image_query(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    model = _detector(params)
    _load(model, {key if key.startswith('bbox_embed') else f'transformer.decoder.{key}': value
                  for key, value in case.weights.items()}, untouched=r'(?!decoder|image_queries).*')
    memory = inputs['memory']
    levels = Levels(memory, torch.zeros_like(memory), inputs['memory_padding_mask'], inputs['valid_ratios'],
                    [(height, width) for height, width in inputs['spatial_shapes'].tolist()])
    shared = dict(query=inputs['tgt'], memory=memory, levels=levels, reg_branches=model.bbox_head.reg_branches,
                  reference_points=inputs['refpoints_unsigmoid'].sigmoid())
    mask = inputs.get('attn_mask')
    count = len(inputs['tgt'][0])
    with torch.no_grad():
        states, references = model.decoder(**shared, self_attn_mask=None if mask is None else mask[:count],
                                           image_queries=LayerImageQueries(
                                               model.image_queries(inputs['image_query']), inputs['image_box']))
        plain, _ = model.decoder(**shared, self_attn_mask=None if mask is None else mask[:count, :count])
    outputs = {f'hs{index}': state for index, state in enumerate(states)}
    outputs |= {f'ref{index}': reference for index, reference in enumerate(references)}
    return outputs | dict(hs_last_without_image_queries=plain[-1])


def cdn_queries_and_mask(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    generator = DenoisingQueries(params['num_classes'], params['hidden_dim'],
                                 params['num_queries_plus_image_queries'], **_denoising(params))
    state, _ = rename_keys(case.weights, key_map_of(case.weights))
    generator.label_embedding.weight.data = finish(state)['dn_query_generator.label_embedding.weight']
    joined = {name: torch.cat([inputs[f'{name}{index}'] for index in range(len(params['counts']))])
              for name in ('labels', 'boxes')}
    with torch.no_grad(), _recorded_noise(generator, inputs):
        contents, boxes, mask, _ = generator.queries(joined['labels'], bbox_cxcywh_to_xyxy(joined['boxes']),
                                                     joined['boxes'][:, 2:], params['counts'])
    return dict(query_label=contents, query_bbox_unsigmoid=boxes, attn_mask=mask)


def clip_multi_class_token(case: Case) -> dict[str, Tensor]:
    """The four computations that go by this kind, told apart by their inputs."""
    if 'img_wh' in case.inputs:
        return _boxes(case)
    if 'image0' in case.inputs:
        return _preprocess(case)
    return _masked_tokens(case) if 'image' in case.inputs else _masks(case)


def _masked_tokens(case: Case) -> dict[str, Tensor]:
    params, image = case.params, case.inputs['image']
    sizes = {key: params[key] for key in ('input_resolution', 'patch_size', 'width', 'layers', 'heads', 'output_dim')}
    with _weights_file(case) as path:
        tower = CLIPTower(sizes, path, resize_mode='none')
    stats = tower.input.stats  # the recorded image is preprocessed already
    count = params['num_class_tokens']
    features = tower(image, image_stats=stats, num_tokens=count)
    tokens = features.tokens
    return dict(class_tokens=tokens, class_tokens_raw_order=torch.cat([tokens[:, 1:], tokens[:, :1]], 1),
                patch_map=features.map('patch'), attn_mask=multi_token_mask(params['patch_grid'], count),
                plain_class_token=tower(image, image_stats=stats, num_tokens=1).class_token)


def _masks(case: Case) -> dict[str, Tensor]:
    return {f'mask_packed_{count}': torch.from_numpy(np.packbits(multi_token_mask(case.params['patch_grid'], count)))
            for count in case.params['num_class_tokens']}


def _preprocess(case: Case) -> dict[str, Tensor]:
    side = case.params['n_px']
    clip = dict(input_resolution=side, patch_size=side, width=8, layers=1, heads=1, output_dim=8)
    dino = dict(img_size=side, patch_size=side, embed_dim=8, depth=1, num_heads=1)
    towers = dict(clip_input=CLIPTower(clip, 'random', compat=True, quantise=True),
                  clip_input_clamped=CLIPTower(clip, 'random', quantise=True),
                  dinov2_input=DINOv2Tower(dino, 'random', compat=True, quantise=True))
    outputs = {}
    for index in range(case.params['num_images']):
        image = case.inputs[f'image{index}'].permute(2, 0, 1)[None].float()
        for name, tower in towers.items():
            outputs[f'{name}{index}'] = tower.prepare(image, [tuple(image.shape[-2:])], ImageStats())[0][0]
    return outputs


@contextmanager
def _weights_file(case: Case) -> Iterator[Path]:
    """The recorded weights as a file, which is how users give them."""
    with TemporaryDirectory() as folder:
        path = Path(folder, 'weights.pt')
        torch.save(case.weights, path)
        yield path


def _boxes(case: Case) -> dict[str, Tensor]:
    sizes = [(height, width) for width, height in case.inputs['img_wh'].tolist()]
    outputs = {}
    for count in case.params['num_class_tokens']:
        outputs |= {f'xyxy_{count}': image_query_boxes(sizes, count),
                    f'cxcywh_{count}': image_query_references(sizes, count)}
    return outputs


def dinov2_patch_map(case: Case) -> dict[str, Tensor]:
    params, image = case.params, case.inputs['image']
    sizes = {key: params[key] for key in ('patch_size', 'embed_dim', 'depth', 'num_heads', 'mlp_ratio', 'norm_eps',
                                          'num_register_tokens', 'interpolate_offset', 'interpolate_antialias')}
    with _weights_file(case) as path:
        tower = DINOv2Tower(dict(sizes, img_size=params['native_grid'] * params['patch_size']), path,
                            resize_mode='none')
    features = tower(image, image_stats=tower.input.stats, num_tokens=1)
    grid = (params['input_grid'], params['input_grid'])
    return dict(class_token=features.class_token, patch_map=features.map('patch'),
                pos_embed=tower.network.positions(grid))


ADAPTERS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    function.__name__: function for function in (clip_multi_class_token, encoder_fusion, decoder_image_query,
                                                 cdn_queries_and_mask, dino_eval, dino_train_dn, dinov2_patch_map)}
