"""How many threads torch computes with: chosen by measuring, within the cores that the process may use.

On a busy machine threads wait for each other at every operator, and waiting there burns the time that the others need;
then one thread can be several times faster than two. Only a measurement tells, so a few steps are run with each count.
"""
from __future__ import annotations

import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.logging import print_log

_VARIABLES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')
_TRIALS = 2
"""Measured steps per count; one more goes before them, while the threads start."""
_BETTER = 0.95
"""Share of the present time that another count must stay below to be taken: closer ones differ by chance."""
_chosen: int | None = None  # what this module set, so that it is not taken for a wish of the user
_kept = False


def usable_cores(root: Path = Path('/sys/fs/cgroup')) -> int:
    """Cores that this process may use: those of its affinity, and no more than the quota of its control group.

    Args:
        root: where control groups are mounted.
    """
    affinity = getattr(os, 'sched_getaffinity', None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota(root: Path) -> float | None:
    """Cores' worth of time per period, of version 2 or 1 of control groups; None where there is no limit."""
    try:
        if (root / 'cpu.max').is_file():
            limit, period = (root / 'cpu.max').read_text(encoding='ascii').split()
        else:
            limit, period = ((root / 'cpu' / f'cpu.cfs_{name}_us').read_text(encoding='ascii').strip()
                             for name in ('quota', 'period'))
        return None if limit in ('max', '-1') else int(limit) / int(period)
    except (OSError, ValueError):  # no control groups here, or none of a known form: no limit that could be kept to
        return None


def threads_of_user() -> int | None:
    """The number of threads that the user has set, or None.

    That is an environment variable, or a call of `torch.set_num_threads` with a number that torch does not come up
    with by itself.
    """
    count = torch.get_num_threads()
    if any(os.environ.get(name) for name in _VARIABLES):
        return count
    affinity = getattr(os, 'sched_getaffinity', None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return None if count in (_chosen, cores, _physical_cores()) else count


def _physical_cores() -> int | None:
    """What torch starts with where two threads share a core."""
    folders = Path('/sys/devices/system/cpu').glob('cpu[0-9]*/topology/thread_siblings_list')
    try:
        return len({path.read_text(encoding='ascii') for path in folders}) or None
    except OSError:
        return None


def set_threads(count: int) -> None:
    """Compute with this many threads from now on; a later measurement may change it again."""
    global _chosen
    _chosen = count
    torch.set_num_threads(count)


class ThreadTuner:
    """Finds the number of threads for a loop while it runs: every step counts, none is wasted.

    Put every step of the loop into `with tuner.step():`. The first steps run with the present number of threads, half
    of it and twice it; the fastest stays, and the search goes on from there until its neighbours are slower. It begins
    anew after a minute, or later where steps are long: trials take 2 % of the time at most. A number that the user has
    set is never changed.

    Args:
        what: runs, for the line that says the choice.
        again: seconds until the first repetition.
        clock: gives seconds.
    """

    def __init__(self, what: str, *, again: float = 60.0, clock: Callable[[], float] = time.perf_counter) -> None:
        self.what, self.again, self._clock = what, again, clock
        self.cores = usable_cores()
        self.active = not _kept and self.cores > 1 and threads_of_user() is None
        self._times: dict[int, list[float]] = {}
        self._plan: list[int] = []
        self._due = -math.inf
        self._spent = 0.0
        self._said: int | None = None
        if self.active:
            set_threads(min(torch.get_num_threads(), self.cores))

    @contextmanager
    def step(self) -> Iterator[None]:
        """Runs one step of the loop; one that fails does not count."""
        start = self.begin()
        yield
        self.end(start)

    def begin(self) -> float | None:
        """Call before a step, where `with` does not fit; returns what `end` takes."""
        if not self.active:
            return None
        if not self._plan and self._clock() >= self._due:
            self._search()
        if self._plan and self._plan[0] != torch.get_num_threads():
            set_threads(self._plan[0])
        return self._clock()

    def end(self, start: float | None) -> None:
        """Call after a step."""
        if start is None or not self._plan:
            return
        now = self._clock()
        self._times[self._plan.pop(0)].append(now - start)
        if not self._plan:
            self._decide(now)

    def _search(self) -> None:
        """Plan trials of the present count and its neighbours."""
        count = torch.get_num_threads()
        counts = sorted({max(count // 2, 1), count, min(2 * count, self.cores)}, key=lambda other: other != count)
        self._times = {other: [] for other in counts}
        self._plan = [other for other in counts for _ in range(_TRIALS + 1)]

    def _decide(self, now: float) -> None:
        present = next(iter(self._times))
        seconds = {count: statistics.median(times[1:]) for count, times in self._times.items()}
        best = fastest(seconds, present)
        set_threads(best)
        self._spent += sum(max(time - seconds[best], 0.0) for times in self._times.values() for time in times)
        # a neighbour was faster: its own neighbours may be faster still
        self._due = now if best not in (present, 1, self.cores) else now + max(self.again, 50 * self._spent)
        if best != self._said:
            self._said = best
            _say(self.what, best, self.cores, seconds)


def fastest(seconds: dict[int, float], present: int) -> int:
    """The count with the shortest time; the present one where none is clearly shorter.

    >>> fastest({2: 1.0, 1: 0.98}, 2), fastest({2: 1.0, 1: 0.5}, 2)
    (2, 1)
    """
    best = min(seconds, key=lambda count: seconds[count])
    return best if seconds[best] < _BETTER * seconds[present] else present


@contextmanager
def steady_threads(what: str, work: Callable[[], None] | None = None, *, seconds: float = 1.0,
                   count: int | None = None) -> Iterator[int]:
    """Measure once, and keep the fastest number of threads in a `with` block, which gets it.

    For work whose results must be the same bit for bit from beginning to end: with another number of threads sums are
    taken in another order. No `ThreadTuner` inside changes it. A number that the user has set is kept.

    Args:
        what: runs in the block, for the line that says the choice.
        work: a piece of work like that to come, of some hundredths of a second; see `sample_work`.
        seconds: to measure for, per count.
        count: this number of threads, without measuring: that of a run that goes on.
    """
    global _kept
    before = torch.get_num_threads(), _kept
    cores = usable_cores()
    if _kept or threads_of_user() is not None:
        pass
    elif count is not None:
        set_threads(count)
    elif cores > 1:
        times = _measure(work or sample_work(), [count for count in (cores, cores // 2, cores // 4) if count], seconds)
        set_threads(fastest(times, cores))
        _say(what, torch.get_num_threads(), cores, times)
    _kept = True
    try:
        yield torch.get_num_threads()
    finally:
        set_threads(before[0])
        _kept = before[1]


def _measure(work: Callable[[], None], counts: list[int], seconds: float) -> dict[int, float]:
    """Median seconds of a piece of work by number of threads, which take turns."""
    times: dict[int, list[float]] = {count: [] for count in counts}
    start = time.perf_counter()
    while time.perf_counter() - start < seconds * len(counts):
        for count in counts:
            set_threads(count)
            work()
            before = time.perf_counter()
            work()
            times[count].append(time.perf_counter() - before)
    return {count: statistics.median(values) for count, values in times.items()}


def _say(what: str, count: int, cores: int, seconds: dict[int, float]) -> None:
    times = ', '.join(f'{other}: {value * 1000:.0f} ms' for other, value in sorted(seconds.items()))
    print_log(f'{what} uses {count} of {cores} cores (time of a step by number of threads: {times}; '
              'OMP_NUM_THREADS sets it)', 'current', level=logging.INFO)


def sample_work(size: int = 24) -> Callable[[], None]:
    """A piece of training like that of our models: convolutions, attention and many small operators.

    Args:
        size: side of the maps, in cells.
    """
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(8, 32, size, size, generator=generator)
    kernel = torch.randn(32, 32, 3, 3, generator=generator).requires_grad_()
    weight = torch.randn(32, 128, generator=generator).requires_grad_()

    def work() -> None:
        tokens = torch.nn.functional.conv2d(maps, kernel, padding=1).relu().flatten(2).transpose(1, 2)
        for _ in range(4):
            wide = torch.nn.functional.layer_norm(tokens @ weight, (128, ))
            tokens = tokens + wide.relu() @ weight.t()
        mixed = torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        torch.autograd.grad(mixed.square().mean(), (kernel, weight))

    return work
