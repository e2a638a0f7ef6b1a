"""Compiles csrc/cuda against the emulated device: `python tests/cuda_emulator/build_emulated.py FOLDER [UNIT ...]`.

The library takes the place of the CPU's in FOLDER: with `FROZENMM_LIBRARIES=FOLDER`, every operator that has a CUDA
kernel runs it, on tensors of the CPU. Built with the address and undefined-behaviour sanitizers; see `.ci/cuda_on_cpu`.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from frozenmm.compat.fetch import file_digest
from frozenmm.ops import build

HERE = Path(__file__).resolve().parent
SANITIZERS = ('-fsanitize=address,bounds,alignment,signed-integer-overflow,shift,integer-divide-by-zero',
              '-fno-sanitize-recover=all', '-fno-omit-frame-pointer', '-g1')


def flags(sm: int) -> list[str]:
    """What a unit is compiled with; -O1 because more takes longer to compile than it saves."""
    include = Path(torch.__file__).parent / 'include'
    return ['-std=c++17', '-O1', '-fPIC', '-fvisibility=hidden', *SANITIZERS, '-DFROZENMM_EMULATED',
            *(['-DFROZENMM_SM90'] if sm >= 90 else []), f'-DTORCH_TARGET_VERSION={build.TORCH_TARGET["cpu"]}',
            '-I', str(HERE), '-isystem', str(include)]


def make(folder: Path, units: list[str], sm: int) -> Path:
    """Compile, link, and write the stamp that the loader asks for; without units, all of csrc/cuda."""
    folder.mkdir(parents=True, exist_ok=True)
    compiler = build.find_compiler('cpu')
    kernels = sorted((build.SOURCES / 'cuda').glob('*.cu'))
    # the largest first, so that the last one to finish is a small one
    sources = [*sorted((k for k in kernels if not units or k.stem in units), key=lambda k: -k.stat().st_size),
               HERE / 'emulator.cpp']

    def unit(source: Path) -> str:
        start, out = time.perf_counter(), folder / f'{source.stem}.o'
        subprocess.run([compiler, *flags(sm), '-x', 'c++', '-c', str(source), '-o', str(out)], check=True)
        print(f'  {source.name}: {time.perf_counter() - start:.1f} s', flush=True)
        return str(out)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(unit, sources))
    library = folder / 'libfrozenmm_cpu.so'
    torch_libraries = Path(torch.__file__).parent / 'lib'
    subprocess.run([compiler, '-shared', *SANITIZERS, *objects, '-o', str(library), '-L', str(torch_libraries),
                    '-ltorch', '-ltorch_cpu', '-lc10'], check=True)
    stamp = dict(emulated=f'sm_{sm}', torch=torch.__version__, size=library.stat().st_size,
                 sha256=file_digest(library))
    library.with_suffix('.json').write_text(json.dumps(stamp))
    return library


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split(':')[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('units', nargs='*', metavar='UNIT', help='names without .cu (default: all)')
    parser.add_argument('--sm', type=int, choices=(80, 90), default=80, help='generation of the device')
    args = parser.parse_args()
    print(make(args.folder, args.units, args.sm))


if __name__ == '__main__':
    main()
