"""Deformable attention on CPU against mmcv's torch path: `python benchmarks/ops_deform_attn.py [--models] [--quick]`.

Every row measures both sides in one process, by turns, and compares the least times, so that other work on the machine
touches both alike. The roofline columns relate the time to the bytes that have to move: `floor` is reading every input
and writing every output once at the measured copy bandwidth, `gather` the rate at which the four rows of every sample
are read (they come from caches, so it may exceed that bandwidth). `--models` adds stock mmdet models before and after
`frozenmm.ops.accelerate`. Writes `benchmarks/results/ops_deform_attn.json`.
"""
from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from frozenmm import env
from frozenmm.ops import accelerate, loader, ms_deform_attn, restore

ROOT = Path(__file__).resolve().parents[1]
PYRAMID = ((64, 64), (32, 32), (16, 16), (8, 8))
SMALL = ((28, 28), (14, 14), (7, 7))


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


SETTINGS = (
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


def by_turns(calls: list[Callable[[], object]], seconds: float, least_rounds: int = 4) -> list[float]:
    """The least time of each call in seconds; each round runs every call, the short ones several times."""
    for call in calls:
        call()
    best, begin, rounds = [float('inf')] * len(calls), time.perf_counter(), 0
    gc.disable()
    try:
        while rounds < least_rounds or time.perf_counter() - begin < seconds:
            rounds += 1
            for i, call in enumerate(calls):
                for _ in range(8 if best[i] < 0.01 else 1):
                    start = time.perf_counter()
                    call()
                    best[i] = min(best[i], time.perf_counter() - start)
    finally:
        gc.enable()
    return best


def extra_peak_bytes(call: Callable[[], Tensor]) -> int | None:
    """Memory that a call needs beyond its inputs and output, at its peak; None where Linux does not tell."""
    def status(name: str) -> int:
        line = next(x for x in Path('/proc/self/status').read_text().splitlines() if x.startswith(name))
        return int(line.split()[1]) * 1024

    def fresh() -> None:
        torch.set_num_threads(1)
        kept.append(call())

    call()
    gc.collect()
    try:
        Path('/proc/self/clear_refs').write_text('5')  # resets the high-water mark
    except OSError:
        return None
    before, kept = status('VmRSS'), []
    # a new thread has no working memory yet, so what the kernels keep for the next call is counted
    worker = threading.Thread(target=fresh)
    worker.start()
    worker.join()
    return max(0, status('VmHWM') - before - kept[0].numel() * kept[0].element_size())


def copy_bandwidth() -> float:
    """Bytes per second that one thread reads and writes when it copies 128 MiB."""
    source = torch.randn(32 << 20)
    target = torch.empty_like(source)
    best, = by_turns([lambda: target.copy_(source)], 0.5)
    return 2 * source.numel() * source.element_size() / best


def measure(setting: Setting, seconds: float) -> dict[str, object]:
    """One row of the table."""
    # here, not above: importing frozenmm first is what makes mmcv without compiled operators importable
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
    torch.set_num_threads(setting.threads)
    value, shapes, starts, locations, weights = make_inputs(setting)
    grad = torch.randn(setting.batch, setting.queries, value.shape[2] * value.shape[3]).to(setting.dtype)
    leaves = [t.clone().requires_grad_() for t in (value, locations, weights)]
    reference = [t.float().clone().requires_grad_() for t in (value, locations, weights)]

    def ours() -> Tensor:
        return ms_deform_attn(value, shapes, starts, locations, weights)

    def theirs() -> Tensor:
        return multi_scale_deformable_attn_pytorch(reference[0].detach(), shapes, locations, weights)

    def train_ours() -> None:
        torch.autograd.grad(ms_deform_attn(leaves[0], shapes, starts, *leaves[1:]), leaves, grad)

    def train_theirs() -> None:
        torch.autograd.grad(multi_scale_deformable_attn_pytorch(reference[0], shapes, *reference[1:]), reference,
                            grad.float())

    error = (ours().float() - theirs()).abs().max().item()
    times = by_turns([ours, theirs, train_ours, train_theirs], seconds)
    size = value.element_size()
    moved = value.numel() * size + 4 * (locations.numel() + weights.numel()) + grad.numel() * size
    memory = extra_peak_bytes(ours)
    return dict(name=setting.name, threads=setting.threads, dtype=str(setting.dtype).removeprefix('torch.'),
                forward_ms=times[0] * 1e3, mmcv_forward_ms=times[1] * 1e3, forward_ratio=times[1] / times[0],
                train_ms=times[2] * 1e3, mmcv_train_ms=times[3] * 1e3, train_ratio=times[3] / times[2],
                worst_difference=error, bytes_moved=moved,
                gather_bytes=weights.numel() * 4 * value.shape[3] * size, extra_bytes=memory)


def measure_model(name: str, config: str, size: int, seconds: float) -> dict[str, object]:
    """A stock mmdet model without training, one image, before and after `accelerate`."""
    import mmdet
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    init_default_scope('mmdet')
    cfg = Config.fromfile(Path(mmdet.__file__).parent / '.mim' / 'configs' / config)
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = MODELS.build(cfg.model).eval()
    sizes = dict.fromkeys(('img_shape', 'batch_input_shape', 'pad_shape', 'ori_shape'), (size, size))
    sample = DetDataSample(metainfo=dict(**sizes, scale_factor=(1.0, 1.0)))
    image = torch.randn(1, 3, size, size)

    @torch.no_grad()
    def run() -> Tensor:
        return flatten(model._forward(image, [sample]) if hasattr(model, '_forward') else model(image, [sample]))

    def accelerated() -> Tensor:
        accelerate(model)
        return run()

    def plain() -> Tensor:
        restore(model)
        return run()

    expected, found = plain(), accelerated()
    modules = len(accelerate(model).already)
    times = by_turns([accelerated, plain], seconds, 2)
    return dict(name=name, image=size, modules=modules, accelerated_ms=times[0] * 1e3, plain_ms=times[1] * 1e3,
                ratio=times[1] / times[0], worst_difference=(found - expected).abs().max().item(),
                largest_output=expected.abs().max().item())


def flatten(outputs: object) -> Tensor:
    """All tensors of nested outputs as one vector."""
    if isinstance(outputs, Tensor):
        return outputs.float().flatten()
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    return torch.cat([flatten(o) for o in outputs if o is not None])


def commit() -> str:
    command = ['git', 'describe', '--always', '--dirty']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or 'unknown'


def processor() -> str:
    info = Path('/proc/cpuinfo')
    names = [x.partition(':')[2].strip() for x in info.read_text().splitlines() if x.startswith('model name')] \
        if info.exists() else []
    return f'{names[0] if names else platform.processor()}, {os.cpu_count()} cores'


def show(rows: list[dict], bandwidth: float) -> None:
    print(f'{"setting":<17}{"thr":>3} {"forward":>9}{"mmcv":>9}{"ratio":>7} {"fwd+bwd":>9}{"mmcv":>9}{"ratio":>7}'
          f' {"floor":>8}{"gather":>9}{"extra":>9}')
    for r in rows:
        floor = r['bytes_moved'] / bandwidth * 1e3
        gather = r['gather_bytes'] / r['forward_ms'] / 1e6
        extra = '-' if r['extra_bytes'] is None else f'{r["extra_bytes"] / r["bytes_moved"]:.1%}'
        print(f'{r["name"]:<17}{r["threads"]:>3} {r["forward_ms"]:>7.2f}ms{r["mmcv_forward_ms"]:>7.1f}ms'
              f'{r["forward_ratio"]:>6.1f}x {r["train_ms"]:>7.2f}ms{r["mmcv_train_ms"]:>7.1f}ms'
              f'{r["train_ratio"]:>6.1f}x {floor / r["forward_ms"]:>8.0%}{gather:>5.0f}GB/s{extra:>9}')


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n\n')[0])
    parser.add_argument('--models', action='store_true', help='also time stock mmdet models')
    parser.add_argument('--quick', action='store_true', help='fewer repeats')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'ops_deform_attn.json')
    args = parser.parse_args()
    if loader.backend('cpu') != 'native':
        raise SystemExit('the CPU kernels are not loaded; build them with `python -m frozenmm.ops.build`')
    torch.set_num_threads(1)
    bandwidth = copy_bandwidth()
    seconds = 1.0 if args.quick else 6.0
    rows = [measure(s, seconds) for s in SETTINGS if s.threads <= (os.cpu_count() or 1)]
    print(f'{processor()}, kernels for {env.instruction_set()}, copy bandwidth {bandwidth / 1e9:.1f} GB/s, '
          f'load {os.getloadavg()[0]:.1f}')
    show(rows, bandwidth)
    models = []
    if args.models:
        models = [measure_model('DINO R50', 'dino/dino-4scale_r50_8xb2-12e_coco.py', 320, seconds),
                  measure_model('Mask2Former R50', 'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py', 320,
                                seconds)]
        for m in models:
            print(f'{m["name"]:<17} {m["image"]} px, {m["modules"]} modules: {m["plain_ms"]:.0f} ms, accelerated '
                  f'{m["accelerated_ms"]:.0f} ms, {m["ratio"]:.2f}x, worst difference {m["worst_difference"]:.1e}')
    report = dict(machine=processor(), kernels=env.instruction_set(), load=os.getloadavg()[0],
                  versions=env.collect().versions, commit=commit(), copy_bytes_per_second=bandwidth,
                  settings=[{k: str(v) for k, v in asdict(s).items()} for s in SETTINGS], rows=rows, models=models)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    part = args.out.with_name(f'{args.out.name}.part')
    part.write_text(json.dumps(report, indent=1) + '\n')
    os.replace(part, args.out)


if __name__ == '__main__':
    main()
