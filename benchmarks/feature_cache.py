"""A warm epoch with cached features against an uncached one: time of a training step, and the bound it can reach.

    OMP_NUM_THREADS=2 python benchmarks/feature_cache.py [--rows vit-b-linear lite0-fusioner-light ...]

Per row, in one process, alternating: a step with the tower, a step with features read from disk, the tower alone, and
the head alone (features at hand). The bound is (tower + head) / head. Weights are random: they do not matter for time.
A batch is at hand as the data loader gives it; what comes before it costs the same with and without a cache. A row is
repeated for about `--seconds` (twice at least), is stored when it ends, and is not repeated by a later call, unless
`--again`.
"""
from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from machine import describe_machine  # noqa: E402

import frozenmm  # noqa: E402, F401  (fills the holes of the installation before mmseg is imported)
from frozenmm.compat.files import write_whole  # noqa: E402
from frozenmm.foundation.image_tower import ImageTower  # noqa: E402
from frozenmm.registry import MODELS  # noqa: E402

VIT = dict(type='frozenmm.TimmTower', model='vit_base_patch16_224', weights='random')
LITE = dict(type='frozenmm.EfficientNetLiteTower', weights='random')
TEXT = dict(type='frozenmm.CLIPTextTower', weights='random', model=dict(width=64, layers=1, heads=2, output_dim=384))


def fcn(channels: int, width: int, convs: int) -> dict:
    return dict(type='FCNHead', in_channels=channels, in_index=-1, channels=width, num_convs=convs, kernel_size=3,
                concat_input=False, num_classes=21, align_corners=False)


def fusioner(channels: list[int] | int, width: int, layers: int, decoder: str, stride: int) -> dict:
    return dict(type='frozenmm.FusionerHead', in_channels=channels, text_tower=TEXT, channels=width,
                fusion=dict(num_layers=layers), masks=dict(stride=stride), templates='simple', store_text=False,
                decoder=dict(type=f'frozenmm.{decoder}'), vocabulary=['cat', 'dog'])


def segmentor(tower: dict, kind: str, head: dict, side: int) -> tuple[dict, int]:
    return dict(
        type=kind, backbone=dict(type='frozenmm.FrozenBackbone', tower=tower), decode_head=head,
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True),
        train_cfg=dict(), test_cfg=dict(mode='whole')), side


def quickstart(name: str) -> tuple[dict, int]:
    return Config.fromfile(ROOT / 'configs' / 'quickstart' / f'{name}.py', import_custom_modules=False).model, 160


ROWS: dict[str, Callable[[], tuple[dict, int]]] = {
    'vit-b-linear': lambda: segmentor(VIT, 'EncoderDecoder', fcn(768, 768, 0), 256),
    'vit-b-fcn': lambda: segmentor(VIT, 'EncoderDecoder', fcn(768, 256, 2), 256),
    'lite0-uper': lambda: segmentor(dict(LITE, out_maps=['res2', 'res3', 'res4', 'res5']), 'EncoderDecoder', dict(
        type='UPerHead', in_channels=[24, 40, 112, 320], in_index=[0, 1, 2, 3], channels=128, num_classes=21,
        align_corners=False), 256),
    'vit-b-uper': lambda: segmentor(VIT, 'EncoderDecoder', dict(
        type='UPerHead', in_channels=[768], in_index=[0], channels=128, num_classes=21, align_corners=False), 256),
    'lite0-fusioner-light': lambda: segmentor(
        dict(LITE, out_maps=['res4', 'res5']), 'frozenmm.FusionerSegmentor',
        fusioner([112, 320], 128, 2, 'LightFusionerDecoder', 4), 256),
    'vit-b-fusioner-light': lambda: segmentor(
        VIT, 'frozenmm.FusionerSegmentor', fusioner(768, 512, 12, 'LightFusionerDecoder', 4), 224),
    'vit-b-fusioner': lambda: segmentor(
        VIT, 'frozenmm.FusionerSegmentor', fusioner(768, 512, 12, 'FusionerDecoder', 1), 224),
    'quickstart-frozen': lambda: quickstart('dino_frozen_scenes'),
    'quickstart-enhanced': lambda: quickstart('dino_enhanced_scenes'),
}


def with_towers(node: Any, folder: str | None) -> Any:
    """The config with its towers plain, or cached in a folder."""
    if isinstance(node, (list, tuple)):
        return [with_towers(value, folder) for value in node]
    if not isinstance(node, dict):
        return node
    kind = str(node.get('type', ''))
    if kind.endswith('RememberingTower'):
        return with_towers(dict(node['tower']), folder)
    if kind.endswith('Tower') and not kind.endswith('TextTower'):
        return dict(node) if folder is None else dict(type='frozenmm.CachedTower', folder=folder, tower=dict(node))
    return {key: with_towers(value, folder) for key, value in node.items()}


def build(row: str, folder: str | None) -> nn.Module:
    config, _ = ROWS[row]()
    init_default_scope('mmdet' if 'DINO' in config['type'] else 'mmseg')
    torch.manual_seed(0)
    return MODELS.build(with_towers(dict(config), folder)).train()


def tower_of(model: nn.Module) -> ImageTower:
    (tower, ) = (module for module in model.modules() if isinstance(module, ImageTower))
    return tower


def batches(row: str, count: int, size: int) -> list[tuple[Tensor, list]]:
    config, side = ROWS[row]()
    generator = torch.Generator().manual_seed(0)
    sample = boxes if 'DINO' in config['type'] else label_map
    return [(torch.randn(size, 3, side, side, generator=generator), [sample(side, generator) for _ in range(size)])
            for _ in range(count)]


def label_map(side: int, generator: torch.Generator) -> Any:
    from mmseg.structures import SegDataSample
    return SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, side, side), generator=generator)),
                         metainfo=dict(img_shape=(side, side)))


def boxes(side: int, generator: torch.Generator) -> Any:
    from mmdet.structures import DetDataSample
    corners = torch.rand(4, 2, generator=generator) * side / 2
    sides = 16 + torch.rand(4, 2, generator=generator) * (side / 2 - 16)
    shape = dict(img_shape=(side, side), batch_input_shape=(side, side), ori_shape=(side, side), pad_shape=(side, side))
    return DetDataSample(metainfo=shape, gt_instances=InstanceData(
        bboxes=torch.cat([corners, corners + sides], 1), labels=torch.randint(0, 8, (4, ), generator=generator)))


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, samples: list) -> None:
    loss, _ = model.parse_losses(model.loss(images, samples))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@contextmanager
def recorded(tower: ImageTower) -> Iterator[list[tuple[tuple, dict, object]]]:
    """Arguments and results of a tower's calls."""
    calls: list[tuple[tuple, dict, object]] = []
    handle = tower.register_forward_hook(lambda _, args, options, result: calls.append((args, options, result)),
                                         with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def without_tower(model: nn.Module, result: object, function: Callable[[], object]) -> float:
    """Seconds of a function in which the model's tower answers at once."""
    tower = tower_of(model)
    tower.forward = lambda *_, **__: result  # type: ignore[method-assign]
    try:
        return seconds(function)
    finally:
        del tower.forward


def measure(row: str, count: int, size: int, limit: float) -> dict[str, float]:
    data = batches(row, count, size)
    with tempfile.TemporaryDirectory() as folder:
        plain, cached = build(row, None), build(row, folder)
        optimizers = {id(model): torch.optim.AdamW(model.parameters(), lr=1e-4) for model in (plain, cached)}
        calls = []
        for images, samples in data:  # the cold epoch fills the cache
            step(cached, optimizers[id(cached)], images, samples)
            with recorded(tower_of(plain)) as made:
                step(plain, optimizers[id(plain)], images, samples)
            calls += made
        cache = tower_of(cached).cache
        cache.flush()
        times: dict[str, list[float]] = {key: [] for key in ('uncached', 'cached', 'tower', 'head')}
        start, rounds = time.perf_counter(), 0
        while rounds < 2 or time.perf_counter() - start < limit * rounds / (rounds + 1):  # another round fits
            rounds += 1
            for (images, samples), (arguments, options, result) in zip(data, calls):
                def once(model: nn.Module, images: Tensor = images, samples: list = samples) -> None:
                    step(model, optimizers[id(model)], images, samples)
                times['uncached'].append(seconds(lambda: once(plain)))
                times['cached'].append(seconds(lambda: once(cached)))
                times['tower'].append(seconds(lambda: tower_of(plain)(*arguments, **options)))  # noqa: B023
                times['head'].append(without_tower(plain, result, lambda: once(plain)))
        megabytes = cache.size / (count * size) / 1e6
    best = {key: min(values) for key, values in times.items()}
    return dict(best, batch=size, batches=count, rounds=rounds, megabytes_per_image=megabytes,
                speedup=best['uncached'] / best['cached'],
                bound=(best['tower'] + best['head']) / best['head'])


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', nargs='+', default=list(ROWS), choices=list(ROWS))
    parser.add_argument('--batches', type=int, default=4)
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--seconds', type=float, default=20, help='of measuring, for each row')
    parser.add_argument('--again', action='store_true', help='measure rows anew that are in the result file')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'feature_cache.json')
    args = parser.parse_args(arguments)
    rows = json.loads(args.out.read_text())['rows'] if args.out.is_file() else {}
    for row in args.rows:
        if row not in rows or args.again:
            print(f'measuring {row}', flush=True)
            rows[row] = dict(measure(row, args.batches, args.batch_size, args.seconds), machine=describe_machine())
            rows = {name: rows[name] for name in ROWS if name in rows}
            write_whole(args.out, json.dumps(dict(rows=rows), indent=1) + '\n')
    print(f'{"row":22}{"uncached s":>11}{"cached s":>10}{"tower s":>9}{"head s":>8}{"speed-up":>10}{"bound":>7}'
          f'{"of bound":>10}{"MB/image":>10}')
    for row, result in rows.items():
        print(f'{row:22}{result["uncached"]:11.3f}{result["cached"]:10.3f}{result["tower"]:9.3f}{result["head"]:8.3f}'
              f'{result["speedup"]:9.2f}x{result["bound"]:6.2f}x{result["speedup"] / result["bound"]:10.2f}'
              f'{result["megabytes_per_image"]:10.2f}')
    return rows


if __name__ == '__main__':
    main()
