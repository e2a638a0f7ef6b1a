from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch

from frozenmm.compat import threads
from frozenmm.compat.threads import ThreadTuner, fastest, sample_work, steady_threads, threads_of_user, usable_cores


@pytest.fixture(autouse=True)
def four_free_cores(monkeypatch):
    """Four cores, and torch with as many threads as it takes by itself; afterwards as before."""
    before = torch.get_num_threads()
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads.os, 'sched_getaffinity', lambda process: range(4), raising=False)
    monkeypatch.setattr(threads, '_quota', lambda root: None)
    monkeypatch.setattr(threads, '_physical_cores', lambda: 4)
    monkeypatch.setattr(threads, '_chosen', None)
    monkeypatch.setattr(threads, '_kept', False)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


class _Machine:
    """A clock that a step moves on by the seconds that its number of threads takes."""

    def __init__(self, seconds):
        self.now, self.seconds, self.used = 0.0, seconds, []

    def run(self, tuner, steps):
        for _ in range(steps):
            with tuner.step():
                self.used.append(torch.get_num_threads())
                self.now += self.seconds[torch.get_num_threads()]


def _tuner(machine):
    return ThreadTuner('a test', clock=lambda: machine.now)


def test_a_busy_machine_ends_with_one_thread_in_two_searches():
    machine = _Machine({1: 1.0, 2: 2.0, 4: 5.0})
    machine.run(_tuner(machine), 20)
    assert machine.used[:3] == [4] * 3 and machine.used[-5:] == [1] * 5


def test_a_quiet_machine_keeps_its_threads_and_trials_cost_2_percent():
    machine = _Machine({1: 1.0, 2: 0.5, 4: 0.25})
    machine.run(_tuner(machine), 20000)
    assert machine.used[-1] == 4
    assert machine.now < 20000 * 0.25 * 1.03


def test_a_machine_that_becomes_quiet_is_noticed():
    machine = _Machine({1: 1.0, 2: 2.0, 4: 5.0})
    tuner = _tuner(machine)
    machine.run(tuner, 100)
    machine.seconds = {1: 1.0, 2: 0.5, 4: 0.25}
    machine.run(tuner, 3000)
    assert machine.used[-1] == 4


def test_small_differences_change_nothing():
    assert fastest({4: 1.0, 2: 0.97}, 4) == 4 and fastest({4: 1.0, 2: 0.9}, 4) == 2


def test_a_step_that_fails_is_not_counted():
    tuner = _tuner(_Machine({}))
    with pytest.raises(RuntimeError), tuner.step():
        raise RuntimeError('no')
    assert all(not times for times in tuner._times.values())


@pytest.mark.parametrize('by', ['variable', 'call'])
def test_a_number_that_the_user_set_is_never_changed(monkeypatch, by):
    if by == 'variable':
        monkeypatch.setenv('OMP_NUM_THREADS', '4')
    else:
        torch.set_num_threads(3)
    count = torch.get_num_threads()
    assert threads_of_user() == count
    machine = _Machine({1: 1.0, 2: 1.0, 3: 9.0, 4: 9.0})
    machine.run(_tuner(machine), 12)
    assert set(machine.used) == {count}
    with steady_threads('a test', sample_work(4), seconds=0.01) as kept:
        assert kept == count


def test_a_number_chosen_here_is_no_wish_of_the_user():
    threads.set_threads(2)
    assert threads_of_user() is None


def test_a_steady_block_keeps_its_number_and_gives_the_former_back():
    with steady_threads('a test', lambda: time.sleep(0.001 * torch.get_num_threads()), seconds=0.02) as count:
        assert count == torch.get_num_threads() == 1
        assert not ThreadTuner('another').active
        with steady_threads('inside', lambda: time.sleep(0.01 / torch.get_num_threads()), seconds=0.02) as inner:
            assert inner == 1
    assert torch.get_num_threads() == 4 and ThreadTuner('another').active


@pytest.mark.parametrize(('files', 'cores'), [
    ({'cpu.max': '150000 100000'}, 2), ({'cpu.max': 'max 100000'}, 4), ({'cpu.max': '10000 100000'}, 1), ({}, 4),
    ({'cpu/cpu.cfs_quota_us': '300000', 'cpu/cpu.cfs_period_us': '100000'}, 3),
    ({'cpu/cpu.cfs_quota_us': '-1', 'cpu/cpu.cfs_period_us': '100000'}, 4),
    ({'cpu.max': 'nonsense'}, 4),
])
def test_cores_are_those_of_affinity_and_quota(monkeypatch, tmp_path, files, cores):
    monkeypatch.undo()
    monkeypatch.setattr(threads.os, 'sched_getaffinity', lambda process: range(4), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores


def test_a_fresh_torch_is_not_taken_for_a_wish():
    found = subprocess.run([sys.executable, '-c', 'from frozenmm.compat.threads import threads_of_user; '
                            'print(threads_of_user())'], capture_output=True, text=True, check=True)
    assert found.stdout.split()[-1] == 'None'
