from __future__ import annotations

from types import SimpleNamespace

from frozenmm.engine.progress import ProgressHook


def _runner(done, total=10):
    hub = SimpleNamespace(runtime_info={'eta': 4.2}, get_info=lambda key: 4.2)
    return SimpleNamespace(iter=done - 1, max_iters=total, message_hub=hub, test_dataloader=range(5))


def test_a_file_gets_a_line_now_and_then_and_one_at_the_end(capsys):
    hook = ProgressHook('(a)', every=1000)
    for done in range(1, 11):
        hook.after_train_iter(_runner(done), done - 1, outputs={'loss': 1.234})
    lines = capsys.readouterr().err.splitlines()
    assert lines == ['(a): training, iteration 1 of about 10, loss 1.23, 4 s left',
                     '(a): training, iteration 10 of about 10, loss 1.23, 4 s left']


def test_testing_is_reported_by_batches(capsys):
    hook = ProgressHook(every=0)
    for index in range(5):
        hook.after_test_iter(_runner(1), index)
    assert capsys.readouterr().err.splitlines()[-1] == 'testing, batch 5 of 5'


def test_a_terminal_gets_one_line_that_is_rewritten(capsys, monkeypatch):
    import io
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(ProgressHook, '_stream', staticmethod(lambda: stream))
    hook = ProgressHook(every=0)
    for done in (1, 2, 10):
        hook.after_train_iter(_runner(done), done - 1, outputs={'loss': 1.0})
    assert stream.getvalue().count('\r') == 3 and stream.getvalue().count('\n') == 1
