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


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='x.pth does not exist'):
        read_state(tmp_path / 'x.pth')
    with pytest.raises(FileNotFoundError, match='is a folder'):
        read_state(tmp_path)


@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors'])
@pytest.mark.parametrize('share', [0.3, 0.9])
def test_a_truncated_file_is_called_so(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    big = {'a': torch.rand(100, 100)}
    save_file(big, path) if name.endswith('safetensors') else torch.save(big, path)
    content = path.read_bytes()
    path.write_bytes(content[:int(share * len(content))])
    with pytest.raises(ValueError, match='truncated or damaged'):
        read_state(path)


def test_a_truncated_old_style_file_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / 'x.pth'
    torch.save({'a': torch.rand(100, 100)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ValueError, match='truncated or damaged'):
        read_state(path)


def test_noise_is_called_damaged(tmp_path: Path) -> None:
    (tmp_path / 'x.pth').write_bytes(bytes(range(256)) * 8)
    with pytest.raises(ValueError, match='truncated or damaged'):
        read_state(tmp_path / 'x.pth')


@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors'])
@pytest.mark.parametrize('content, message', [
    (b'<!DOCTYPE html><html>not found</html>', "is a text file, not a checkpoint; it begins with '<!DOCTYPE"),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:1\n', 'Git LFS pointer'),
    (b'', 'is empty'),
])
def test_text_in_place_of_weights_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_state(tmp_path / name)


class Anything:
    """Not a tensor."""


@pytest.mark.parametrize('zipped', [True, False])
def test_a_pickle_with_objects_is_refused_and_the_way_out_named(tmp_path: Path, zipped: bool) -> None:
    torch.save({'state_dict': STATE, 'config': Anything()}, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match='holds Python objects besides tensors .*Anything.*save its tensors alone'):
        read_state(tmp_path / 'x.pth')


@pytest.mark.parametrize('content, message', [([1, 2], 'holds a list; expected a state dict'),
                                              ({'epoch': 1}, 'holds no tensors')])
def test_a_file_without_weights_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=message):
        read_state(tmp_path / 'x.pth')
