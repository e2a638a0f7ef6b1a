"""Metadata and package data. Needs setuptools only: never torch, so an isolated build works."""
from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_DATA = ('configs', 'tools', 'model-index.yml', 'dataset-index.yml')  # what `mim` looks for in frozenmm/.mim
SOURCES = 'csrc'  # kernels, so that an installed package can build its operators

# mmengine, mmcv, mmdet and mmseg are extras, not requirements: they come from upstream or from the OneDL forks, which
# use the same module names, and installing one family over the other breaks both. `python -m frozenmm.env` checks.
REQUIRED = ('torch', 'numpy', 'safetensors', 'scipy')
EXTRAS = {
    'mmdet': ('mmengine', 'mmcv-lite', 'mmdet', 'opencv-python', 'pycocotools', 'setuptools'),
    'mmseg': ('mmengine', 'mmcv-lite', 'mmsegmentation', 'opencv-python', 'ftfy', 'regex', 'setuptools'),
    'clip': ('open_clip_torch', 'timm', 'torchvision', 'ftfy', 'regex'),
    'sam': ('segment-anything', 'timm', 'torchvision'),
    'text': ('transformers', ),
    'demo': ('scikit-image', 'opencv-python', 'timm', 'transformers', 'torchvision'),
}


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


runtime_extras = {name: pinned(packages) for name, packages in EXTRAS.items()}
setup(
    name='frozenmm',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'frozenmm' / 'version.py').read_text()).group(1),
    description='Frozen foundation models in OpenMMLab pipelines for dense vision',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.10',
    packages=find_packages(include=['frozenmm', 'frozenmm.*', 'frozenmm_command']),
    entry_points={'console_scripts': ['frozenmm = frozenmm_command:main']},
    package_data={'frozenmm': ['py.typed', '**/*.json', '**/*.txt', '**/*.yml', '**/*.safetensors']},
    include_package_data=False,
    install_requires=lower_bounds(REQUIRED),
    extras_require={
        **runtime_extras,
        'docs': requirement_lines('docs.txt'),
        'tests': requirement_lines('tests.txt'),
        'viewer': requirement_lines('viewer.txt'),
        'all': sorted({line for lines in runtime_extras.values() for line in lines}),
    },
    cmdclass={'build_py': BuildWithData},
    zip_safe=False,
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX',
        'Programming Language :: Python :: 3 :: Only',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
)
