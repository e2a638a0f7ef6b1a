from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from frozenmm.foundation.state_file import read_state

STATE = {'a.weight': torch.arange(6.0).view(2, 3), 'a.bias': torch.zeros(2)}


def _same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / 'x.safetensors')
    assert _same(read_state(tmp_path / 'x.safetensors'))


@pytest.mark.parametrize('content', [STATE, {'state_dict': STATE, 'epoch': 3}, {'model': STATE},
                                     {'model': {'module': STATE}},
                                     {f'module.{key}': value for key, value in STATE.items()}])
@pytest.mark.parametrize('zipped', [True, False])
def test_state_dicts_are_found_in_their_usual_wrappings(tmp_path: Path, content: dict, zipped: bool) -> None:
    torch.save(content, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    assert _same(read_state(tmp_path / 'x.pth'))


def test_a_torchscript_archive_gives_its_state(tmp_path: Path) -> None:
    linear = nn.Linear(3, 2)
    torch.jit.trace(linear, torch.zeros(1, 3)).save(str(tmp_path / 'x.pt'))
    state = read_state(tmp_path / 'x.pt')
    assert torch.equal(state['weight'], linear.weight) and set(state) == {'weight', 'bias'}


@pytest.mark.parametrize('content', [{'epoch': 1}, {'state_dict': {}}])
def test_a_file_without_weights_is_refused(tmp_path: Path, content: dict) -> None:
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='holds no (tensors|weights at all)'):
        read_state(tmp_path / 'x.pth')
