"""Mask operators against the naive procedure: time, memory, and the share of one core's multiply-add peak.

    OMP_NUM_THREADS=1 python benchmarks/ops_mask.py            # table and benchmarks/results/ops_mask.json
    OMP_NUM_THREADS=2 python benchmarks/ops_mask.py --threads 2 --output benchmarks/results/ops_mask_2threads.json

Q = 250 queries, K = 150 classes, 256 x 512 logits to 1024 x 2048. The naive side (resize, sigmoid in place, einsum,
argmax) needs 3.2 GiB there; `--size half` runs all sides at 512 x 1024. All sides run alternately in one process and
minima are compared: of wall time, and of the process's CPU time, which other work on the machine disturbs less (shares
of the peak use the latter). Two inputs: `even` is smooth noise with even class weights, the worst case for skipping
work; `blobs` resembles a network's output. A negative class weight switches screening off, which gives the rows that
compute every float32 product.
"""
from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.ops import (
    MaskGeometry,
    backend,
    mask_ensemble_instance,
    mask_ensemble_panoptic,
    mask_ensemble_semantic,
    mask_owners,
    mask_pool,
)

QUERIES, CLASSES, SOURCE, OUTPUT = 250, 150, (256, 512), (1024, 2048)
PEAK_SOURCE = r"""
typedef float V __attribute__((vector_size(LANES * 4)));
extern "C" float multiply_add(long count, float x) {
  V sums[12];
  for (int i = 0; i < 12; ++i) sums[i] = V{} + (float)i;
  const V a = V{} + x, b = V{} + 1e-9f;
  for (long n = 0; n < count; ++n)
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) sums[i] = sums[i] * a + b;
  V all = sums[0];
  for (int i = 1; i < 12; ++i) all += sums[i];
  float total = 0;
  for (int i = 0; i < LANES; ++i) total += all[i];
  return total;
}
"""


def fma_peak() -> Callable[[], float] | None:
    """A function that measures one core's float32 multiply-add rate in GFLOP/s; None without a compiler."""
    compiler = shutil.which('g++')
    if compiler is None:
        return None
    lanes = 16 if 'avx512f' in Path('/proc/cpuinfo').read_text() else 8
    folder = Path(tempfile.mkdtemp())
    (folder / 'peak.cpp').write_text(PEAK_SOURCE)
    subprocess.run([compiler, '-O3', '-march=native', '-ffp-contract=fast', f'-DLANES={lanes}', '-shared', '-fPIC',
                    '-mprefer-vector-width=512', str(folder / 'peak.cpp'), '-o', str(folder / 'peak.so')], check=True)
    function = ctypes.CDLL(str(folder / 'peak.so')).multiply_add
    function.restype, function.argtypes = ctypes.c_float, [ctypes.c_long, ctypes.c_float]
    count = 2_000_000

    def measure() -> float:
        start = time.process_time()
        function(count, 0.999999)
        return count * 12 * lanes * 2 / (time.process_time() - start) / 1e9

    return measure


def even_input() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, QUERIES, SOURCE[0] // 8, SOURCE[1] // 8, generator=generator) * 4
    logits = F.interpolate(coarse, SOURCE, mode='bilinear', align_corners=False)[0].contiguous()
    return torch.rand(QUERIES, CLASSES, generator=generator), logits


def blob_input() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(torch.linspace(0, 1, SOURCE[0]), torch.linspace(0, 2, SOURCE[1]), indexing='ij')
    centres = torch.rand(QUERIES, 3, generator=generator)
    logits = torch.stack([25 * (0.03 + 0.2 * r - ((x - 2 * cx)**2 + (y - cy)**2).sqrt()) for cx, cy, r in centres])
    logits = logits.clamp(-9, 9) + 0.3 * torch.randn(logits.shape, generator=generator)
    probabilities = (4 * torch.randn(QUERIES, CLASSES + 1, generator=generator)).softmax(1)
    return probabilities[:, :-1].contiguous(), logits


def naive_semantic(probabilities: Tensor, logits: Tensor, output: tuple[int, int]) -> Tensor:
    masks = F.interpolate(logits[None], output, mode='bilinear', align_corners=False)[0].sigmoid_()
    return torch.einsum('qk,qhw->khw', probabilities, masks)


def naive_panoptic(scores: Tensor, logits: Tensor, output: tuple[int, int]) -> list[tuple[int, int, int]]:
    masks = F.interpolate(logits[None], output, mode='bilinear', align_corners=False)[0].sigmoid_()
    owner = (masks * scores[:, None, None]).argmax(0)
    areas = []
    for query, mask in enumerate(masks):
        inside, owned = mask >= 0.5, owner == query
        areas.append((int(owned.sum()), int(inside.sum()), int((inside & owned).sum())))
    return areas


def naive_instance(probabilities: Tensor, logits: Tensor, output: tuple[int, int]) -> tuple[Tensor, Tensor]:
    maps = F.interpolate(logits[None], output, mode='bilinear', align_corners=False)[0]
    scores, pairs = probabilities.flatten().topk(100)
    maps = maps[pairs // probabilities.shape[1]]
    masks = (maps > 0).float()
    inside = (maps.sigmoid_() * masks).flatten(1).sum(1) / (masks.flatten(1).sum(1) + 1e-6)
    return masks, scores * inside


def naive_pool(features: Tensor, logits: Tensor) -> Tensor:
    resized = F.interpolate(logits, features.shape[-2:], mode='bilinear', align_corners=False)
    inside = (resized > 0).to(features.dtype)
    return torch.einsum('bchw,bqhw->bqc', features, inside) / (inside.sum((2, 3))[..., None] + 1e-8)


def with_cpu(instruction_set: str, function: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        os.environ['FROZENMM_CPU'] = instruction_set
        try:
            return function()
        finally:
            del os.environ['FROZENMM_CPU']

    return run


def minima(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """Least seconds of wall time and of CPU time of each side over alternating rounds."""
    best = dict.fromkeys(sides, (float('inf'), float('inf')))
    for _ in range(rounds):
        for name, side in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            side()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            best[name] = (min(best[name][0], wall), min(best[name][1], cpu))
    return best


def extra_memory(function: Callable[[], object]) -> float:
    """MiB by which the process's peak exceeds its size before the call (Linux); the result counts."""
    def status(key: str) -> int:
        line = next(x for x in Path('/proc/self/status').read_text().splitlines() if x.startswith(key))
        return int(line.split()[1])

    Path('/proc/self/clear_refs').write_text('5')
    before = status('VmRSS')
    result = function()
    peak = status('VmHWM')
    del result
    return (peak - before) / 1024


def label_check(probabilities: Tensor, logits: Tensor, output: tuple[int, int]) -> dict[str, int]:
    """Pixels whose labels differ from the naive path, in all and where its two best scores differ by over 1e-4."""
    scores = naive_semantic(probabilities, logits, output)
    first, second = scores.topk(2, dim=0).values
    labels = mask_ensemble_semantic(probabilities, logits, MaskGeometry.resize_to(output)).labels
    differs = labels != scores.argmax(0)
    return {'pixels': labels.numel(), 'differing': int(differs.sum()),
            'differing_outside_ties': int((differs & (first - second >= 1e-4 * first)).sum())}


def semantic_sides(name: str, probabilities: Tensor, logits: Tensor, output: tuple[int, int]
                   ) -> dict[str, Callable[[], object]]:
    geometry = MaskGeometry.resize_to(output)
    full = probabilities.clone()
    full[0, 0] = -1e-9
    sides: dict[str, Callable[[], object]] = {}
    for instruction_set in ('avx2', 'avx512'):
        sides[f'semantic {name}: all products, {instruction_set}'] = with_cpu(
            instruction_set, lambda: mask_ensemble_semantic(full, logits, geometry))
    for instruction_set in ('avx2', 'avx512', 'amx'):
        sides[f'semantic {name}: screened, {instruction_set}'] = with_cpu(
            instruction_set, lambda: mask_ensemble_semantic(probabilities, logits, geometry))
    return sides


def measure_group(rows: list[dict], sides: dict[str, Callable[[], object]], rounds: int, flop: float = 0.0) -> None:
    """Appends a row per side; the first side is the reference of the ratios."""
    best = minima(sides, rounds)
    base_wall, base_cpu = next(iter(best.values()))
    for name, (wall, cpu) in best.items():
        row = {'name': name, 'wall_ms': round(wall * 1e3, 2), 'ratio': round(base_wall / wall, 2),
               'cpu_ms': round(cpu * 1e3, 2), 'cpu_ratio': round(base_cpu / cpu, 2)}
        if flop and 'all products' in name:
            row['cpu_gflops'] = round(flop / cpu / 1e9, 1)
        rows.append(row)
        print(f"{name:44s} wall {row['wall_ms']:9.1f} ms {row['ratio']:6.2f} x   cpu {row['cpu_ms']:9.1f} ms "
              f"{row['cpu_ratio']:6.2f} x  {row.get('cpu_gflops', '')}", flush=True)


def measure_input(rows: list[dict], name: str, probabilities: Tensor, logits: Tensor, output: tuple[int, int],
                  rounds: int) -> None:
    """All rows of one input."""
    geometry = MaskGeometry.resize_to(output)
    flop = 2.0 * QUERIES * CLASSES * output[0] * output[1]
    sides: dict[str, Callable[[], object]] = {
        f'semantic {name}: naive': lambda: naive_semantic(probabilities, logits, output).argmax(0)}
    sides.update(semantic_sides(name, probabilities, logits, output))
    measure_group(rows, sides, rounds, flop)
    scores = probabilities.amax(1)
    with_void = torch.cat([probabilities, 0.1 * scores[:, None]], dim=1)
    measure_group(rows, {
        f'panoptic {name}: naive': lambda: naive_panoptic(scores, logits, output),
        f'panoptic {name}: ours': lambda: mask_ensemble_panoptic(with_void, logits, geometry, thing_classes=range(80)),
    }, rounds)
    measure_group(rows, {
        f'instance {name}: naive': lambda: naive_instance(probabilities, logits, output),
        f'instance {name}: ours': lambda: mask_ensemble_instance(probabilities, logits, geometry),
    }, rounds)


def machine() -> dict[str, object]:
    info = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').exists() else ''
    models = [x.split(':')[1].strip() for x in info.splitlines() if x.startswith('model name')]
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True, check=False)
    flags = sorted(set(info.split()) & {'avx2', 'avx512f', 'avx512_bf16', 'amx_bf16'})
    return {'cpu': models[0] if models else platform.processor(), 'cores': os.cpu_count(), 'flags': flags,
            'load': [round(x, 1) for x in os.getloadavg()],
            'torch': torch.__version__, 'python': platform.python_version(), 'commit': commit.stdout.strip()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n\n')[0])
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--size', choices=('full', 'half'), default='full')
    parser.add_argument('--output', type=Path, default=Path(__file__).parent / 'results' / 'ops_mask.json')
    args = parser.parse_args()
    if backend('cpu') != 'native':
        raise SystemExit('the compiled CPU operators are not loaded; run `python -m frozenmm.ops.build`')
    torch.set_num_threads(args.threads)
    output = OUTPUT if args.size == 'full' else (OUTPUT[0] // 2, OUTPUT[1] // 2)
    inputs = {'even': even_input(), 'blobs': blob_input()}
    geometry = MaskGeometry.resize_to(output)
    probabilities, logits = inputs['even']
    memory = {
        'semantic, result included': extra_memory(lambda: mask_ensemble_semantic(probabilities, logits, geometry)),
        'owners, result included': extra_memory(lambda: mask_owners(probabilities[:, 0], logits, geometry)),
        'instance, result included': extra_memory(lambda: mask_ensemble_instance(probabilities, logits, geometry)),
        'naive semantic': extra_memory(lambda: naive_semantic(probabilities, logits, output).argmax(0)),
    }
    rows: list[dict] = []
    peak = fma_peak()
    peaks = [peak() for _ in range(50)] if peak else []
    for name, (p, m) in inputs.items():
        measure_input(rows, name, p, m, output, args.rounds)
        peaks += [peak() for _ in range(50)] if peak else []
    features = torch.randn(1, 1024, 32, 64, generator=torch.Generator().manual_seed(2))
    measure_group(rows, {
        'mask_pool: official form': lambda: naive_pool(features, logits[None]),
        'mask_pool: ours': lambda: mask_pool(features, logits[None]),
    }, args.rounds * 5)
    for row in rows:
        if peaks and 'avx512' in row['name'] and 'cpu_gflops' in row:
            row['share_of_peak'] = round(row['cpu_gflops'] / max(peaks), 3)
    report = {
        'what': f'Q={QUERIES} K={CLASSES} {SOURCE} -> {output}', 'threads': args.threads, 'machine': machine(),
        'fma_peak_gflops_one_core': round(max(peaks), 1) if peaks else None, 'rows': rows,
        'extra_memory_mib': {k: round(v, 1) for k, v in memory.items()},
        'semantic_result_mib': output[0] * output[1] * 12 / 2**20,
        'labels': {name: label_check(p, m, output) for name, (p, m) in inputs.items()},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    part = args.output.with_suffix('.part')
    part.write_text(json.dumps(report, indent=1) + '\n')
    part.replace(args.output)
    print(json.dumps({k: report[k] for k in ('fma_peak_gflops_one_core', 'extra_memory_mib', 'labels')}, indent=1))


if __name__ == '__main__':
    main()
