"""Deformable attention against mmcv's torch path (part `attention` of `benchmarks/ops.py`).

Every row measures both sides by turns in one process and compares the least times. The roofline columns relate the
forward time to the bytes that have to move: `floor` is reading every input and writing every output once at the
measured copy bandwidth, as a share of the time; `gather` the rate at which the four rows of every sample are read (they
come from caches, so it may exceed that bandwidth). `extra` is the peak memory beyond inputs and output as a share of
them. bf16 rows compare with mmcv's path in float32, since it knows no bfloat16.

What bounds the CPU forward, measured on the machine of `results/ops_attention.json` (2 MiB of second-level cache a
core; one core reads 30 GB/s from the third level): with Q=5440 a packed head stays in the second level, which gives
random rows at up to 140 GB/s. With Q=300 all 5.6 MB of values come out of the third level and are used 3.5 times: 0.19
ms for reading them in order, 0.42 ms for as many random rows, 0.13 ms for the arithmetic on rows that are near already.
The kernel takes 0.34 to 0.50 ms with AVX-512 and 0.57 to 0.62 ms with AVX2, depending on how busy the shared third
level is, against 4.1 to 4.9 ms of mmcv's path: 8.5 to 12 and 7 to 8 times. Other designs took longer with AVX-512:
packing the heads 0.65 ms, software prefetch of the corner rows 0.45 to 0.55 ms, head after head in the tensor 0.40 to
0.48 ms (rows of one head share an eighth of the cache sets).
"""
from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from ops_timing import by_turns, copy_bandwidth, extra_peak_bytes, instruction_sets, with_cpu
from torch import Tensor

from frozenmm.compat.mmcv_ext import compiled_extension
from frozenmm.ops import ms_deform_attn

PYRAMID = ((64, 64), (32, 32), (16, 16), (8, 8))
SMALL = ((28, 28), (14, 14), (7, 7))
Operator = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass
class Setting:
    """Sizes of one row; `local` samples near the query's own cell, as trained models do."""

    name: str
    batch: int
    shapes: tuple[tuple[int, int], ...]
    queries: int
    channels: int
    local: bool
    threads: int = 1
    dtype: torch.dtype = torch.float32


ON_CPU = (
    Setting('Q=300', 1, PYRAMID, 300, 32, False),
    Setting('Q=300 local', 1, PYRAMID, 300, 32, True),
    Setting('Q=5440', 1, PYRAMID, 5440, 32, False),
    Setting('Q=5440 local', 1, PYRAMID, 5440, 32, True),
    Setting('Q=5440 local', 1, PYRAMID, 5440, 32, True, threads=2),
    Setting('Q=300 bf16', 1, PYRAMID, 300, 32, False, dtype=torch.bfloat16),
    Setting('Q=5440 bf16', 1, PYRAMID, 5440, 32, False, dtype=torch.bfloat16),
    Setting('B=16 D=16 Q=S', 16, SMALL, 1029, 16, True),
    Setting('B=16 D=16 Q=300', 16, SMALL, 300, 16, False),
)
ON_CUDA = tuple(Setting(f'B={b} Q={q} {dtype}'.replace('torch.', ''), b, PYRAMID, q, 32, True, dtype=dtype)
                for b in (1, 8) for q in (300, 5440) for dtype in (torch.float32, torch.float16, torch.bfloat16))


def make_inputs(setting: Setting, heads: int = 8, points: int = 4) -> tuple[Tensor, ...]:
    """value, shapes, starts, locations, weights of one setting."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor(setting.shapes)
    areas, levels = sizes.prod(1), len(setting.shapes)
    shape = (setting.batch, setting.queries, heads, levels, points)
    if setting.local:
        axes = [((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w) for h, w in setting.shapes]
        centres = torch.cat([torch.cartesian_prod(y, x).flip(-1) for y, x in axes])
        centres = centres[torch.linspace(0, len(centres) - 1, setting.queries).long()]
        spread = torch.randn(*shape, 2, generator=generator) * 2 / sizes.flip(-1)[:, None]
        locations = centres[None, :, None, None, None] + spread
    else:
        locations = torch.rand(*shape, 2, generator=generator)
    weights = torch.rand(shape, generator=generator).flatten(-2).softmax(-1).view(shape)
    value = torch.randn(setting.batch, int(areas.sum()), heads, setting.channels, generator=generator)
    return value.to(setting.dtype), sizes, areas.cumsum(0) - areas, locations, weights


def mmcv_call(device: str) -> Operator:
    """The CUDA operator of mmcv where it is compiled, else its torch path; arguments as those of our operator."""
    # here, not above: importing frozenmm first is what makes mmcv without compiled operators importable
    from mmcv.ops import multi_scale_deform_attn as mmcv
    if device == 'cuda' and compiled_extension() is not None:
        return lambda value, shapes, starts, points, weights: mmcv.MultiScaleDeformableAttnFunction.apply(
            value, shapes, starts, points, weights, 64)
    return lambda value, shapes, starts, points, weights: mmcv.multi_scale_deformable_attn_pytorch(
        value, shapes, points, weights)


def measure(setting: Setting, seconds: float, device: str, kernels: str | None) -> dict[str, object]:
    """One row of the table; `kernels` is the CPU's instruction set."""
    theirs = mmcv_call(device)
    torch.set_num_threads(setting.threads)
    value, shapes, starts, locations, weights = (t.to(device) for t in make_inputs(setting))
    grad = torch.randn(setting.batch, setting.queries, value.shape[2] * value.shape[3]).to(value)
    ours_leaves = [t.clone().requires_grad_() for t in (value, locations, weights)]
    their_leaves = [t.float().clone().requires_grad_() for t in (value, locations, weights)]

    def forward(leaves: list[Tensor], function: Operator) -> Tensor:
        with torch.no_grad():
            return function(leaves[0], shapes, starts, *leaves[1:])

    def train(leaves: list[Tensor], function: Operator) -> object:
        out = function(leaves[0], shapes, starts, *leaves[1:])
        return torch.autograd.grad(out, leaves, grad.to(out))

    sides = {'ours': lambda: forward(ours_leaves, ms_deform_attn), 'train': lambda: train(ours_leaves, ms_deform_attn)}
    if kernels is not None:
        sides = {name: with_cpu(kernels, side) for name, side in sides.items()}
    memory = extra_peak_bytes(sides['ours'], device)
    sides.update({'theirs': lambda: forward(their_leaves, theirs), 'their train': lambda: train(their_leaves, theirs)})
    error = (sides['ours']().float() - sides['theirs']()).abs().max().item()
    times = {name: t.wall for name, t in by_turns(sides, seconds, device=device).items()}
    size = value.element_size()
    moved = (value.numel() + grad.numel()) * size + 4 * (locations.numel() + weights.numel())
    return {'name': setting.name, 'device': device, 'kernels': kernels, 'threads': setting.threads,
            'dtype': str(setting.dtype).removeprefix('torch.'),
            'forward_ms': times['ours'] * 1e3, 'mmcv_forward_ms': times['theirs'] * 1e3,
            'forward_ratio': times['theirs'] / times['ours'],
            'train_ms': times['train'] * 1e3, 'mmcv_train_ms': times['their train'] * 1e3,
            'train_ratio': times['their train'] / times['train'], 'worst_difference': error, 'bytes_moved': moved,
            'gather_bytes': weights.numel() * 4 * value.shape[3] * size, 'extra_bytes': memory}


def add_roofline(row: dict, bandwidth: float) -> None:
    """Shares of the copy bandwidth and of the memory, from the bytes of a row."""
    row['share_of_floor'] = row['bytes_moved'] / bandwidth / (row['forward_ms'] / 1e3)
    row['gather_gb_per_s'] = row['gather_bytes'] / row['forward_ms'] / 1e6
    row['extra_share'] = None if row['extra_bytes'] is None else row['extra_bytes'] / row['bytes_moved']


def show(row: dict) -> None:
    """One line of the table."""
    extra = '-' if row['extra_share'] is None else f'{row["extra_share"]:.1%}'
    print(f'{row["name"]:<20}{row["kernels"] or "cuda":<7}{row["threads"]:>2} {row["forward_ms"]:>8.3f}ms'
          f'{row["mmcv_forward_ms"]:>8.2f}ms{row["forward_ratio"]:>6.1f}x {row["train_ms"]:>8.2f}ms'
          f'{row["mmcv_train_ms"]:>8.1f}ms{row["train_ratio"]:>6.1f}x {row["share_of_floor"]:>6.0%}'
          f'{row["gather_gb_per_s"]:>6.0f}GB/s{extra:>7}', flush=True)


def relations(rows: list[dict]) -> dict[str, float]:
    """How two threads scale and what bf16 costs, forward and forward + backward, on the widest instruction set."""
    best = {(r['name'], r['threads']): r for r in rows if r['kernels'] == rows[0]['kernels']}
    found = {}
    for time in ('forward_ms', 'train_ms'):
        if ('Q=5440 local', 2) in best:
            found[f'two threads, {time}'] = best['Q=5440 local', 1][time] / best['Q=5440 local', 2][time]
        for name in ('Q=300', 'Q=5440'):
            if (f'{name} bf16', 1) in best:
                found[f'{name} bf16 over fp32, {time}'] = best[f'{name} bf16', 1][time] / best[name, 1][time]
    return found


def run(seconds: float, device: str) -> dict[str, object]:
    """Measure all settings and print the table; the report."""
    torch.set_num_threads(1)
    bandwidth = copy_bandwidth(device)
    print(f'copy bandwidth {bandwidth / 1e9:.1f} GB/s\n{"setting":<20}{"kernels":<7}{"thr":>2} {"forward":>9}'
          f'{"mmcv":>10}{"ratio":>7} {"fwd+bwd":>10}{"mmcv":>10}{"ratio":>7} {"floor":>6}{"gather":>10}{"extra":>7}')
    rows: list[dict] = []
    settings = ON_CUDA if device == 'cuda' else [s for s in ON_CPU if s.threads <= (os.cpu_count() or 1)]
    for kernels in [None] if device == 'cuda' else [k for k in instruction_sets() if k != 'base']:
        for setting in settings:
            if kernels == 'avx2' and not setting.name.endswith(('Q=300', 'Q=5440', 'local')):
                continue
            rows.append(measure(setting, seconds, device, kernels))
            add_roofline(rows[-1], bandwidth)
            show(rows[-1])
    for name, value in (found := relations(rows)).items():
        print(f'{name}: {value:.2f}')
    return {'copy_bytes_per_second': bandwidth, 'relations': found, 'rows': rows,
            'settings': [{k: str(v) for k, v in asdict(s).items()} for s in settings]}
