from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from frozenmm.ops import build, loader

compiler = pytest.mark.skipif(shutil.which('g++') is None, reason='no C++ compiler')
needs_nvcc = pytest.mark.skipif(shutil.which('nvcc') is None, reason='no CUDA compiler')
SMALL = 'extern "C" int number() { return 3; }\n'


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree with two small units, built into a folder of its own."""
    (tmp_path / 'csrc' / 'cpu').mkdir(parents=True)
    (tmp_path / 'csrc' / 'cpu' / 'one.cpp').write_text(SMALL)
    (tmp_path / 'csrc' / 'cpu' / 'two.cpp').write_text('#include "two.h"\n')
    (tmp_path / 'csrc' / 'cpu' / 'two.h').write_text('// nothing\n')
    monkeypatch.setattr(build, 'SOURCES', tmp_path / 'csrc')
    monkeypatch.setattr(build, 'LIBRARIES', tmp_path / 'lib')
    monkeypatch.setattr(loader, 'LIBRARIES', tmp_path / 'lib')
    for name in ('CXX', 'NVCC', 'FROZENMM_BUILD'):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-m', module, *arguments], capture_output=True, text=True,
                          env={**os.environ, **environment})


@compiler
def test_a_second_build_does_nothing(tree: Path, capsys: pytest.CaptureFixture) -> None:
    library = build.build_library('cpu')
    made = library.stat().st_mtime_ns
    assert 'compiling 2 units' in capsys.readouterr().out
    assert build.build_library('cpu').stat().st_mtime_ns == made
    assert capsys.readouterr().out == 'libfrozenmm_cpu.so: up to date\n'


@compiler
def test_only_the_changed_unit_is_compiled_again(tree: Path, capsys: pytest.CaptureFixture) -> None:
    build.build_library('cpu')
    (tree / 'csrc' / 'cpu' / 'one.cpp').write_text(SMALL.replace('3', '4'))
    assert not build.is_current(build.find_target('cpu'))
    capsys.readouterr()
    build.build_library('cpu')
    out = capsys.readouterr().out
    assert 'two.cpp: unchanged' in out and 'one.cpp: unchanged' not in out


@compiler
def test_a_changed_header_compiles_everything_again(tree: Path, capsys: pytest.CaptureFixture) -> None:
    build.build_library('cpu')
    (tree / 'csrc' / 'cpu' / 'two.h').write_text('// something\n')
    capsys.readouterr()
    build.build_library('cpu')
    assert 'unchanged' not in capsys.readouterr().out


@compiler
def test_a_new_unit_is_picked_up(tree: Path) -> None:
    build.build_library('cpu')
    (tree / 'csrc' / 'cpu' / 'three.cpp').write_text('')
    assert not build.is_current(build.find_target('cpu'))


@compiler
def test_a_compiler_error_is_shown_and_leaves_the_old_library(tree: Path) -> None:
    library = build.build_library('cpu')
    before = library.read_bytes()
    (tree / 'csrc' / 'cpu' / 'one.cpp').write_text('int number( { }')
    with pytest.raises(build.BuildError, match=r'compiling one.cpp failed with exit code 1:\n.*\n[\s\S]*error'):
        build.build_library('cpu')
    assert library.read_bytes() == before
    assert not [p for p in (tree / 'lib').rglob('*.part')]


def test_units_of_an_instruction_set_get_its_flags_and_no_other() -> None:
    assert '-mavx512f' in build.compile_flags('cpu', 'kernel_avx512')
    assert '-mavx2' in build.compile_flags('cpu', 'kernel_avx2') and '-mavx512f' not in build.compile_flags(
        'cpu', 'kernel_avx2')
    for stem in ('kernel', 'kernel_avx2', 'kernel_avx512'):
        flags = build.compile_flags('cpu', stem)
        assert '-march=native' not in flags and '-ffast-math' not in flags
    assert not any(f.startswith('-mavx') for f in build.compile_flags('cpu', 'kernel'))


def test_cuda_is_compiled_for_ampere_and_hopper_and_later() -> None:
    text = ' '.join(build.compile_flags('cuda', 'kernel'))
    assert 'sm_80' in text and 'code=[sm_90,compute_90]' in text


def test_x86_units_are_left_out_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tuple(Path(n) for n in ('k.cpp', 'k_avx2.cpp', 'k_avx512.cpp'))
    target = build.Target('cpu', 'c++', sources, ())
    monkeypatch.setattr(build.platform, 'machine', lambda: 'aarch64')
    assert build.usable(target) == (Path('k.cpp'), )
    monkeypatch.setattr(build.platform, 'machine', lambda: 'x86_64')
    assert build.usable(target) == sources


# ------------------------------------------------------------------------------------------------ what to build
@pytest.mark.parametrize('argument, variable, expected', [(None, None, 'cpu'), (None, 'cuda', 'cuda'),
                                                          ('none', 'cuda', 'none'), (None, '', 'cpu')])
def test_the_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, argument: str | None,
                                                variable: str | None, expected: str) -> None:
    monkeypatch.delenv('FROZENMM_BUILD', raising=False)
    if variable is not None:
        monkeypatch.setenv('FROZENMM_BUILD', variable)
    assert build.choice(argument) == expected


def test_an_unknown_choice_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv('FROZENMM_BUILD', 'gpu')
    with pytest.raises(ValueError, match='FROZENMM_BUILD=\'gpu\' is unknown; use one of cpu, cuda, none'):
        build.choice()
    assert build.main([]) == 1
    assert 'is unknown' in capsys.readouterr().err


def test_none_builds_nothing(tree: Path, capsys: pytest.CaptureFixture) -> None:
    assert build.main(['none']) == 0
    assert 'every operator uses its torch path' in capsys.readouterr().out and not (tree / 'lib').exists()


def test_a_missing_compiler_is_an_error_that_says_what_to_install(tree: Path, monkeypatch: pytest.MonkeyPatch,
                                                                  capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(build.shutil, 'which', lambda name: None)
    assert build.main(['cpu']) == 1
    error = capsys.readouterr().err
    assert 'no C++ compiler found (looked for g++, clang++, c++)' in error and 'apt-get install g++' in error
    with pytest.raises(build.BuildError, match='no CUDA compiler found .* set CUDA_HOME, or set NVCC to one'):
        build.find_compiler('cuda')


def test_the_compiler_named_by_the_environment_is_used(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(build.BuildError, match='looked for no-such-compiler'):
        build.find_compiler('cpu')


def test_missing_sources_are_an_error(tree: Path) -> None:
    with pytest.raises(build.BuildError, match=r'no \*.cu files in .*csrc.cuda. The kernels are compiled from'):
        build.find_target('cuda')


# ---------------------------------------------------------------------------------------------------- the loader
def test_the_torch_path_can_be_forced() -> None:
    done = run('frozenmm.env', FROZENMM_OPS='torch')
    assert done.returncode == 0, done.stderr
    assert 'ms_deform_attn             cpu   torch   FROZENMM_OPS=torch' in done.stdout


def test_an_unknown_mode_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('FROZENMM_OPS', 'fast')
    with pytest.raises(ValueError, match='FROZENMM_OPS=\'fast\' is unknown; use one of auto, torch, native'):
        loader.mode()


@pytest.fixture
def unloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(loader, '_state', {})
    monkeypatch.setattr(loader, 'LIBRARIES', tmp_path)
    return tmp_path


def test_native_mode_without_the_library_is_an_error(unloaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('FROZENMM_OPS', 'native')
    with pytest.raises(RuntimeError, match='native, but libfrozenmm_cpu.so is not built; run `python -m frozenmm.ops'):
        loader.load()


def test_a_missing_library_is_one_warning_and_the_torch_path(unloaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('FROZENMM_OPS', 'auto')
    lines = []
    monkeypatch.setattr(loader, 'print_log', lambda text, **options: lines.append(text))
    assert loader.backend('cpu') == 'torch' and loader.backend('cpu') == 'torch'
    assert len(lines) == 1 and 'torch path (libfrozenmm_cpu.so is not built' in lines[0]
    assert loader.implementation('ms_deform_attn') == (
        'torch', 'libfrozenmm_cpu.so is not built; run `python -m frozenmm.ops.build`')


def test_a_library_that_does_not_load_says_why(unloaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('FROZENMM_OPS', 'auto')
    (unloaded / 'libfrozenmm_cpu.so').write_text('no library')
    stamp = dict(size=10, sha256=hashlib.sha256(b'no library').hexdigest(), torch='1.0')
    (unloaded / 'libfrozenmm_cpu.json').write_text(json.dumps(stamp))
    assert loader.backend('cpu') == 'torch'
    reason = loader.implementation('ms_deform_attn')[1]
    assert 'does not load' in reason and 'built for torch 1.0' in reason and torch.__version__ in reason


def test_an_unknown_operator_is_an_error() -> None:
    with pytest.raises(ValueError, match='no operator \'ms_deform\' in frozenmm.ops; there are .*ms_deform_attn'):
        loader.implementation('ms_deform')


def test_devices_without_kernels_use_the_torch_path() -> None:
    assert loader.backend('meta') == 'torch'
    assert loader.implementation('ms_deform_attn', 'mps') == ('torch', 'no kernels for mps')


@needs_nvcc
def test_the_cuda_library_loads_and_registers_beside_a_cpu_torch() -> None:
    if not loader.library_path('cuda').exists():
        pytest.skip('the CUDA library is not built; FROZENMM_BUILD=cuda builds it')
    script = ('import torch, frozenmm.ops\nfrom frozenmm.ops import loader\n'
              'torch.ops.load_library(str(loader.library_path("cuda")))\n'
              'names = [n for n in loader.operators() if n.startswith("ms_deform_attn")]\n'
              'assert len(names) == 4\n'
              'for n in names:\n'
              '  assert torch._C._dispatch_has_kernel_for_dispatch_key("frozenmm::" + n, "CUDA"), n\n')
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@compiler
@pytest.mark.parametrize('header', sorted(
    path.relative_to(build.SOURCES).as_posix() for path in build.SOURCES.rglob('*.h')
    if '#pragma once' in path.read_text()))
def test_every_header_compiles_alone(header: str, tmp_path: Path) -> None:
    """Those without `#pragma once` are parts of a unit, and say what it must define before them."""
    unit = tmp_path / 'alone.cpp'
    unit.write_text(f'#include "{build.SOURCES / header}"\n')
    target = build.find_target('cpu')
    done = subprocess.run([target.compiler, *build.compile_flags('cpu', 'alone'), '-fsyntax-only', str(unit)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
