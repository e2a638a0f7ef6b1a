"""A warm epoch with cached features against an uncached one: time of a training step, and the bound it can reach.

    OMP_NUM_THREADS=2 python benchmarks/feature_cache.py [--rows vit-b-linear lite0-fusioner ...]

Per row, in one process, alternating: a step with the tower, a step with features read from disk, the tower alone, and
the head alone (features at hand). The bound is (tower + head) / head. Weights are random: they do not matter for time.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import frozenmm  # noqa: E402, F401  (fills the holes of the installation before mmseg is imported)
from frozenmm.registry import MODELS  # noqa: E402

VIT = dict(type='frozenmm.TimmTower', model='vit_base_patch16_224', weights='random')
LITE = dict(type='frozenmm.EfficientNetLiteTower', weights='random')
TEXT = dict(type='frozenmm.CLIPTextTower', weights='random', model=dict(width=64, layers=1, heads=2, output_dim=384))


def fcn(channels: int, width: int, convs: int) -> dict:
    return dict(type='FCNHead', in_channels=channels, in_index=-1, channels=width, num_convs=convs, kernel_size=3,
                concat_input=False, num_classes=21, align_corners=False)


def fusioner(channels: list[int] | int, width: int, layers: int, decoder: str, stride: int) -> dict:
    return dict(type='frozenmm.FusionerHead', in_channels=channels, text=TEXT, channels=width, num_layers=layers,
                templates='simple', store_text=False, decoder=dict(type=f'frozenmm.{decoder}'), mask_stride=stride,
                vocabulary=['cat', 'dog'])


ROWS = {
    'vit-b-linear': (VIT, 'EncoderDecoder', fcn(768, 768, 0), 256),
    'vit-b-fcn': (VIT, 'EncoderDecoder', fcn(768, 256, 2), 256),
    'lite0-uper': (dict(LITE, out_maps=['res2', 'res3', 'res4', 'res5']), 'EncoderDecoder', dict(
        type='UPerHead', in_channels=[24, 40, 112, 320], in_index=[0, 1, 2, 3], channels=128, num_classes=21,
        align_corners=False), 256),
    'lite0-fusioner-light': (dict(LITE, out_maps=['res4', 'res5']), 'frozenmm.FusionerSegmentor',
                             fusioner([112, 320], 128, 2, 'LightFusionerDecoder', 4), 256),
    'vit-b-fusioner-light': (VIT, 'frozenmm.FusionerSegmentor', fusioner(768, 512, 12, 'LightFusionerDecoder', 4), 224),
    'vit-b-fusioner': (VIT, 'frozenmm.FusionerSegmentor', fusioner(768, 512, 12, 'FusionerDecoder', 1), 224),
}


def build(row: str, folder: str | None) -> nn.Module:
    tower, kind, head, _ = ROWS[row]
    if folder is not None:
        tower = dict(type='frozenmm.CachedTower', folder=folder, tower=tower)
    init_default_scope('mmseg')
    return MODELS.build(dict(
        type=kind, backbone=dict(type='frozenmm.FrozenBackbone', model=dict(tower)), decode_head=dict(head),
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True),
        train_cfg=dict(), test_cfg=dict(mode='whole'))).train()


def batches(side: int, count: int, size: int) -> list[tuple[torch.Tensor, list]]:
    from mmseg.structures import SegDataSample
    generator = torch.Generator().manual_seed(0)
    result = []
    for _ in range(count):
        images = torch.randn(size, 3, side, side, generator=generator)
        samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, side, side), generator=generator)),
                                 metainfo=dict(img_shape=(side, side))) for _ in range(size)]
        result.append((images, samples))
    return result


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, samples: list) -> None:
    loss, _ = model.parse_losses(model.loss(images, samples))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def head_step(model: nn.Module, optimizer: torch.optim.Optimizer, maps: tuple, samples: list) -> None:
    loss, _ = model.parse_losses(model.decode_head.loss(maps, samples, None))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def measure(row: str, count: int, size: int, repeats: int) -> dict[str, float]:
    data = batches(ROWS[row][3], count, size)
    with tempfile.TemporaryDirectory() as folder:
        plain, cached = build(row, None), build(row, folder)
        optimizers = {id(model): torch.optim.AdamW(model.parameters(), lr=1e-4) for model in (plain, cached)}
        for images, samples in data:  # the cold epoch fills the cache
            step(cached, optimizers[id(cached)], images, samples)
        cached.backbone.tower.cache.flush()
        times: dict[str, list[float]] = {key: [] for key in ('uncached', 'cached', 'tower', 'head')}
        for _ in range(repeats):
            for images, samples in data:
                times['uncached'].append(seconds(lambda: step(plain, optimizers[id(plain)], images, samples)))  # noqa: B023
                times['cached'].append(seconds(lambda: step(cached, optimizers[id(cached)], images, samples)))  # noqa: B023
                times['tower'].append(seconds(lambda: plain.extract_feat(images)))  # noqa: B023
                maps = plain.extract_feat(images)
                times['head'].append(seconds(lambda: head_step(plain, optimizers[id(plain)], maps, samples)))  # noqa: B023
        megabytes = cached.backbone.tower.cache.size / (count * size) / 1e6
    best = {key: min(values) for key, values in times.items()}
    return dict(best, megabytes_per_image=megabytes, speedup=best['uncached'] / best['cached'],
                bound=(best['tower'] + best['head']) / best['head'])


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', nargs='+', default=list(ROWS), choices=list(ROWS))
    parser.add_argument('--batches', type=int, default=4)
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'feature_cache.json')
    args = parser.parse_args(arguments)
    print(f'{"row":22}{"uncached s":>11}{"cached s":>10}{"tower s":>9}{"head s":>8}{"speed-up":>10}{"bound":>7}'
          f'{"MB/image":>10}')
    results = {}
    for row in args.rows:
        result = results[row] = measure(row, args.batches, args.batch_size, args.repeats)
        print(f'{row:22}{result["uncached"]:11.3f}{result["cached"]:10.3f}{result["tower"]:9.3f}{result["head"]:8.3f}'
              f'{result["speedup"]:9.2f}x{result["bound"]:6.2f}x{result["megabytes_per_image"]:10.2f}', flush=True)
    revision = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    part = args.out.with_suffix('.part')
    part.write_text(json.dumps(dict(machine=platform.machine(), cores=os.cpu_count(), threads=torch.get_num_threads(),
                                    torch=torch.__version__, commit=revision, rows=results), indent=1))
    part.replace(args.out)
    return results


if __name__ == '__main__':
    main()
