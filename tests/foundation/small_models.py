"""Small mmdet and mmseg models with a frozen tower as backbone or beside the neck, and batches for them."""
from __future__ import annotations

import torch
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from random_tower import RandomTower  # noqa: F401  (registered by its import)
from torch import nn

from frozenmm.registry import MODELS

SIDE = 64
KINDS = ('mmdet_backbone', 'mmdet_neck', 'mmseg_backbone')
NORMALISE = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)


def tower(seed: int = 0) -> dict:
    return dict(type='frozenmm.RandomTower', widths=(8, 12, 16), stride=8, seed=seed)


def config(kind: str, seed: int = 0) -> dict:
    """The model's config; `seed` decides the frozen weights."""
    frozen = dict(type='frozenmm.FrozenBackbone', tower=tower(seed))
    if kind == 'mmseg_backbone':
        return dict(
            type='EncoderDecoder', data_preprocessor=dict(type='SegDataPreProcessor', **NORMALISE, size=(SIDE, SIDE)),
            backbone=frozen, decode_head=dict(
                type='FCNHead', in_channels=8, in_index=0, channels=8, num_convs=1, num_classes=3,
                norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
            train_cfg=dict(), test_cfg=dict(mode='whole'))
    neck = dict(type='mmdet.FPN', in_channels=[8, 12, 16], out_channels=16, num_outs=3)
    if kind == 'mmdet_neck':
        frozen = dict(type='ResNet', depth=18, base_channels=8, num_stages=4, out_indices=(1, 2, 3), norm_eval=False)
        neck = dict(type='frozenmm.FrozenFeatureNeck', neck=dict(neck, in_channels=[16, 32, 64]), tower=tower(seed))
    return dict(
        type='RetinaNet', data_preprocessor=dict(type='DetDataPreprocessor', **NORMALISE, pad_size_divisor=32),
        backbone=frozen, neck=neck, bbox_head=dict(
            type='RetinaHead', num_classes=3, in_channels=16, stacked_convs=1, feat_channels=16,
            anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1, ratios=[1.0],
                                  strides=[8, 16, 32]),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder')),
        train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.4, neg_iou_thr=0.3, min_pos_iou=0),
                       sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1),
        test_cfg=dict(nms_pre=50, score_thr=0.01, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10))


def scope(kind: str) -> str:
    return kind.partition('_')[0]


def build(kind: str, seed: int = 0) -> nn.Module:
    """The model with reproducible weights, in its own package's scope."""
    if scope(kind) == 'mmdet':
        from mmdet.utils import register_all_modules
    else:
        from mmseg.utils import register_all_modules
    register_all_modules(init_default_scope=False)
    init_default_scope(scope(kind))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.build(config(kind, seed))
        model.init_weights()
    return model


def sample(kind: str, seed: int) -> dict:
    """One image with one object, as a data set gives it."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 255, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    meta = dict(img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE), scale_factor=(1.0, 1.0), img_id=seed)
    if scope(kind) == 'mmdet':
        from mmdet.structures import DetDataSample
        truth = DetDataSample(metainfo=meta)
        truth.gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 40.0, 40.0]]), labels=torch.tensor([1]))
    else:
        from mmseg.structures import SegDataSample
        truth = SegDataSample(metainfo=meta)
        truth.gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, SIDE, SIDE), generator=generator))
    return dict(inputs=image, data_samples=truth)


def batch(kind: str, seed: int = 0) -> dict:
    """Two samples, as a data loader gives them."""
    samples = [sample(kind, seed), sample(kind, seed + 1)]
    return {key: [one[key] for one in samples] for key in samples[0]}
