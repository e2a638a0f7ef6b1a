"""Work that several processes share: every unit once, and nobody's death loses one."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from frozenmm.errors import UserError
from frozenmm.foundation.feature_cache.work import SharedWork

WORKER = '''
import sys, time
from pathlib import Path
from frozenmm.foundation.feature_cache.work import SharedWork
folder, stop = Path(sys.argv[1]), int(sys.argv[2])
work = SharedWork(folder / 'work')
print('here', flush=True)
sys.stdin.readline()
for number, unit in enumerate(work.units('pictures', 40, 4)):
    if number == stop:
        print('stopped at', unit.start, flush=True)
        time.sleep(60)
    with (folder / 'done').open('a') as file:
        file.write(' '.join(map(str, unit)) + '\\n')
    time.sleep(0.02)
'''


def start(folder: Path, stop: int = -1) -> subprocess.Popen:
    worker = subprocess.Popen([sys.executable, '-c', WORKER, str(folder), str(stop)], stdout=subprocess.PIPE,
                              stdin=subprocess.PIPE, text=True,
                              env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})
    assert worker.stdout.readline() == 'here\n'
    return worker


def begin(*workers: subprocess.Popen) -> None:
    for worker in workers:
        worker.stdin.write('\n')
        worker.stdin.flush()


def done(folder: Path) -> list[int]:
    return [int(item) for item in (folder / 'done').read_text().split()]


def test_two_processes_do_every_unit_once(tmp_path):
    workers = [start(tmp_path), start(tmp_path)]
    begin(*workers)
    assert [worker.wait(60) for worker in workers] == [0, 0]
    assert sorted(done(tmp_path)) == list(range(40))


def test_the_unit_of_a_killed_process_is_done_by_another(tmp_path):
    victim = start(tmp_path, stop=2)
    begin(victim)
    assert victim.stdout.readline() == 'stopped at 8\n'
    other = start(tmp_path)
    begin(other)
    while len((tmp_path / 'done').read_text().splitlines()) < 9:  # all but the one in the victim's hands
        assert other.poll() is None
    victim.send_signal(signal.SIGKILL)
    victim.wait(60)
    assert other.wait(60) == 0
    assert sorted(done(tmp_path)) == list(range(40))


def test_a_later_start_looks_at_everything_again(tmp_path):
    for _ in range(2):
        work = SharedWork(tmp_path)
        assert [list(unit) for unit in work.units('pictures', 5, 2)] == [[0, 1], [2, 3], [4]]
        assert not list(work.units('pictures', 5, 2)) and list(work.units('others', 5, 5))
        work.close()


def test_a_unit_that_ends_in_an_error_is_not_done(tmp_path):
    work = SharedWork(tmp_path)
    units = work.units('pictures', 4, 2)
    assert next(units) == range(2)
    with pytest.raises(RuntimeError, match='broken picture'):
        units.throw(RuntimeError('broken picture'))
    assert list(work.units('pictures', 4, 2)) == [range(2), range(2, 4)]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'work').write_text('')
    with pytest.raises(UserError, match='notes of shared work cannot be written to .*work'):
        SharedWork(tmp_path / 'work')
