from __future__ import annotations

import pytest
import torch

from frozenmm.compat.devices import resolve_device
from frozenmm.errors import DeviceError


@pytest.mark.parametrize(('cuda', 'mps', 'kind'), [(True, True, 'cuda'), (False, True, 'mps'), (False, False, 'cpu')])
def test_auto_takes_the_best_that_is_there(monkeypatch, cuda, mps, kind):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: cuda)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: mps)
    assert resolve_device('auto') == torch.device(kind)


def test_a_device_is_one_already():
    assert resolve_device(torch.device('cpu')) == resolve_device('cpu') == torch.device('cpu')


def test_a_number_that_does_not_exist_says_how_many_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert resolve_device('cuda:1') == torch.device('cuda', 1)
    with pytest.raises(DeviceError, match="'cuda:2' cannot be used: there are 2 CUDA devices, counted from 0"):
        resolve_device('cuda:2')


def test_a_build_for_the_cpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.version, 'cuda', None)
    with pytest.raises(DeviceError, match='is a build for the CPU; write cpu, or auto'):
        resolve_device('cuda')


@pytest.mark.parametrize('name', ['gpu', '', 'cuda:x'])
def test_another_word_is_answered_with_those_that_are_known(name):
    with pytest.raises(DeviceError, match='device must be auto, cpu, cuda'):
        resolve_device(name)
