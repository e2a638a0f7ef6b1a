from __future__ import annotations

import io
import re
from types import SimpleNamespace

from frozenmm.engine.progress import ProgressHook


def _runner(done, total=10):
    return SimpleNamespace(iter=done, max_iters=total, test_dataloader=range(5))


class Unread:
    """A loss that nobody may look at."""

    def __array__(self, *_):
        raise AssertionError('the loss was read although no line was due')


def test_a_file_gets_a_line_now_and_then_and_one_at_the_end(capsys):
    hook = ProgressHook('(a)', every=1000)
    hook.before_train(_runner(0))
    for done in range(9):
        hook.after_train_iter(_runner(done), done, outputs={'loss': Unread()})
    hook.after_train_iter(_runner(9), 9, outputs={'loss': 1.234})
    (line, ) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r'10 of 10 iterations \(\(a\) training, loss 1\.23\), [\d.]+ iterations/s, 0 s left', line)


def test_a_resumed_run_counts_on_and_a_moved_end_is_followed(capsys):
    hook = ProgressHook(every=0)
    hook.before_train(_runner(4))
    hook.after_train_iter(_runner(4, total=30), 4, outputs={'loss': 1.0})
    assert capsys.readouterr().err.startswith('5 of 30 iterations (training, loss 1.00)')


def test_testing_is_reported_by_batches(capsys):
    hook = ProgressHook(every=0)
    hook.before_test(_runner(0))
    for index in range(5):
        hook.after_test_iter(_runner(0), index)
    assert capsys.readouterr().err.splitlines()[-1].startswith('5 of 5 batches (testing)')


def test_a_terminal_gets_one_line_that_is_rewritten(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr('sys.stderr', stream)
    hook = ProgressHook()
    hook.before_train(_runner(0, total=3))
    hook._progress._every = 0
    for done in range(3):
        hook.after_train_iter(_runner(done, total=3), done, outputs={'loss': 1.0})
    assert stream.getvalue().count('\r') == 2 and stream.getvalue().count('\n') == 1
