"""Checkpoint files open safely, and a bad file says what is wrong with it."""
from __future__ import annotations

import argparse
import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save_file

from frozenmm.compat.checkpoint import UnsafeCheckpoint, load_checkpoint_file, open_checkpoints_safely

MARK = Path(tempfile.gettempdir(), 'written_by_a_checkpoint')


class Attack:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (MARK, )


@dataclass
class Note:
    """What a hook of a user might store."""
    number: int


@pytest.fixture(autouse=True)
def mmengine_loader():
    before = dict(CheckpointLoader._schemes)
    yield
    CheckpointLoader._schemes = before


def test_weights_with_a_namespace_open(tmp_path):
    torch.save(dict(model=dict(w=torch.ones(2)), args=argparse.Namespace(lr=0.1)), tmp_path / 'a.pth')
    content = load_checkpoint_file(tmp_path / 'a.pth')
    assert content['args'].lr == 0.1 and torch.equal(content['model']['w'], torch.ones(2))


def test_what_the_runner_stores_beside_the_weights_opens(tmp_path):
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    hub = dict(log_scalars={'train/loss': history}, runtime_info={'iter': 3, 'rate': np.float32(0.5), 'ok': np.True_})
    torch.save(dict(state_dict=dict(w=torch.ones(2)), message_hub=hub), tmp_path / 'iter_3.pth')
    opened = load_checkpoint_file(tmp_path / 'iter_3.pth')['message_hub']
    assert opened['log_scalars']['train/loss'].statistics('mean') == 2.0
    assert opened['runtime_info'] == dict(iter=3, rate=np.float32(0.5), ok=True)


class LooksUp:
    """Gets hold of a function through `getattr` when it is unpickled."""

    def __reduce__(self) -> tuple:
        return getattr, (HistoryBuffer, '__init__')


def test_other_look_ups_of_attributes_are_refused(tmp_path):
    torch.save(dict(w=torch.ones(1), x=LooksUp()), tmp_path / 'a.pth')
    with pytest.raises(UnsafeCheckpoint, match='Unsupported getattr'):
        load_checkpoint_file(tmp_path / 'a.pth')


def test_safetensors_open_with_their_header(tmp_path):
    save_file(dict(w=torch.ones(2)), tmp_path / 'a.safetensors', metadata=dict(config='{"classes": 80}', note='plain'))
    content = load_checkpoint_file(tmp_path / 'a.safetensors')
    assert torch.equal(content['state_dict']['w'], torch.ones(2))
    assert content['meta'] == dict(config=dict(classes=80), note='plain')


def test_a_torchscript_archive_gives_its_state_dict(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 3)).save(str(tmp_path / 'a.pt'))
    assert set(load_checkpoint_file(tmp_path / 'a.pt')['state_dict']) == {'weight', 'bias'}


@pytest.mark.parametrize('legacy', [False, True])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, legacy):
    torch.save(dict(w=torch.ones(1), x=Attack()), tmp_path / 'a.pth', _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafeCheckpoint, match='Python objects .*save its tensors alone.*Unsupported'):
        load_checkpoint_file(tmp_path / 'a.pth')
    assert not MARK.exists()


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match='gone.pth does not exist'):
        load_checkpoint_file(tmp_path / 'gone.pth')
    with pytest.raises(FileNotFoundError, match='is a folder'):
        load_checkpoint_file(tmp_path)


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
@pytest.mark.parametrize('content,message', [
    (b'', 'is empty'), (b'<!DOCTYPE html>\n<html>not found</html>', "is a text file, .* begins with '<!DOCTYPE"),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'Git LFS pointer'),
    (bytes(range(128, 256)) * 4, 'truncated, damaged or no checkpoint')])
def test_what_is_no_checkpoint_says_so(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_checkpoint_file(tmp_path / name)


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
@pytest.mark.parametrize('share', [0.3, 0.9])
def test_a_truncated_file_says_so(tmp_path, name, share):
    path = tmp_path / name
    state = dict(w=torch.randn(1000))
    save_file(state, path) if name.endswith('safetensors') else torch.save(state, path)
    content = path.read_bytes()
    path.write_bytes(content[:int(share * len(content))])
    with pytest.raises(ValueError, match='truncated'):
        load_checkpoint_file(path)


def test_a_truncated_legacy_file_says_so(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(w=torch.randn(1000)), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(ValueError, match='truncated'):
        load_checkpoint_file(path)


def test_a_file_without_a_dictionary_says_so(tmp_path):
    torch.save([torch.ones(1)], tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='holds a list'):
        load_checkpoint_file(tmp_path / 'a.pth')


def test_mmengine_opens_full_pickles_only_when_the_user_says_so(tmp_path):
    torch.save(dict(state_dict=dict(w=torch.ones(1)), message_hub=dict(note=Note(3))), tmp_path / 'a.pth')
    open_checkpoints_safely()
    with pytest.raises(UnsafeCheckpoint, match='run the command again with --trust'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), 'cpu')
    open_checkpoints_safely(trusted=True)
    content = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), 'cpu')
    assert content['message_hub']['note'].number == 3


def test_mmengine_reads_safetensors(tmp_path):
    save_file(dict(w=torch.ones(2)), tmp_path / 'a.safetensors')
    open_checkpoints_safely()
    assert 'w' in CheckpointLoader.load_checkpoint(str(tmp_path / 'a.safetensors'), 'cpu')['state_dict']


@pytest.mark.parametrize('content', [{}, dict(state_dict={}), dict(state_dict=None, meta={})])
def test_a_file_without_weights_is_no_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='holds no weights at all'):
        load_checkpoint_file(tmp_path / 'a.pth')


class Inner(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
        self.sizes = [1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_a_torchscript_archive_gives_what_its_module_would(tmp_path):
    scripted = torch.jit.script(Inner().half())
    scripted.save(str(tmp_path / 'a.pt'))
    expected, found = scripted.state_dict(), load_checkpoint_file(tmp_path / 'a.pt')['state_dict']
    assert list(found) == list(expected) and all(torch.equal(found[key], expected[key]) for key in expected)


class Writes(torch.nn.Module):
    """Writes a file when TorchScript restores it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, str, bool]:
        return self.weight, self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]) -> None:
        self.weight, self.path, self.training = state
        torch.save(self.weight, self.path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_the_code_of_a_torchscript_archive_does_not_run(tmp_path):
    torch.jit.script(Writes(str(tmp_path / 'mark'))).save(str(tmp_path / 'a.pt'))
    with pytest.raises(ValueError, match='holds no weights'):
        load_checkpoint_file(tmp_path / 'a.pt')
    assert not (tmp_path / 'mark').exists()


def test_a_plain_pickle_is_refused(tmp_path):
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(dict(x=Attack())))
    with pytest.raises((UnsafeCheckpoint, ValueError)):
        load_checkpoint_file(tmp_path / 'a.pkl')
    assert not MARK.exists()
