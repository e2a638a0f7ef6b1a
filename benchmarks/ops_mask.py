"""Mask operators against the naive procedure (parts `semantic` and `regions` of `benchmarks/ops.py`).

Q = 250 queries, K = 150 classes, 256 x 512 logits to 1024 x 2048. The naive side (resize, sigmoid in place, einsum,
argmax) needs 3.2 GiB there; `size='half'` runs all sides at 512 x 1024. All sides run alternately in one process and
minima are compared: of wall time, and of the process's CPU time, which other work on the machine disturbs less (shares
of the peak use the latter). Two inputs: `even` is smooth noise with even class weights, the worst case for skipping
work; `blobs` resembles a network's output. A negative class weight switches screening off, which gives the rows that
compute every float32 product.

The roofline: a class costs 2 * Q * pixels floating-point operations and nothing else that matters, so the difference
between K and 12 classes is the matrix product, and what is left at K = 0 is sampling, sigmoids and output (`product`).
Its rate is a share of one core's multiply-add peak, measured in the same run.

On a GPU the naive side, its memory and ours are compared at K = 1203.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from ops_timing import Call, by_turns, extra_peak_bytes, fma_peak, instruction_sets, with_cpu
from torch import Tensor

from frozenmm.ops import (
    MaskGeometry,
    mask_ensemble_instance,
    mask_ensemble_panoptic,
    mask_ensemble_semantic,
    mask_owners,
    mask_pool,
)

QUERIES, CLASSES, SOURCE = 250, 150, (256, 512)
OUTPUTS = {'full': (1024, 2048), 'half': (512, 1024)}
FEW_CLASSES = 12


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


def naive_owners(scores: Tensor, logits: Tensor, output: tuple[int, int]) -> Tensor:
    masks = F.interpolate(logits[None], output, mode='bilinear', align_corners=False)[0].sigmoid_()
    return masks.mul_(scores[:, None, None]).argmax(0)


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


def label_check(probabilities: Tensor, logits: Tensor, output: tuple[int, int]) -> dict[str, int]:
    """Pixels whose labels differ from the naive path, in all and where its two best scores differ by over 1e-4."""
    scores = naive_semantic(probabilities, logits, output)
    first, second = scores.topk(2, dim=0).values
    labels = mask_ensemble_semantic(probabilities, logits, MaskGeometry.resize_to(output)).labels
    differs = labels != scores.argmax(0)
    return {'pixels': labels.numel(), 'differing': int(differs.sum()),
            'differing_outside_ties': int((differs & (first - second >= 1e-4 * first)).sum())}


def all_products(probabilities: Tensor) -> Tensor:
    """The same class weights but one, negative, which switches screening off."""
    full = probabilities.clone()
    full[0, 0] = -1e-9
    return full


def semantic_sides(name: str, probabilities: Tensor, logits: Tensor, output: tuple[int, int]) -> dict[str, Call]:
    geometry, full = MaskGeometry.resize_to(output), all_products(probabilities)
    sides: dict[str, Call] = {
        f'semantic {name}: naive': lambda: naive_semantic(probabilities, logits, output).argmax(0)}
    widest = [k for k in instruction_sets() if k != 'base'][::-1]
    for kernels in widest:
        sides[f'semantic {name}: all products, {kernels}'] = with_cpu(
            kernels, lambda: mask_ensemble_semantic(full, logits, geometry))
    for kernels in [*widest, 'amx'] if 'avx512' in widest else widest:
        sides[f'semantic {name}: screened, {kernels}'] = with_cpu(
            kernels, lambda: mask_ensemble_semantic(probabilities, logits, geometry))
    return sides


def measure_group(rows: list[dict], sides: dict[str, Call], rounds: int, device: str = 'cpu') -> None:
    """Appends a row per side; the first side is the reference of the ratios."""
    best = by_turns(sides, least_rounds=rounds, device=device)
    base = next(iter(best.values()))
    for name, times in best.items():
        row = {'name': name, 'wall_ms': times.wall * 1e3, 'ratio': base.wall / times.wall, 'cpu_ms': times.cpu * 1e3,
               'cpu_ratio': base.cpu / times.cpu}
        rows.append(row)
        print(f"{name:44s} wall {row['wall_ms']:9.1f} ms {row['ratio']:6.2f} x   cpu {row['cpu_ms']:9.1f} ms "
              f"{row['cpu_ratio']:6.2f} x", flush=True)


def measure_regions(rows: list[dict], name: str, probabilities: Tensor, logits: Tensor, output: tuple[int, int],
                    rounds: int) -> None:
    """Panoptic and instance rows of one input."""
    geometry = MaskGeometry.resize_to(output)
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


def measure_product(probabilities: Tensor, logits: Tensor, output: tuple[int, int],
                    rounds: int) -> list[dict[str, object]]:
    """Rate of the matrix product alone, for each instruction set, as a share of the core's peak with it."""
    geometry, full = MaskGeometry.resize_to(output), all_products(probabilities)
    few = full[:, :FEW_CLASSES].contiguous()
    rows = []
    for kernels in (k for k in instruction_sets() if k != 'base'):
        peak = fma_peak(kernels)
        if peak is None:
            print('product: no g++ to measure the peak with')
            return rows
        peaks = [peak() for _ in range(50)]
        best = by_turns({'all': with_cpu(kernels, lambda: mask_ensemble_semantic(full, logits, geometry)),
                         'few': with_cpu(kernels, lambda: mask_ensemble_semantic(few, logits, geometry))},
                        least_rounds=rounds)
        peaks += [peak() for _ in range(50)]
        extra = best['all'].cpu - best['few'].cpu
        flop = 2.0 * QUERIES * output[0] * output[1]
        rate = flop * (full.shape[1] - FEW_CLASSES) / extra / 1e9
        rest = best['few'].cpu - FEW_CLASSES * extra / (full.shape[1] - FEW_CLASSES)
        row = {'kernels': kernels, 'gflop_per_s': rate, 'fma_peak_gflop_per_s': max(peaks),
               'share_of_peak': rate / max(peaks), 'all_ms': best['all'].cpu * 1e3, 'rest_ms': rest * 1e3,
               'whole_share_of_peak': flop * full.shape[1] / best['all'].cpu / 1e9 / max(peaks)}
        rows.append(row)
        print(f'product, {kernels}: {rate:.0f} GFLOP/s, {row["share_of_peak"]:.0%} of the peak of {max(peaks):.0f}; '
              f'{row["whole_share_of_peak"]:.0%} with sampling, sigmoids and output ({rest * 1e3:.0f} ms)', flush=True)
    return rows


def mebibytes(call: Call, device: str = 'cpu') -> float | None:
    size = extra_peak_bytes(call, device)
    return None if size is None else round(size / 2**20, 1)


def what(classes: int, output: tuple[int, int]) -> str:
    return f'Q={QUERIES} K={classes} {SOURCE} -> {output}'


def run_semantic(rounds: int, threads: int, size: str) -> dict[str, object]:
    """Label maps on the CPU: memory, time, the matrix product alone, and the labels themselves; the report."""
    torch.set_num_threads(threads)
    output = OUTPUTS[size]
    geometry = MaskGeometry.resize_to(output)
    inputs = {'even': even_input(), 'blobs': blob_input()}
    probabilities, logits = inputs['even']
    memory = {'ours': mebibytes(lambda: mask_ensemble_semantic(probabilities, logits, geometry)),
              'naive': mebibytes(lambda: naive_semantic(probabilities, logits, output).argmax(0))}
    print(f'MiB beyond inputs and result: {memory}', flush=True)
    rows: list[dict] = []
    for name, (p, m) in inputs.items():
        measure_group(rows, semantic_sides(name, p, m, output), rounds)
    product = measure_product(probabilities, logits, output, rounds) if threads == 1 else []
    labels = {name: label_check(p, m, output) for name, (p, m) in inputs.items()}
    print(f'labels: {labels}', flush=True)
    return {'what': what(CLASSES, output), 'rows': rows, 'product': product, 'extra_memory_mib': memory,
            'labels': labels}


def run_regions(rounds: int, threads: int, size: str) -> dict[str, object]:
    """Panoptic maps, instance masks and mask pooling on the CPU; the report."""
    torch.set_num_threads(threads)
    output = OUTPUTS[size]
    geometry = MaskGeometry.resize_to(output)
    inputs = {'even': even_input(), 'blobs': blob_input()}
    probabilities, logits = inputs['even']
    memory = {'owners': mebibytes(lambda: mask_owners(probabilities[:, 0], logits, geometry)),
              'instance': mebibytes(lambda: mask_ensemble_instance(probabilities, logits, geometry))}
    print(f'MiB beyond inputs and result: {memory}', flush=True)
    rows: list[dict] = []
    for name, (p, m) in inputs.items():
        measure_regions(rows, name, p, m, output, rounds)
    features = torch.randn(1, 1024, 32, 64, generator=torch.Generator().manual_seed(2))
    measure_group(rows, {
        'mask_pool: official form': lambda: naive_pool(features, logits[None]),
        'mask_pool: ours': lambda: mask_pool(features, logits[None]),
    }, rounds * 5)
    return {'what': what(CLASSES, output), 'rows': rows, 'extra_memory_mib': memory}


def run_cuda(rounds: int, classes: int = 1203, output: tuple[int, int] = OUTPUTS['full']) -> dict[str, object]:
    """Semantic labels, owners and pooling on a GPU: time and memory of both sides; the report."""
    generator = torch.Generator().manual_seed(0)
    logits = even_input()[1].cuda()
    probabilities = torch.rand(QUERIES, classes, generator=generator).cuda()
    features = torch.randn(1, 1024, 32, 64, generator=generator).cuda()
    geometry = MaskGeometry.resize_to(output)
    sides: dict[str, dict[str, Call]] = {
        'semantic': {'naive': lambda: naive_semantic(probabilities, logits, output).argmax(0),
                     'ours': lambda: mask_ensemble_semantic(probabilities, logits, geometry)},
        'owners': {'naive': lambda: naive_owners(probabilities[:, 0], logits, output),
                   'ours': lambda: mask_owners(probabilities[:, 0].contiguous(), logits, geometry)},
        'mask_pool': {'official form': lambda: naive_pool(features, logits[None]),
                      'ours': lambda: mask_pool(features, logits[None])},
    }
    rows: list[dict] = []
    for name, pair in sides.items():
        measure_group(rows, {f'{name}: {side}': call for side, call in pair.items()}, rounds, 'cuda')
    memory = {f'{name}: {side}': mebibytes(call, 'cuda') for name, pair in sides.items() for side, call in pair.items()}
    print(f'MiB beyond inputs and result: {memory}', flush=True)
    return {'what': what(classes, output), 'rows': rows, 'extra_memory_mib': memory}
