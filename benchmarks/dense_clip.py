"""Training-free heads against their official procedures restated, on a CPU: time per image and largest difference.

    OMP_NUM_THREADS=2 python benchmarks/dense_clip.py                        # ViT-B/16 sizes, random weights; minutes
    OMP_NUM_THREADS=2 python benchmarks/dense_clip.py --methods sclip naclip --crops 336 --repeats 3

The procedures, as the repositories write them: float32; windows one by one (Trident and RADSeg: all at once);
attention of the changed block, of DINO and of SAM with its whole matrix; the proxy's rows repeated for every head;
maps of windows resized to pixels, padded to the whole image and added. Ours: windows in batches, fused attention
where it is the block's own, maps of all windows joined by one matrix per axis; then the same with all towers in
bfloat16. Rows alternate, the best of the repeats counts, and no text is encoded (rows are drawn at random). A row is
written as soon as it is there; other rows of the file stay.
"""
from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from machine import describe_machine  # noqa: E402

import frozenmm  # noqa: E402, F401  (fills the holes of the installation)
from frozenmm.compat.files import write_whole  # noqa: E402
from frozenmm.foundation.image_towers.clip import STATS  # noqa: E402
from frozenmm.registry import MODELS  # noqa: E402
from frozenmm.segmentation.dense_clip.attention import neighbour_bias  # noqa: E402
from frozenmm.segmentation.dense_clip.model import DenseCLIP  # noqa: E402
from frozenmm.segmentation.dense_clip.trunk import BlockParts  # noqa: E402
from frozenmm.segmentation.dense_clip.windows import WindowPlan, window_plan  # noqa: E402

METHODS = ('sclip', 'naclip', 'proxyclip', 'trident', 'radseg')
SMALL = dict(
    clip=dict(input_resolution=32, patch_size=16, width=32, layers=2, heads=2, output_dim=24),
    dino=dict(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2),
    radio=dict(embed_dim=32, depth=2, num_heads=2, position_side=8, adaptor=(28, 24, 1)),
    sam=dict(img_size=64, embed_dim=16, depth=2, num_heads=2, out_chans=8, window_size=2, global_attn_indexes=(1,)))
LARGE = dict(clip='ViT-B/16', dino='dino_vitb8', radio='c-radio_v3-b', sam='vit_b')


def build(method: str, sizes: dict[str, Any], precision: str) -> DenseCLIP:
    """The model of a method with random weights."""
    def tower(kind: str, size: Any, mode: str = 'none') -> Any:
        return MODELS.build(dict(type=f'frozenmm.{kind}', model=size, weights='random', resize_mode=mode,
                                 precision=precision))

    main = tower('RADIOTower', sizes['radio']) if method == 'radseg' else tower('CLIPTower', sizes['clip'])
    needs_proxy = method in ('proxyclip', 'trident')
    dino = 'dino_vitb16' if method == 'trident' and isinstance(sizes['dino'], str) else sizes['dino']
    return DenseCLIP(main, method, proxy=tower('DINOTower', dino) if needs_proxy else None,
                     sam=tower('SAMTower', sizes['sam'], 'pad') if method == 'trident' else None)


# ---------------------------------------------------------------------------------------------------- as written
def whole_matrix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention with its matrix in memory."""
    return (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1) @ value


def block_as_written(block: nn.Module, x: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """A whole block, residual and feed-forward part included."""
    parts = BlockParts.of(block)
    mixed = attend(*parts.project(parts.norm1(x), 'qkv'))
    x = x + parts.scale1(parts.out(mixed.transpose(1, 2).flatten(2)))
    return x + parts.scale2(parts.mlp(parts.norm2(x)))


def dino_as_written(model: DenseCLIP, pixels: Tensor) -> Tensor:
    """DINO's map of pixels in CLIP's normalisation."""
    tower: Any = model.proxy
    network = tower.network
    (mean, std), (own_mean, own_std) = STATS.tensors(pixels), tower.input.stats.tensors(pixels)
    x = network.patch_embed((pixels * std + mean - own_mean) / own_std)
    grid = (x.shape[2], x.shape[3])
    x = torch.cat([network.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = x + network.positions(grid)
    for block in network.blocks:
        x = block_as_written(block, x, whole_matrix)
    return network.norm(x)[:, 1:].transpose(1, 2).unflatten(2, grid)


def proxy_as_written(maps: Tensor, value: Tensor, grid: tuple[int, int]) -> Tensor:
    """Values (B, heads, N, d) mixed by the proxy's rows, which are repeated for every head."""
    unit = F.normalize(maps.flatten(2), dim=1)
    similarity = torch.einsum('bcm,bcn->bmn', unit, unit)
    similarity = (similarity - similarity.mean() * 1.2) * 3.0
    similarity[similarity < 0] = -torch.inf
    batch, heads, _, width = value.shape
    cells = value.reshape(batch * heads, *grid, width).permute(0, 3, 1, 2)
    cells = F.interpolate(cells, maps.shape[-2:], mode='bilinear').flatten(2).transpose(1, 2)
    rows = similarity[:, None].repeat(1, heads, 1, 1).flatten(0, 1).softmax(-1)
    return torch.bmm(rows, cells).unflatten(0, (batch, heads))


def last_as_written(model: DenseCLIP, method: str, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Patches (B, N, D) after the changed last block, and their grid."""
    network: Any = model.tower.network
    x, grid, prefix = model.trunk.before_last(network, pixels)
    parts = model.trunk.parts(network)
    if method in ('proxyclip', 'trident'):
        value = parts.project(parts.norm1(x), 'qkv')[2][:, :, prefix:]
        maps = dino_as_written(model, pixels)
        mixed = proxy_as_written(maps, value, grid)
        return parts.out(mixed.transpose(1, 2).flatten(2)), (maps.shape[2], maps.shape[3])
    query, key, value = parts.project(parts.norm1(x), 'qkv')
    scale = query.shape[-1] ** -0.5
    if method == 'sclip':
        rows = (query @ query.transpose(-1, -2) * scale).softmax(-1) + (key @ key.transpose(-1, -2) * scale).softmax(-1)
    elif method == 'naclip':
        rows = key @ key.transpose(-1, -2) * scale + neighbour_bias(grid, 5.0, key.shape[2])
        return parts.out((rows.softmax(-1) @ value).transpose(1, 2).flatten(2))[:, prefix:], grid
    else:
        first = parts.out(whole_matrix(query, key, value).transpose(1, 2).flatten(2))
        unit = F.normalize(first.unflatten(2, (query.shape[1], -1)).transpose(1, 2), dim=-1)
        rows = unit @ unit.transpose(-1, -2) * 10
        rows = rows.masked_fill(rows < 0, -torch.inf).softmax(-1)
    x = x + parts.scale1(parts.out((rows @ value).transpose(1, 2).flatten(2)))
    return (x + parts.scale2(parts.mlp(parts.norm2(x))))[:, prefix:], grid


def added(parts: list[Tensor], plan: WindowPlan, ratio: float) -> Tensor:
    """Maps of windows (1, C, h, w) padded to the whole and averaged."""
    height, width = (round(side * ratio) for side in plan.size)
    total, counts = 0, 0
    for part, box in zip(parts, plan.boxes):
        top, left, bottom, right = (round(side * ratio) for side in box)
        padding = (left, width - right, top, height - bottom)
        total = total + F.pad(part, padding)
        counts = counts + F.pad(torch.ones_like(part[:, :1]), padding)
    return total / counts


def sam_as_written(model: DenseCLIP, picture: Tensor, spliced: Tensor) -> Tensor:
    """Trident's aggregation with the attention of all heads, and their similarities, in memory."""
    reader: Any = model.sam
    pixels, shown = reader.place(picture)
    network, patch = reader.tower.network, reader.patch
    x = network.patch_embed(pixels)
    x = x + network.positions((x.shape[1], x.shape[2]))
    for block in network.blocks[:-1]:
        x = block(x)
    last: Any = network.blocks[-1]
    side, heads = x.shape[1], last.attn.heads
    query, key, value = last.attn.qkv(last.norm1(x)).view(side * side, 3, heads, -1).permute(1, 2, 0, 3)
    rows = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2) + last.attn._bias(query[None], side, side)[0]
    rows = rows.softmax(-1).view(heads, side, side, side, side)
    grid = (shown[0] // patch, shown[1] // patch)
    cut = rows[:, :grid[0], :grid[1], :grid[0], :grid[1]].flatten(3).flatten(1, 2)
    unit = F.normalize(value.view(heads, side, side, -1)[:, :grid[0], :grid[1]].flatten(1, 2), dim=-1)
    similarity = unit @ unit.transpose(-1, -2)
    threshold = (1.2 * similarity.mean((0, 2))).clamp(max=0.9)[None, :, None]
    weights = torch.where(similarity > threshold, cut, 0).mean(0)
    weights = weights / weights.sum(-1, keepdim=True)
    cells = F.interpolate(spliced, grid, mode='bilinear').flatten(2)[0].T
    return (weights @ cells).T[None].unflatten(2, grid)


def official(model: DenseCLIP, method: str, image: Tensor, text: Tensor, crop: int, stride: int) -> Tensor:
    """Cosines at the image's size."""
    plan = window_plan((image.shape[2], image.shape[3]), (crop, crop), (stride, stride))
    windows = plan.cut(image[0])
    if method in ('trident', 'radseg'):
        tokens, grid = last_as_written(model, method, windows)
        maps = tokens.transpose(1, 2).unflatten(2, grid)
        spliced = added(list(maps.split(1)), plan, grid[0] / crop)
        if method == 'trident':
            spliced = sam_as_written(model, picture_of(image), spliced)
        else:
            cells = spliced.flatten(2)
            unit = F.normalize(cells, dim=1)
            rows = unit.transpose(1, 2) @ unit
            rows = (rows - rows.mean()) * 10
            rows = rows.masked_fill(rows < 0, -torch.inf).softmax(-1)
            spliced = (cells @ rows.transpose(1, 2)).view_as(spliced)
        return F.interpolate(model.cosines(spliced, text), image.shape[-2:], mode='bilinear')
    parts = []
    for window in windows:
        tokens, grid = last_as_written(model, method, window[None])
        cosines = model.cosines(tokens.transpose(1, 2).unflatten(2, grid), text)
        parts.append(F.interpolate(cosines, window.shape[-2:], mode='bilinear'))
    return added(parts, plan, 1.0)


def picture_of(image: Tensor) -> Tensor:
    """The picture that SAM sees."""
    mean, std = STATS.tensors(image)
    return (image[0] * std + mean).round().clamp(0, 255)


# ---------------------------------------------------------------------------------------------------- measuring
def best(functions: dict[str, Callable[[], Tensor]], repeats: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The least seconds of each, in turns, and what each gives."""
    seconds, found = dict.fromkeys(functions, float('inf')), {}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            with torch.no_grad():
                found[name] = function()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds, found


def measure(method: str, crop: int, args: argparse.Namespace) -> dict[str, float]:
    """One row of the table."""
    sizes = SMALL if args.small else LARGE
    stride = crop // 2 // 16 * 16 or 16
    size = (crop + stride, crop + 2 * stride)
    image = (torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 255).round()
    mean, std = STATS.tensors(image)
    image = (image - mean) / std
    exact, half = build(method, sizes, 'fp32'), build(method, sizes, 'bf16')
    text = F.normalize(torch.randn(args.names, exact.trunk.output_dim, generator=torch.Generator().manual_seed(1)))

    def ours(model: DenseCLIP) -> Tensor:
        return model(image, text, STATS, crop=(crop, crop), stride=(stride, stride), picture=picture_of(image)).at(size)

    seconds, found = best({'official': lambda: official(exact, method, image, text, crop, stride),
                           'exact': lambda: ours(exact), 'bf16': lambda: ours(half)}, args.repeats)
    difference = {name: float((found[name] - found['official']).abs().max()) for name in ('exact', 'bf16')}
    return dict(seconds, exact_speedup=seconds['official'] / seconds['exact'],
                bf16_speedup=seconds['official'] / seconds['bf16'], exact_difference=difference['exact'],
                bf16_difference=difference['bf16'])


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=METHODS)
    parser.add_argument('--crops', nargs='+', type=int, default=[336, 448])
    parser.add_argument('--names', type=int, default=60)
    parser.add_argument('--repeats', type=int, default=2)
    parser.add_argument('--small', action='store_true', help='tiny networks, to try the script')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'dense_clip.json')
    args = parser.parse_args(arguments)
    rows: dict[str, dict[str, float]] = {}
    if args.out.is_file() and not args.small:
        rows = json.loads(args.out.read_text())['rows']
    print(f'{"method":10}{"window":>7}{"official":>10}{"exact":>9}{"bf16":>9}{"exact":>8}{"bf16":>7}   difference')
    for method in args.methods:
        for crop in args.crops:
            row = rows[f'{method} {crop}'] = measure(method, crop, args)
            print(f'{method:10}{crop:7}{row["official"]:8.2f} s{row["exact"]:7.2f} s{row["bf16"]:7.2f} s'
                  f'{row["exact_speedup"]:7.2f}x{row["bf16_speedup"]:6.2f}x   {row["exact_difference"]:.1e} '
                  f'{row["bf16_difference"]:.1e}', flush=True)
            write_whole(args.out, json.dumps(dict(describe_machine(), small=args.small, names=args.names, rows=rows),
                                             indent=1))
    return rows


if __name__ == '__main__':
    main()
