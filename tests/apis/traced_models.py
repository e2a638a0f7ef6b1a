"""One small model with random weights of every family that can be exported."""
from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import mmdet
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from frozenmm.registry import MODELS

TESTS = Path(__file__).resolve().parents[1]
for folder in ('detection', 'segmentation', 'segmentation/plain_mask'):
    sys.path.append(str(TESTS / folder))


def dino() -> nn.Module:
    import tiny_dino
    return tiny_dino.build(tiny_dino.config(256)).eval()


def enhanced_dino() -> nn.Module:
    import tiny_dino
    return tiny_dino.build(tiny_dino.enhanced(tiny_dino.tiny(5, ('res4', )))).eval()


def deformable_detr() -> nn.Module:
    import tiny_dino
    head = dict(tiny_dino.config()['bbox_head'], type='mmdet.DeformableDETRHead')
    cfg = tiny_dino.config(32, type='mmdet.DeformableDETR', bbox_head=head, as_two_stage=False)
    del cfg['dn_cfg'], cfg['positional_encoding']['temperature']
    cfg['data_preprocessor']['pad_size_divisor'] = 1
    return tiny_dino.build(cfg).eval()


def mask2former() -> nn.Module:
    folder = Path(mmdet.__file__).parent / '.mim/configs/mask2former'
    model = Config.fromfile(folder / 'mask2former_r50_8xb2-lsj-50e_coco-panoptic.py').model
    model.backbone = dict(type='ResNet', depth=18, base_channels=4, stem_channels=8, num_stages=4,
                          out_indices=(0, 1, 2, 3))
    head = model.panoptic_head
    head.update(in_channels=[4, 8, 16, 32], num_things_classes=2, num_stuff_classes=2, num_queries=8, feat_channels=32,
                out_channels=32)
    head.loss_cls.class_weight = [1.0] * 4 + [0.1]
    head.pixel_decoder.norm_cfg.num_groups = 8
    for coder in (head.pixel_decoder.encoder, head.transformer_decoder):
        coder.num_layers = 3
        for options in coder.layer_cfg.values():
            if isinstance(options, dict) and 'embed_dims' in options:
                options.embed_dims = 32
        coder.layer_cfg.ffn_cfg.feedforward_channels = 16
    head.pixel_decoder.positional_encoding.num_feats = head.positional_encoding.num_feats = 16
    model.panoptic_fusion_head.update(num_things_classes=2, num_stuff_classes=2)
    model.test_cfg.update(instance_on=True, object_mask_thr=0.0, iou_thr=0.1, max_per_image=10)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = MODELS.build(model)
    built.init_weights()
    return built.eval()


def fc_clip() -> nn.Module:
    import tiny_segmentors
    return tiny_segmentors.fc_clip()


def plain_mask() -> nn.Module:
    import test_plain_segmentor
    return test_plain_segmentor.model()


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    function.__name__: function for function in (dino, enhanced_dino, deformable_detr, mask2former, fc_clip,
                                                 plain_mask)}
