from __future__ import annotations

import pytest

from frozenmm.engine import ThreadsHook, threads_hook


class _Recorder:
    """A tuner that notes which steps it saw."""

    def __init__(self, what):
        self.what, self.steps = what, []

    def begin(self):
        return 1.0

    def end(self, start):
        if start is not None:
            self.steps.append(start)


@pytest.fixture
def hook(monkeypatch):
    monkeypatch.setattr(threads_hook, 'ThreadTuner', _Recorder)
    return ThreadsHook()


def test_training_steps_are_measured_and_validations_are_not(hook):
    hook.before_train(None)
    for step in range(3):
        hook.before_train_iter(None, step)
        hook.after_train_iter(None, step)
        hook.before_val_iter(None, step)
        hook.after_val_iter(None, step)
    assert hook._tuner.what == 'training' and hook._tuner.steps == [1.0] * 3


def test_test_steps_are_measured(hook):
    hook.before_test(None)
    hook.before_test_iter(None, 0)
    hook.after_test_iter(None, 0)
    assert hook._tuner.what == 'testing' and hook._tuner.steps == [1.0]


def test_a_validation_alone_measures_nothing(hook):
    hook.before_val_iter(None, 0)
    hook.after_val_iter(None, 0)
    assert hook._tuner is None
