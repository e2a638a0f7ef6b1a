"""Tiny detectors and towers for the tests of this room."""
from __future__ import annotations

import copy

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from frozenmm.foundation import ImageTower, RawFeatures, TowerInput
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats

DIM = 32


class TinyNetwork(nn.Module):
    """A network with everything that freezing must hold still: batch statistics, dropout, a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 8, stride=8)
        self.norm = nn.BatchNorm2d(12)
        self.drop = nn.Dropout(0.5)
        self.deep = nn.Conv2d(12, 20, 2, stride=2)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.drop(self.norm(self.stem(x))).relu()
        return fine, self.deep(fine) * self.scale


@MODELS.register_module(force=True)
class TinyTower(ImageTower):
    """Maps 'res3' (stride 8, 12 channels) and 'res4' (stride 16, 20 channels); image tokens are cell means."""

    def __init__(self, resize_mode: str = 'squash', size: int = 64, seed: int = 7, **kwargs: object) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = TinyNetwork()
        super().__init__(network, name='tiny', input=TowerInput(ImageStats((0, 0, 0), (255, 255, 255)), 64, 16),
                         channels={'res3': 12, 'res4': 20}, strides={'res3': 8, 'res4': 16}, resize_mode=resize_mode,
                         size=size, **kwargs)

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        fine, deep = network(pixels)
        return RawFeatures(maps={'res3': fine, 'res4': deep})


def config(dim: int = DIM, *, queries: int = 10, classes: int = 3, layers: int = 2, **changes: object) -> dict:
    """A plain tiny DINO config on a stride-8/16/32 backbone; `changes` replace top-level entries."""
    base = dict(
        type='mmdet.DINO', num_queries=queries, with_box_refine=True, as_two_stage=True, num_feature_levels=3,
        data_preprocessor=dict(type='mmdet.DetDataPreprocessor', mean=[123.675, 116.28, 103.53],
                               std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32),
        backbone=dict(type='mmdet.ResNet', depth=18, base_channels=4, stem_channels=8, num_stages=4,
                      out_indices=(1, 2, 3)),
        neck=dict(type='mmdet.ChannelMapper', in_channels=[8, 16, 32], kernel_size=1, out_channels=dim, act_cfg=None,
                  norm_cfg=dict(type='GN', num_groups=8), num_outs=3),
        encoder=dict(num_layers=layers, layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=dim, num_heads=4, num_levels=3, num_points=2, dropout=0.0),
            ffn_cfg=dict(embed_dims=dim, feedforward_channels=32, ffn_drop=0.0))),
        decoder=dict(num_layers=layers, return_intermediate=True, post_norm_cfg=None, layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=dim, num_heads=4, dropout=0.0),
            cross_attn_cfg=dict(embed_dims=dim, num_heads=4, num_levels=3, num_points=2, dropout=0.0),
            ffn_cfg=dict(embed_dims=dim, feedforward_channels=32, ffn_drop=0.0))),
        positional_encoding=dict(num_feats=dim // 2, normalize=True, offset=0.0, temperature=20),
        bbox_head=dict(type='mmdet.DINOHead', num_classes=classes, embed_dims=dim, sync_cls_avg_factor=True,
                       loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
                       loss_bbox=dict(type='mmdet.L1Loss', loss_weight=5.0),
                       loss_iou=dict(type='mmdet.GIoULoss', loss_weight=2.0)),
        dn_cfg=dict(label_noise_scale=0.5, box_noise_scale=1.0, group_cfg=dict(dynamic=True, num_dn_queries=10)),
        train_cfg=dict(assigner=dict(type='mmdet.HungarianAssigner', match_costs=[
            dict(type='mmdet.FocalLossCost', weight=2.0), dict(type='mmdet.BBoxL1Cost', weight=5.0, box_format='xywh'),
            dict(type='mmdet.IoUCost', iou_mode='giou', weight=2.0)])),
        test_cfg=dict(max_per_img=5))
    base.update(changes)
    return copy.deepcopy(base)


def enhanced(*enhancers: dict, dim: int = DIM, **changes: object) -> dict:
    """The same config as an EnhancedDINO."""
    return config(dim, **{'type': 'frozenmm.EnhancedDINO', 'enhancers': list(enhancers), 'patch_groups': 8, **changes})


def tiny(image_queries: int = 0, patch_maps: tuple[str, ...] = (), **tower: object) -> dict:
    """Config of an enhancer with the tiny tower."""
    return dict(tower=dict(type='frozenmm.TinyTower', **tower), image_queries=image_queries,
                patch_maps=list(patch_maps))


def batch(sizes: tuple[tuple[int, int], ...] = ((64, 64), (48, 64)), *, seed: int = 0,
          targets: tuple[int, ...] = (2, 1), classes: int = 3) -> dict:
    """Input of `model.data_preprocessor`: uint8 BGR images and samples with random boxes."""
    generator = torch.Generator().manual_seed(seed)
    samples, images = [], []
    for (height, width), count in zip(sizes, targets):
        images.append(torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8))
        sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width),
                                             scale_factor=(1.0, 1.0)))
        corners = torch.rand(count, 2, 2, generator=generator).sort(1)[0] * torch.tensor([width, height]) * 0.9
        sample.gt_instances = InstanceData(bboxes=(corners + torch.tensor([[0.0], [4.0]])[None]).flatten(1),
                                           labels=torch.randint(0, classes, (count,), generator=generator))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def build(cfg: dict, seed: int = 0) -> nn.Module:
    """The initialised model of a config, always the same for a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS.build(cfg)
        model.init_weights()
    return model


def outputs(model: nn.Module, data: dict) -> tuple[Tensor, Tensor]:
    """Logits and boxes of all layers, in eval mode."""
    model.eval()
    data = model.data_preprocessor(copy.deepcopy(data), False)
    with torch.no_grad():
        return model(**data, mode='tensor')


def losses(model: nn.Module, data: dict, seed: int = 0) -> dict[str, Tensor]:
    """Losses in training mode, with the given noise."""
    model.train()
    data = model.data_preprocessor(copy.deepcopy(data), True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model(**data, mode='loss')


def collaborators(dim: int = DIM, *, classes: int = 3) -> dict:
    """Heads beside a tiny Co-DINO on four maps."""
    strides = [8, 16, 32, 64]
    proposals = dict(nms_pre=40, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0)
    coder = dict(type='mmdet.DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2])
    iou = dict(type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, ignore_iof_thr=-1)
    return dict(
        rpn_head=dict(
            type='mmdet.RPNHead', in_channels=dim, feat_channels=dim,
            anchor_generator=dict(type='mmdet.AnchorGenerator', octave_base_scale=4, scales_per_octave=1,
                                  ratios=[0.5, 1.0, 2.0], strides=strides),
            train_cfg=dict(assigner=iou, allowed_border=-1, pos_weight=-1, sampler=dict(
                type='mmdet.RandomSampler', num=32, pos_fraction=0.5, add_gt_as_proposals=False)),
            test_cfg=proposals),
        roi_head=dict(
            type='mmdet.StandardRoIHead',
            bbox_roi_extractor=dict(type='mmdet.SingleRoIExtractor', out_channels=dim, featmap_strides=[8, 16, 32],
                                    roi_layer=dict(type='RoIAlign', output_size=3, sampling_ratio=0)),
            bbox_head=dict(type='mmdet.Shared2FCBBoxHead', in_channels=dim, fc_out_channels=16, roi_feat_size=3,
                           num_classes=classes, bbox_coder=coder, reg_decoded_bbox=True,
                           loss_bbox=dict(type='mmdet.GIoULoss', loss_weight=2.0)),
            train_cfg=dict(assigner=iou, pos_weight=-1,
                           sampler=dict(type='mmdet.RandomSampler', num=16, pos_fraction=0.25))),
        dense_head=dict(
            type='mmdet.ATSSHead', num_classes=classes, in_channels=dim, feat_channels=dim, stacked_convs=1,
            anchor_generator=dict(type='mmdet.AnchorGenerator', ratios=[1.0], octave_base_scale=8,
                                  scales_per_octave=1, strides=strides),
            bbox_coder=coder, loss_bbox=dict(type='mmdet.GIoULoss', loss_weight=2.0),
            train_cfg=dict(assigner=dict(type='mmdet.ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1)))


def co_dino(*enhancers: dict, dim: int = DIM, **changes: object) -> dict:
    """A tiny Co-DINO with quality focal loss and soft-NMS, as the official one."""
    built = enhanced(*enhancers, dim=dim, type='frozenmm.EnhancedCoDINO', collaborators=collaborators(dim),
                     test_cfg=dict(max_per_img=5, nms=dict(type='soft_nms', iou_threshold=0.8)))
    built['bbox_head']['loss_cls'] = dict(type='mmdet.QualityFocalLoss', use_sigmoid=True, beta=2.0)
    return built | changes
