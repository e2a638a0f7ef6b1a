"""The emulated device shows what a GPU would compute wrongly in silence; `.ci/cuda_on_cpu` runs the kernels on it."""
from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from build_emulated import HERE, SANITIZERS, flags

pytestmark = pytest.mark.skipif(shutil.which('g++') is None, reason='no C++ compiler')
FAULTS = {
    'missing_barrier': 'a wrong sum',
    'garbage': 'a wrong sum',
    'divergent_shuffle': 'shfl is reached by 16 of 32 lanes; 16 have finished',
    'mixed_operations': 'take part in different operations',
    'divergent_barrier': 'a barrier is reached by 32 of 64 threads, the others have finished',
    'read_past_end': 'heap-buffer-overflow',
    'read_before_begin': 'heap-buffer-overflow',
    'shared_past_end': 'index 64 out of bounds',
    'dynamic_past_end': 'heap-buffer-overflow',
    'misaligned': 'misaligned address',
    'too_much_shared': 'the launch was refused',
}


@pytest.fixture(scope='module')
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('emulator') / 'faulty_kernels'
    libraries = Path(torch.__file__).parent / 'lib'
    subprocess.run(['g++', *flags(80), str(HERE / 'faulty_kernels.cpp'), str(HERE / 'emulator.cpp'), *SANITIZERS,
                    '-o', str(out), '-L', str(libraries), '-ltorch_cpu', '-lc10', f'-Wl,-rpath,{libraries}'],
                   check=True)
    return out


def run(program: Path, kernel: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'ASAN_OPTIONS': 'detect_leaks=0', 'LD_PRELOAD': ''}
    return subprocess.run([str(program), kernel], capture_output=True, text=True, env=environment)


def test_a_sound_kernel_passes(program: Path) -> None:
    done = run(program, 'sound')
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('kernel', FAULTS)
def test_a_faulty_kernel_is_found_out(program: Path, kernel: str) -> None:
    done = run(program, kernel)
    assert done.returncode != 0 and FAULTS[kernel] in done.stderr, done.stderr[-2000:]
