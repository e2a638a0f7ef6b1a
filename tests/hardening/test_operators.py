"""Operators under numbers that overflow, libraries that are cut off, and folders that cannot be written to."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from frozenmm.ops import build, loader, mask_pool, ms_deform_attn, ms_deform_attn_fused

LIBRARY = Path(loader.__file__).with_name('_lib') / 'libfrozenmm_cpu.so'
built = pytest.mark.skipif(not LIBRARY.is_file(), reason='the CPU library is not built')


@pytest.mark.parametrize('shapes', [[[1 << 33, 1 << 31], [1, 4]], [[1 << 32, 1 << 32], [2, 2]], [[1 << 62, 4], [2, 2]],
                                    [[3, (1 << 63) // 3 + 1], [1, 1]], [[-1, -4], [2, 2]], [[5, 1], [1, 1]],
                                    [[1 << 63 - 1, 1 << 63 - 1], [2, 2]]])
@pytest.mark.parametrize('fused', [False, True])
def test_sizes_whose_product_overflows_are_refused(shapes, fused):
    keys = 4
    first = (shapes[0][0] * shapes[0][1] + (1 << 63)) % (1 << 64) - (1 << 63)  # what 64 bits keep of it
    sizes, starts = torch.tensor(shapes), torch.tensor([0, first])
    value, points = torch.randn(1, keys, 2, 4), torch.rand(1, 3, 2, 2, 2, 2)
    with pytest.raises((RuntimeError, ValueError)):
        if fused:
            ms_deform_attn_fused(value, sizes, starts, torch.rand(1, 3, 2, 2), points, torch.rand(1, 3, 2, 4))
        else:
            ms_deform_attn(value, sizes, starts, points, torch.rand(1, 3, 2, 2, 2))


@built
def test_products_of_lengths_beyond_64_bits_are_refused():
    """Empty tensors can have them; `tests/ops/test_cuda.py` asks the same of CUDA."""
    refuse_lengths('cpu')


def refuse_lengths(device):
    heads, channels = 1 << 31, 1 << 27
    value, points = torch.empty(0, 4, heads, channels, device=device), torch.empty(0, 0, heads, 1, 1, 2, device=device)
    shapes, starts = torch.tensor([[2, 2]], device=device), torch.tensor([0], device=device)
    with pytest.raises(RuntimeError, match='value would have more than 2.57 numbers'):
        torch.ops.frozenmm.ms_deform_attn(value, shapes, starts, points, points[..., 0])
    for height, width in ((1 << 32, 1 << 32), ((1 << 32) + 1, 1 << 32), (1, 1 << 30)):
        with pytest.raises(RuntimeError, match='height and width must be at least 1 and below 2.30'):
            torch.ops.frozenmm.mask_pool_backward(torch.zeros(1, 2, 3, device=device),
                                                  torch.zeros(1, 2, 4, 4, device=device), height, width, 0.0, 1e-8)


def _attention(value):
    points = torch.rand(1, 3, 2, 1, 2, 2)
    return ms_deform_attn(value, torch.tensor([[2, 2]]), torch.tensor([0]), points, torch.rand(1, 3, 2, 1, 2))


def _fused(value):
    points = torch.rand(1, 3, 2, 1, 2, 2)
    return ms_deform_attn_fused(value, torch.tensor([[2, 2]]), torch.tensor([0]), torch.rand(1, 3, 1, 2), points,
                                torch.rand(1, 3, 2, 2))


@pytest.mark.parametrize('function, shape', [(_attention, (1, 4, 2, 4)), (_fused, (1, 4, 2, 4)), (
    lambda features: mask_pool(features, torch.ones(1, 2, 3, 3)), (1, 2, 3, 3))], ids=['plain', 'fused', 'mask_pool'])
def test_forward_derivatives_are_refused_and_not_zero(function, shape):
    value = torch.randn(shape)
    with pytest.raises(RuntimeError, match='no forward-mode derivatives'):
        torch.func.jvp(function, (value, ), (torch.ones_like(value), ))
    assert function(value).isfinite().all()  # and nothing of it stays


@pytest.fixture
def package(tmp_path):
    """A copy of the package's folder `_lib`, and a command that imports the operators from it in a new process."""
    folder = tmp_path / '_lib'
    shutil.copytree(LIBRARY.parent, folder, ignore=shutil.ignore_patterns('obj_*'))

    def imported(code='', **environment):
        script = f'import frozenmm.ops.loader as l; l._libraries = None; l.LIBRARIES = __import__("pathlib").Path(' \
                 f'{str(folder)!r}); import sys; sys.orig_argv = []; l._state.clear(); l.load(); ' \
                 f'print(l.backend()); {code}'
        return subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=200,
                              env={**os.environ, 'FROZENMM_OPS': 'auto', **environment})
    return folder, imported


DAMAGES = {
    'half': lambda path: path.write_bytes(path.read_bytes()[:path.stat().st_size // 2]),
    'empty': lambda path: path.write_bytes(b''),
    'zeros': lambda path: path.write_bytes(bytes(path.stat().st_size)),
    'longer': lambda path: path.write_bytes(path.read_bytes() + b'x'),
    'stamp gone': lambda path: path.with_suffix('.json').unlink(),
    'stamp broken': lambda path: path.with_suffix('.json').write_text('{"digest": '),
    'stamp of another kind': lambda path: path.with_suffix('.json').write_text('[1, 2]'),
}


@built
@pytest.mark.parametrize('damage', sorted(DAMAGES))
def test_a_damaged_library_is_not_loaded_and_built_again(damage, tmp_path, monkeypatch):
    folder = tmp_path / '_lib'
    shutil.copytree(LIBRARY.parent, folder, ignore=shutil.ignore_patterns('obj_*'))
    for module in (build, loader):
        monkeypatch.setattr(module, 'LIBRARIES', folder)
    assert loader.is_whole('cpu', loader.read_stamp('cpu'))
    DAMAGES[damage](folder / LIBRARY.name)
    state = loader._open(folder / LIBRARY.name, 'cpu')
    assert not state.loaded and 'python -m frozenmm.ops.build' in state.reason
    if shutil.which('g++'):
        assert not build.is_current(build.find_target('cpu'))


@built
def test_a_library_cut_in_half_leaves_the_process_alive(package):
    folder, imported = package
    assert imported().stdout.splitlines()[-1] == 'native'
    DAMAGES['half'](folder / LIBRARY.name)
    done = imported()
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == 'torch', done.stderr


def test_an_unwritable_package_builds_into_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path))
    monkeypatch.setattr(loader, '__file__', str(tmp_path / 'package' / 'loader.py'))
    (tmp_path / 'package').mkdir()
    assert loader._libraries() == tmp_path / 'package' / '_lib'
    monkeypatch.setattr(os, 'access', lambda *_: False)  # the tests may run as root, who may write anywhere
    assert loader._libraries().parent == tmp_path / 'ops'
    monkeypatch.setattr(build, 'LIBRARIES', Path('/proc/nowhere'))
    if shutil.which('g++'):
        with pytest.raises(build.BuildError, match='set FROZENMM_HOME'):
            build.build_library('cpu')


@pytest.mark.parametrize('command', [['tools/train.py', 'x.py'], ['tools/test.py', 'x.py'], ['-m', 'frozenmm.env']])
def test_a_wrong_choice_of_operators_is_a_sentence(command, repo_root):
    done = subprocess.run([sys.executable, *command], cwd=repo_root, capture_output=True, text=True, timeout=200,
                          env={**os.environ, 'FROZENMM_OPS': 'rubbish', 'PYTHONPATH': str(repo_root)})
    assert done.returncode != 0 and 'Traceback' not in done.stderr, done.stderr
    assert "FROZENMM_OPS='rubbish' is unknown; use one of auto, torch, native" in done.stderr
