"""Compiles the kernels under `csrc/` into the libraries that `frozenmm.ops` loads: `python -m frozenmm.ops.build`.

Every `csrc/cpu/*.cpp` goes into one CPU library and every `csrc/cuda/*.cu` into one CUDA library, both under
`frozenmm/ops/_lib/`. A unit whose name ends in `_avx2` or `_avx512` is compiled with the flags of that instruction set
and has to be chosen at run time; all others use the baseline of the architecture. The libraries use torch's stable ABI:
one binary serves every Python version and the torch releases after the one named in `TORCH_TARGET`.

The environment variable `FROZENMM_BUILD` says what to build: `cpu` (default), `cuda` (both) or `none`. `CXX` and
`NVCC` name other compilers. What is up to date, by content of sources, flags, compiler and torch version, is kept.
"""
from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from frozenmm.compat.fetch import file_digest
from frozenmm.errors import UserError
from frozenmm.ops.loader import LIBRARIES, is_whole, library_path, read_stamp, stamp_path

_PACKAGE = Path(__file__).resolve().parents[1]
SOURCES = _PACKAGE / 'csrc' if (_PACKAGE / 'csrc').is_dir() else _PACKAGE.parent / 'csrc'
"""The kernels: inside the package in a wheel, beside it in a source tree."""
CHOICES = ('cpu', 'cuda', 'none')

TORCH_TARGET = {'cpu': '0x020a000000000000', 'cuda': '0x020d000000000000'}  # 2.10; 2.13 (streams in the stable ABI)
X86_FLAGS = {
    '_avx2': ('-mavx2', '-mfma', '-mf16c'),
    '_avx512': ('-mavx512f', '-mavx512dq', '-mavx512bw', '-mavx512vl', '-mavx2', '-mfma', '-mf16c'),
}
SANITIZERS = ('-fsanitize=address,signed-integer-overflow,shift,integer-divide-by-zero,bounds', )
CUDA_TARGETS = ('-gencode', 'arch=compute_80,code=sm_80', '-gencode', 'arch=compute_90,code=[sm_90,compute_90]')


class BuildError(UserError, RuntimeError):
    """The kernels could not be compiled; the text says why and what to do."""


@dataclass(frozen=True)
class Target:
    """One library: its sources, compiler, flags and file."""

    kind: str
    compiler: str
    sources: tuple[Path, ...]
    headers: tuple[Path, ...]

    @property
    def library(self) -> Path:
        """Where the library goes."""
        return library_path(self.kind)


def choice(value: str | None = None) -> str:
    """What to build: the argument, else `FROZENMM_BUILD`, else `'cpu'`.

    Raises:
        UserError: it is none of `cpu`, `cuda`, `none`.
    """
    wanted = value or os.environ.get('FROZENMM_BUILD') or 'cpu'
    if wanted not in CHOICES:
        raise UserError(f'FROZENMM_BUILD={wanted!r} is unknown; use one of {", ".join(CHOICES)}')
    return wanted


def find_compiler(kind: str) -> str:
    """The C++ or CUDA compiler.

    Raises:
        BuildError: there is none.
    """
    variable, candidates = ('CXX', ('g++', 'clang++', 'c++')) if kind == 'cpu' else ('NVCC', ('nvcc', ))
    if os.environ.get(variable):
        candidates = (os.environ[variable], )
    elif kind == 'cuda' and os.environ.get('CUDA_HOME'):
        candidates = (str(Path(os.environ['CUDA_HOME'], 'bin', 'nvcc')), *candidates)
    for candidate in candidates:
        if found := shutil.which(candidate):
            return found
    hint = ('Install one (Debian/Ubuntu: apt-get install g++)' if kind == 'cpu' else
            'Install the CUDA toolkit, or set CUDA_HOME')
    raise BuildError(f'no {"C++" if kind == "cpu" else "CUDA"} compiler found (looked for {", ".join(candidates)}). '
                     f'{hint}, or set {variable} to one; without it every operator uses its torch path.')


def find_target(kind: str) -> Target:
    """The library of a kind, from the files that are there.

    Raises:
        BuildError: the sources or a compiler are missing.
    """
    folder, suffix = SOURCES / kind, '.cpp' if kind == 'cpu' else '.cu'
    sources = tuple(sorted(folder.glob(f'*{suffix}')))
    if not sources:
        raise BuildError(f'no *{suffix} files in {folder}. The kernels are compiled from a source tree: clone the '
                         'repository and install it with `pip install -e .`')
    headers = tuple(sorted(p for f in (SOURCES, folder) for p in f.iterdir() if p.suffix in ('.h', '.cuh')))
    return Target(kind, find_compiler(kind), sources, headers)


def compile_flags(kind: str, stem: str) -> list[str]:
    """The flags of one unit, from the kind of its library and the ending of its name."""
    include = Path(torch.__file__).parent / 'include'
    common = ['-O3', '-std=c++17', f'-DTORCH_TARGET_VERSION={TORCH_TARGET[kind]}']
    if kind == 'cuda':
        return [*common, '-DUSE_CUDA', '-I', str(include), '-Xcompiler', '-fPIC', '--expt-relaxed-constexpr',
                '-Wno-deprecated-gpu-targets', *CUDA_TARGETS]
    flags = [*common, '-fPIC', '-fvisibility=hidden', '-fno-math-errno', '-ffp-contract=fast', '-isystem', str(include)]
    if sanitized():
        flags += [*SANITIZERS, '-O1', '-g1', '-fno-omit-frame-pointer', '-fno-sanitize-recover=all']
    for ending, extra in X86_FLAGS.items():
        if stem.endswith(ending):
            flags += extra
    return flags


def sanitized() -> bool:
    """Whether `FROZENMM_SANITIZE=1` asks for a CPU library that checks its memory, for `.ci/sanitize`."""
    return os.environ.get('FROZENMM_SANITIZE', '') not in ('', '0')


def usable(target: Target) -> tuple[Path, ...]:
    """The units that this architecture can have: those of x86 instruction sets are left out elsewhere."""
    if target.kind == 'cuda' or platform.machine().lower() in ('x86_64', 'amd64'):
        return target.sources
    return tuple(s for s in target.sources if not s.stem.endswith(tuple(X86_FLAGS)))


def digest(*parts: str | bytes) -> str:
    """Sixteen hexadecimal digits over the parts and their borders."""
    value = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        value.update(len(data).to_bytes(8, 'little') + data)
    return value.hexdigest()[:16]


def unit_digest(target: Target, source: Path) -> str:
    """What an object file depends on: source, headers, flags, compiler and torch version."""
    version = subprocess.run([target.compiler, '--version'], capture_output=True, text=True, check=False).stdout
    headers = [data for h in target.headers for data in (h.name, h.read_bytes())]
    return digest(source.name, source.read_bytes(), *headers, *compile_flags(target.kind, source.stem),
                  target.compiler, version, torch.__version__)


def target_digest(target: Target) -> str:
    """What a library depends on."""
    return digest(*(unit_digest(target, s) for s in usable(target)))


def is_current(target: Target) -> bool:
    """Whether the library exists and was made from just these sources."""
    stamp = read_stamp(target.kind)
    return target.library.exists() and is_whole(target.kind, stamp) and stamp.get('digest') == target_digest(target)


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f'{what} failed with exit code {done.returncode}:\n{" ".join(command)}\n'
                         f'{(done.stderr or done.stdout)[-4000:]}')


def _compile(target: Target, source: Path, objects: Path) -> Path:
    out = objects / f'{source.stem}-{unit_digest(target, source)}.o'
    if out.exists():
        print(f'  {source.name}: unchanged', flush=True)
        return out
    start = time.perf_counter()
    part = out.with_name(f'{out.name}.{os.getpid()}.part')
    _run([target.compiler, *compile_flags(target.kind, source.stem), '-c', str(source), '-o', str(part)],
         f'compiling {source.name}')
    os.replace(part, out)
    for old in objects.glob(f'{source.stem}-????????????????.o'):
        if old != out:
            old.unlink(missing_ok=True)
    print(f'  {source.name}: {time.perf_counter() - start:.1f} s', flush=True)
    return out


def _link(target: Target, objects: list[Path], stamp: dict[str, object]) -> None:
    lib = Path(torch.__file__).parent / 'lib'
    # Named explicitly: Python loads torch's libraries with local visibility, so symbols are not found otherwise.
    libs = ['-L', str(lib), '-ltorch_cpu', '-lc10'] if target.kind == 'cuda' else \
        ['-L', str(lib), '-ltorch', '-ltorch_cpu', '-lc10']
    with tempfile.TemporaryDirectory(dir=LIBRARIES) as scratch:
        part, note = Path(scratch, 'part.so'), Path(scratch, 'stamp.json')
        libs = [*libs, *SANITIZERS] if target.kind == 'cpu' and sanitized() else libs
        _run([target.compiler, '-shared', *map(str, objects), '-o', str(part), *libs], f'linking {target.library.name}')
        stamp |= {'size': part.stat().st_size, 'sha256': file_digest(part)}
        note.write_text(json.dumps(stamp, indent=1) + '\n')
        os.replace(part, target.library)
        os.replace(note, stamp_path(target.kind))


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One build at a time, so that parallel test workers do not compile the same file."""
    try:
        import fcntl
    except ImportError:  # no such thing on this system; files are replaced as a whole all the same
        yield
        return
    with path.open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_library(kind: str, *, force: bool = False, jobs: int | None = None) -> Path:
    """Compile and link the library of a kind unless it is up to date.

    Args:
        kind: `'cpu'` or `'cuda'`.
        force: compile even what is up to date.
        jobs: compilers at once; by default the number of CPU cores that this process may use.

    Returns:
        The library's file.

    Raises:
        BuildError: sources or compiler missing, or the compiler failed (its words are in the text).
    """
    target = find_target(kind)
    objects = LIBRARIES / f'obj_{kind}'
    try:
        objects.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f'{LIBRARIES} cannot be written to ({error.strerror}); make it writable, or set FROZENMM_HOME '
                         'to a folder of yours') from None
    with _lock(LIBRARIES / f'{kind}.lock'):
        if force:
            for old in objects.glob('*.o'):
                old.unlink()
        elif is_current(target):
            print(f'{target.library.name}: up to date', flush=True)
            return target.library
        print(f'{target.library.name}: compiling {len(usable(target))} units with {target.compiler}', flush=True)
        start = time.perf_counter()
        count = jobs or (len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1)
        with ThreadPoolExecutor(max_workers=count) as pool:
            made = list(pool.map(lambda s: _compile(target, s, objects), usable(target)))
        stamp: dict[str, object] = {'digest': target_digest(target), 'torch': torch.__version__,
                                    'compiler': target.compiler, 'units': [s.name for s in usable(target)]}
        _link(target, made, stamp)
        print(f'{target.library.name}: built in {time.perf_counter() - start:.1f} s', flush=True)
    return target.library


def main(argv: list[str] | None = None) -> int:
    """Command line entry; the exit status is 1 when something that was asked for could not be built."""
    parser = argparse.ArgumentParser(prog='python -m frozenmm.ops.build', description=(__doc__ or '').split('\n\n')[0])
    parser.add_argument('what', nargs='?', choices=CHOICES, help='default: $FROZENMM_BUILD, else cpu')
    parser.add_argument('--force', action='store_true', help='compile even what is up to date')
    parser.add_argument('--jobs', type=int, help='compilers at once (default: all cores)')
    args = parser.parse_args(argv)
    try:
        wanted = choice(args.what)
        if wanted == 'none':
            print('nothing to build: every operator uses its torch path', flush=True)
        for kind in {'cpu': ('cpu', ), 'cuda': ('cpu', 'cuda'), 'none': ()}[wanted]:
            build_library(kind, force=args.force, jobs=args.jobs)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
