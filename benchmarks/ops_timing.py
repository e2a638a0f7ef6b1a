"""What the operator benchmarks share: timing by turns, memory, the limits of the machine, and the report."""
from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from frozenmm import env  # noqa: E402
from frozenmm.compat.files import write_whole  # noqa: E402

RESULTS = ROOT / 'benchmarks' / 'results'
Call = Callable[[], object]
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


@dataclass
class Times:
    """Least wall time and least CPU time of a call, in seconds; other work on the machine disturbs the latter less."""

    wall: float = float('inf')
    cpu: float = float('inf')


def by_turns(sides: dict[str, Call], seconds: float = 0.0, least_rounds: int = 2,
             device: str = 'cpu') -> dict[str, Times]:
    """The least times of each side; each round runs every side, the short ones several times.

    All sides share every moment of the machine, so that their ratios hold while absolute times drift.
    """
    wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
    best, begin, rounds = {name: Times() for name in sides}, time.perf_counter(), 0
    gc.disable()
    try:
        while rounds < least_rounds or time.perf_counter() - begin < seconds:
            rounds += 1
            for name, side in sides.items():
                for _ in range(max(1, min(8, int(0.2 / best[name].wall)))):  # fills the caches that others emptied
                    wait()
                    wall, cpu = time.perf_counter(), time.process_time()
                    side()
                    wait()
                    best[name].wall = min(best[name].wall, time.perf_counter() - wall)
                    best[name].cpu = min(best[name].cpu, time.process_time() - cpu)
    finally:
        gc.enable()
    return best


def with_cpu(instruction_set: str, call: Call) -> Call:
    """The call with kernels of an instruction set ('avx2', 'avx512' or 'amx')."""
    def run() -> object:
        os.environ['FROZENMM_CPU'] = instruction_set
        try:
            return call()
        finally:
            del os.environ['FROZENMM_CPU']

    return run


def instruction_sets() -> list[str]:
    """Those that this machine has, the widest first."""
    order = ['avx512', 'avx2', 'base']
    return order[order.index(env.instruction_set()):]


def _bytes_of(result: object) -> int:
    if isinstance(result, Tensor):
        return result.numel() * result.element_size()
    if isinstance(result, (tuple, list)):
        return sum(_bytes_of(r) for r in result)
    return sum(_bytes_of(r) for r in vars(result).values()) if hasattr(result, '__dict__') else 0


def extra_peak_bytes(call: Call, device: str = 'cpu') -> int | None:
    """Memory that a call needs beyond its inputs and result, at its peak; None where Linux does not tell.

    On CPU the call runs in a new thread, which has no working memory yet: what kernels keep for the next call counts.
    """
    def status(name: str) -> int:
        line = next(x for x in Path('/proc/self/status').read_text().splitlines() if x.startswith(name))
        return int(line.split()[1]) * 1024

    kept: list[object] = []
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        kept.append(call())
        torch.cuda.synchronize()
        return max(0, torch.cuda.max_memory_allocated() - held - _bytes_of(kept[0]))
    threads = torch.get_num_threads()

    def fresh() -> None:
        torch.set_num_threads(threads)
        kept.append(call())

    call()
    gc.collect()
    try:
        Path('/proc/self/clear_refs').write_text('5')  # resets the high-water mark
    except OSError:
        return None
    before = status('VmRSS')
    worker = threading.Thread(target=fresh)
    worker.start()
    worker.join()
    return max(0, status('VmHWM') - before - _bytes_of(kept[0]))


def copy_bandwidth(device: str = 'cpu') -> float:
    """Bytes per second that one thread (or the GPU) reads and writes when it copies 128 MiB."""
    source = torch.randn(32 << 20, device=device)
    target = torch.empty_like(source)
    best = by_turns({'copy': lambda: target.copy_(source)}, 0.5, device=device)['copy']
    return 2 * source.numel() * source.element_size() / best.wall


def fma_peak(instruction_set: str) -> Callable[[], float] | None:
    """A function that measures one core's float32 multiply-add rate in GFLOP/s with vectors of an instruction set.

    None without a compiler.
    """
    compiler = shutil.which('g++')
    if compiler is None:
        return None
    lanes = 16 if instruction_set == 'avx512' else 8
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, 'peak.cpp'), Path(folder, 'peak.so')
        source.write_text(PEAK_SOURCE)
        subprocess.run([compiler, '-O3', '-march=native', '-ffp-contract=fast', f'-DLANES={lanes}', '-shared', '-fPIC',
                        '-mprefer-vector-width=512', str(source), '-o', str(library)], check=True)
        function = ctypes.CDLL(str(library)).multiply_add
    function.restype, function.argtypes = ctypes.c_float, [ctypes.c_long, ctypes.c_float]
    count = 2_000_000

    def measure() -> float:
        start = time.process_time()
        function(count, 0.999999)
        return count * 12 * lanes * 2 / (time.process_time() - start) / 1e9

    return measure


def _processor() -> str:
    info = Path('/proc/cpuinfo')
    names = [x.partition(':')[2].strip() for x in info.read_text().splitlines() if x.startswith('model name')] \
        if info.exists() else []
    return f'{names[0] if names else platform.processor()}, {os.cpu_count()} cores'


def machine() -> dict[str, object]:
    """Where and with what a report was measured."""
    done = subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {'cpu': _processor(), 'gpu': gpu, 'kernels': env.instruction_set(), 'threads': torch.get_num_threads(),
            'load': round(os.getloadavg()[0], 1), 'versions': env.collect().versions,
            'commit': done.stdout.strip() or 'unknown'}


def write_report(name: str, report: dict[str, object], folder: Path = RESULTS) -> Path:
    """Write `<folder>/<name>.json` and return its path."""
    path = folder / f'{name}.json'
    write_whole(path, (json.dumps({'machine': machine(), **report}, indent=1) + '\n').encode())
    return path
