"""What four tasks cost on one pass of a frozen ViT-B: detector, masks, label map and depth, beside each task alone.

Random weights, evaluation mode, one picture; the tasks take turns in one process. Writes results/shared_tower.json.

    python benchmarks/shared_tower.py [--side 512] [--rounds 5] [--threads 1]
"""
from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import frozenmm  # noqa: E402, F401, I001  # before mmdet: it stands in for what mmcv-lite lacks
import mmdet.utils  # noqa: E402
import mmseg.utils  # noqa: E402
from machine import describe_machine  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402

from frozenmm.registry import MODELS  # noqa: E402

TOWER = dict(type='frozenmm.TimmTower', model='vit_base_patch16_224', weights='random', taps=[2, 5, 8, 11])
PREPROCESSOR = dict(type='mmdet.DetDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True,
                    pad_size_divisor=32)


def backbone(*strides: int, channels: int = 128) -> dict:
    """The shared tower's last map as a pyramid."""
    return dict(type='frozenmm.FrozenBackbone', tower='shared', pyramid=dict(strides=list(strides), channels=channels))


TASKS = dict(
    detector=dict(
        type='mmdet.RetinaNet', backbone=backbone(8, 16, 32),
        neck=dict(type='mmdet.ChannelMapper', in_channels=[128] * 3, out_channels=128),
        bbox_head=dict(
            type='mmdet.RetinaHead', num_classes=80, in_channels=128, stacked_convs=2, feat_channels=128,
            anchor_generator=dict(type='mmdet.AnchorGenerator', octave_base_scale=4, scales_per_octave=1, ratios=[1.0],
                                  strides=[8, 16, 32]),
            bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder')),
        test_cfg=dict(nms_pre=1000, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)),
    masks=dict(
        type='frozenmm.PlainMaskSegmentor', tower='shared', taps=[2, 5, 8, 11], stride=16,
        classifier=dict(vocabulary='coco_panoptic_133'),
        mask_generator=dict(channels=192, num_heads=6, num_queries=100, num_blocks=2),
        postprocess=dict(tasks=('panoptic', ))),
    labels=dict(
        type='mmseg.EncoderDecoder', backbone=backbone(8, 16),
        decode_head=dict(type='mmseg.FCNHead', in_channels=128, in_index=0, channels=128, num_convs=1, num_classes=150),
        test_cfg=dict(mode='whole')),
    depth=dict(
        type='mmseg.DepthEstimator', backbone=backbone(4, 8, 16, 32, channels=64),
        decode_head=dict(type='frozenmm.LightDepthHead', in_channels=[64] * 4,
                         loss_decode=dict(type='frozenmm.AffineDepthLoss')),
        test_cfg=dict(mode='whole')))
SCOPES = dict(detector='mmdet', masks='mmdet', labels='mmseg', depth='mmseg')


def build(names: list[str]) -> torch.nn.Module:
    """A SharedTower with these tasks."""
    cfg = Config(dict(model=dict(type='frozenmm.SharedTower', tower=TOWER, data_preprocessor=PREPROCESSOR,
                                 tasks={name: TASKS[name] for name in names}, scopes={n: SCOPES[n] for n in names})))
    return MODELS.build(cfg.model).eval()


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--side', type=int, default=512)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    mmdet.utils.register_all_modules(init_default_scope=False)
    mmseg.utils.register_all_modules(init_default_scope=False)
    torch.manual_seed(0)
    models = {name: build([name]) for name in TASKS} | {'all four': build(list(TASKS))}
    sides = (args.side, args.side)
    data = dict(inputs=[torch.randint(0, 255, (3, *sides), dtype=torch.uint8)],
                data_samples=[DetDataSample(metainfo=dict(img_shape=sides, ori_shape=sides, scale_factor=(1.0, 1.0)))])
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.no_grad():
        for round_ in range(args.rounds + 1):
            for name, model in models.items():
                start = time.process_time()
                model.test_step(data)
                if round_:  # the first one warms up
                    seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    single = [value for name, value in medians.items() if name != 'all four']
    result = dict(machine=describe_machine(), side=args.side, threads=args.threads, cpu_seconds=medians,
                  against_the_dearest_task=medians['all four'] / max(single),
                  against_the_mean_task=medians['all four'] / statistics.mean(single),
                  against_the_tasks_one_by_one=medians['all four'] / sum(single))
    target = ROOT / 'benchmarks/results/shared_tower.json'
    target.write_text(json.dumps(result, indent=1) + '\n')
    print(json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
