"""Metadata and package data. Needs setuptools only: never torch, so an isolated build works.

Where `python -m frozenmm.ops.build` has compiled the CPU kernels of this source tree for x86-64 Linux, the wheel holds
them and its name says so (`make wheel` does both); else it is a wheel for any machine, and the same command compiles
the kernels after the installation.
"""
from __future__ import annotations

import json
import platform
import re
import runpy
import shutil
import sys
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
ABOUT = runpy.run_path(str(ROOT / 'frozenmm' / 'version.py'))
LIBRARY = ROOT / 'frozenmm' / 'ops' / '_lib' / 'libfrozenmm_cpu.so'
HAS_LIBRARY = LIBRARY.is_file() and sys.platform == 'linux' and platform.machine() == 'x86_64'
MIM_DATA = ('configs', 'tools', 'model-index.yml', 'dataset-index.yml')  # what `mim` looks for in frozenmm/.mim
SOURCES = 'csrc'  # kernels, so that an installed package can build its operators

# mmengine, mmcv, mmdet and mmseg are extras, not requirements: they come from upstream or from the OneDL forks, which
# use the same module names, and installing one family over the other breaks both (so extras are for upstream only).
# `frozenmm env` checks.
REQUIRED = ('torch', 'numpy', 'safetensors', 'scipy')
BASE = ('mmengine', 'opencv-python')  # without which nothing of frozenmm can be imported or read pictures
EXTRAS = {
    'mmdet': ('mmcv-lite', 'mmdet', 'pycocotools', 'setuptools'),
    'mmseg': ('mmcv-lite', 'mmsegmentation', 'ftfy', 'regex', 'setuptools'),
    'clip': ('open_clip_torch', 'timm', 'torchvision', 'ftfy', 'regex'),
    'sam': ('segment-anything', 'timm', 'torchvision'),
    'text': ('transformers', ),
    'embedded': ('timm', 'transformers', 'torchvision'),
    'recon': ('scikit-image', ),
    'demo': ('mmcv-lite', 'mmdet', 'mmsegmentation', 'pycocotools', 'ftfy', 'regex', 'setuptools', 'scikit-image',
             'timm', 'transformers', 'torchvision'),
    'colmap': (),
    'export': (),
    'video': (),
    'viewer': (),
}
"""Packages of requirements/runtime.txt that an extra adds to `BASE`."""
FILES = {'embedded': ('embedded.txt', ), 'recon': ('embedded.txt', ), 'demo': ('embedded.txt', 'demo.txt'),
         'colmap': ('colmap.txt', ), 'video': ('video.txt', ), 'viewer': ('viewer.txt', ), 'export': ('export.txt', )}
"""Files of requirements/ that an extra adds."""


def requirement_lines(file: str) -> list[str]:
    """Requirements of a file under requirements/, comments removed."""
    lines = (line.partition('#')[0].strip() for line in (ROOT / 'requirements' / file).read_text().splitlines())
    return [line for line in lines if line]


def pinned(names: tuple[str, ...]) -> list[str]:
    """The tested pins of these packages (a package may have several lines with environment markers)."""
    lines = requirement_lines('runtime.txt')
    found = [(re.split(r'[=<>!~;\[ ]', line, maxsplit=1)[0], line) for line in lines]
    missing = set(names) - {name for name, _ in found}
    if missing:
        raise ValueError(f'requirements/runtime.txt pins no {sorted(missing)}, but setup.py names them')
    return [line for name, line in found if name in names]


def lower_bounds(names: tuple[str, ...]) -> list[str]:
    """The same packages without pins, for an environment that already has them."""
    return list(dict.fromkeys(re.split(r'[=<>!~;\[ ]', line, maxsplit=1)[0] for line in pinned(names)))


class BuildWithData(build_py):
    """Puts configs, tools, model index and kernels into the package: copied in a wheel, linked when editable."""

    def run(self) -> None:
        """Build as usual, then add the data."""
        super().run()
        if self.editable_mode:
            for name in MIM_DATA:
                self._link(ROOT / name, ROOT / 'frozenmm' / '.mim' / name)
            return
        package = Path(self.build_lib, 'frozenmm')
        if HAS_LIBRARY:
            self._copy(LIBRARY, package / 'ops' / '_lib' / LIBRARY.name)
            stamp = {**json.loads(LIBRARY.with_suffix('.json').read_text()), 'shipped': True}
            (package / 'ops' / '_lib' / 'libfrozenmm_cpu.json').write_text(json.dumps(stamp, indent=1))
        for name in MIM_DATA:
            self._copy(ROOT / name, package / '.mim' / name)
        self._copy(ROOT / SOURCES, package / SOURCES)

    def _copy(self, source: Path, target: Path) -> None:
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__', '*.pyc', '*.o', '*.so'))
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def _link(self, source: Path, target: Path) -> None:
        if target.is_symlink() or target.is_file():
            target.unlink()
        if not source.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.symlink_to(Path('..', '..', source.name))
        except OSError:  # a file system without links
            self._copy(source, target)


class TaggedWheel(bdist_wheel):
    """Any Python 3; the kernels use torch's stable ABI, so only the platform counts."""

    def get_tag(self) -> tuple[str, str, str]:
        """Interpreter, ABI, platform."""
        return ('py3', 'none', 'linux_x86_64' if HAS_LIBRARY else 'any')


class MaybeBinary(Distribution):
    """A distribution that is binary when it holds the kernels."""

    def has_ext_modules(self) -> bool:
        """Whether files belong to a platform."""
        return HAS_LIBRARY


def extra(name: str) -> list[str]:
    """All requirements of an extra, each once."""
    lines = pinned((*BASE, *EXTRAS[name])) if name in EXTRAS else []
    for file in FILES.get(name, ()):
        # the browser driver is for the demo's test, which only a source tree has
        lines += [line for line in requirement_lines(file) if not line.startswith('selenium')]
    return list(dict.fromkeys(lines))


def description() -> str:
    """README with absolute links, so that they work where the package is shown."""
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    place = {'!': f'{ABOUT["PROJECT_URL"]}/raw/main', '': f'{ABOUT["PROJECT_URL"]}/blob/main'}
    return re.sub(r'(!?)(\[[^\]]*\])\((?!https?:|#)([^)]+)\)',
                  lambda link: f'{link[1]}{link[2]}({place[link[1]]}/{link[3]})', text)


extras = {name: extra(name) for name in dict.fromkeys((*EXTRAS, *FILES))}
setup(
    name='frozenmm',
    version=ABOUT['__version__'],
    description='Frozen foundation models in OpenMMLab pipelines for dense vision',
    long_description=description(),
    long_description_content_type='text/markdown',
    author='The authors of frozenmm',
    url=ABOUT['PROJECT_URL'],
    project_urls={
        'Documentation': f'{ABOUT["PROJECT_URL"]}/tree/main/docs',
        'Changes': f'{ABOUT["PROJECT_URL"]}/blob/main/CHANGELOG.md',
        'Issues': f'{ABOUT["PROJECT_URL"]}/issues',
    },
    license='Apache-2.0',
    license_files=['LICENSE', 'frozenmm/visualization/fonts/unifont-license.txt'],
    python_requires='>=3.10',
    packages=find_packages(include=['frozenmm', 'frozenmm.*', 'frozenmm_command']),
    entry_points={'console_scripts': ['frozenmm = frozenmm_command:main']},
    package_data={'frozenmm': ['py.typed', '**/*.json', '**/*.txt', '**/*.yml', '**/*.safetensors', '**/*.xz']},
    exclude_package_data={'frozenmm': ['ops/_lib/*']},  # `BuildWithData` adds the library with its stamp, or neither
    include_package_data=False,
    install_requires=lower_bounds(REQUIRED),
    extras_require={
        **extras,
        'docs': requirement_lines('docs.txt'),
        'tests': requirement_lines('tests.txt'),
        'all': sorted({line for lines in extras.values() for line in lines}),
    },
    cmdclass={'build_py': BuildWithData, 'bdist_wheel': TaggedWheel},
    distclass=MaybeBinary,
    zip_safe=False,
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX',
        'Programming Language :: Python :: 3 :: Only',
        'Programming Language :: Python :: 3.11',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
)
