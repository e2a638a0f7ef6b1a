"""Which versions work together, and the command that mends those that do not.

mmdet and mmseg refuse some versions of mmcv with an assertion; other combinations fail later with an error that names
none of the packages to blame. Upstream OpenMMLab and the OneDL forks share module names: one family may be installed,
not both. Everything here reads package metadata only; nothing is imported.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata

from frozenmm.errors import MissingPackage

FORKS = {
    'mmengine': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmsegmentation': 'onedl-mmsegmentation',
}
"""Upstream distribution -> its OneDL fork; both install the same top-level module."""
_OTHERS = ('mmcv-lite', 'torch', 'torchvision', 'numpy', 'opencv-python', 'pycocotools', 'setuptools', 'ftfy', 'regex')
_MMCV = 'mmcv-lite==2.1.0'
_MMENGINE = 'mmengine==0.10.7'


@dataclass(frozen=True)
class Problem:
    """What is wrong, in a sentence, and the command that mends it."""

    what: str
    command: str

    def __str__(self) -> str:
        return f'{self.what}. Mend it with: {self.command}'


class IncompatibleVersions(MissingPackage):
    """An installed package cannot be imported because of another one's version."""


def installed_versions() -> dict[str, str]:
    """Version of every distribution that matters here, as far as it is installed."""
    found = {}
    for name in (*FORKS, *FORKS.values(), *_OTHERS):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def problems(versions: Mapping[str, str] | None = None) -> list[Problem]:
    """Everything that is wrong with these versions, most basic first.

    Args:
        versions: distribution -> version; those installed by default.
    """
    versions = installed_versions() if versions is None else versions
    return [problem for rule in RULES for problem in rule(versions)]


@contextmanager
def explained(package: str) -> Iterator[None]:
    """Imports of a package whose failure says what is wrong with the versions, when something is.

    Raises:
        IncompatibleVersions: the import failed and there are version problems; the text lists them.
    """
    try:
        yield
    except (ImportError, AssertionError, AttributeError, RuntimeError) as error:
        found = problems()
        if not found:
            raise
        raise IncompatibleVersions(f'{package} cannot be imported ({error}). ' + ' '.join(map(str, found))) from error


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: `'2.13.0+cpu'` -> (2, 13, 0), `'2.0.0rc4'` -> (2, 0, 0)."""
    match = re.match(r'\d+(\.\d+)*', version)
    if match is None:
        raise ValueError(f'{version!r} is not a version number')
    return tuple(map(int, match.group().split('.')))


def _one_family(versions: Mapping[str, str]) -> Iterator[Problem]:
    """Upstream and fork beside each other, or the two builds of mmcv."""
    for upstream, fork in FORKS.items():
        names = [upstream, *(['mmcv-lite'] if upstream == 'mmcv' else [])]
        both = [name for name in names if name in versions]
        if both and fork in versions:
            yield Problem(f'{both[0]} {versions[both[0]]} and {fork} {versions[fork]} install the same files and have '
                          'overwritten each other; keep one family',
                          f'pip uninstall -y {" ".join(both)} && pip install --force-reinstall --no-deps '
                          f'{fork}=={versions[fork]}')
    if 'mmcv' in versions and 'mmcv-lite' in versions:
        yield Problem(f'mmcv {versions["mmcv"]} and mmcv-lite {versions["mmcv-lite"]} install the same files and have '
                      'overwritten each other',
                      f'pip uninstall -y mmcv mmcv-lite && pip install {_MMCV}')


def _missing(versions: Mapping[str, str]) -> Iterator[Problem]:
    """Packages that another installed one needs at import and does not ask for."""
    owners = [name for name in versions if name in ('mmdet', 'mmsegmentation', *FORKS.values())]
    if 'mmengine' not in versions and FORKS['mmengine'] not in versions:
        yield Problem('mmengine is not installed, and all of frozenmm needs it', f'pip install {_MMENGINE}')
    if not any(name in versions for name in ('mmcv', 'mmcv-lite', FORKS['mmcv'])):
        for owner in owners:
            if owner not in (FORKS['mmengine'], FORKS['mmcv']):
                command = f'pip install {_MMCV}' if owner in FORKS else f'pip install {FORKS["mmcv"]}'
                yield Problem(f'{owner} {versions[owner]} needs mmcv, which is not installed', command)
                break
    absent = [name for name in ('ftfy', 'regex') if name not in versions]
    segmentation = next((name for name in ('mmsegmentation', FORKS['mmsegmentation']) if name in versions), None)
    if segmentation and absent:
        yield Problem(f'{segmentation} {versions[segmentation]} imports {" and ".join(absent)} but does not install '
                      f'{"it" if len(absent) == 1 else "them"}', f'pip install {" ".join(absent)}')


def _mm_versions(versions: Mapping[str, str]) -> Iterator[Problem]:
    """The ranges that mmdet and mmseg assert when they are imported (the forks have no upper bound)."""
    for owner, first in (('mmdet', (3, 0)), ('mmsegmentation', (1, 0))):
        if owner in versions and release(versions[owner]) < first:
            pin = {'mmdet': 'mmdet==3.3.0', 'mmsegmentation': 'mmsegmentation==1.2.2'}[owner]
            yield Problem(f'{owner} {versions[owner]} is older than mmengine-based releases, which frozenmm extends',
                          f'pip install {pin}')
    mmcv = next((name for name in ('mmcv', 'mmcv-lite', FORKS['mmcv']) if name in versions), None)
    for owner in ('mmdet', 'mmsegmentation'):
        if owner in versions and mmcv and not (2, 0) <= release(versions[mmcv]) < (2, 2):
            remove = f'pip uninstall -y {mmcv} && ' if mmcv != 'mmcv-lite' else ''
            yield Problem(f'{owner} {versions[owner]} refuses {mmcv} {versions[mmcv]}: it accepts 2.0.0 to 2.1.x only',
                          f'{remove}pip install {_MMCV}')
            break
    if 'mmengine' in versions and not (0, 7, 1) <= release(versions['mmengine']) < (1, 0):
        yield Problem(f'mmengine {versions["mmengine"]} is outside the range 0.7.1 to 0.x that mmdet and mmseg accept',
                      f'pip install {_MMENGINE}')


def _torchvision(versions: Mapping[str, str]) -> Iterator[Problem]:
    """Each torchvision is compiled for one torch: 0.(15 + minor).patch for torch 2.minor.patch, from 2.1 on."""
    if 'torch' not in versions or 'torchvision' not in versions:
        return
    torch, vision = release(versions['torch']), release(versions['torchvision'])
    if torch[:2] < (2, 1) or torch[0] != 2:
        return
    if vision[:2] != (0, 15 + torch[1]):
        patch = torch[2] if len(torch) > 2 else 0
        yield Problem(f'torchvision {versions["torchvision"]} was built for another torch than {versions["torch"]}; '
                      'timm, open_clip and segment-anything import it',
                      f'pip install --no-deps torchvision==0.{15 + torch[1]}.{patch}')


def _numpy(versions: Mapping[str, str]) -> Iterator[Problem]:
    """Compiled packages that were built for numpy 1."""
    if 'numpy' not in versions or release(versions['numpy']) < (2, ):
        return
    for name, first in (('torch', (2, 3)), ('opencv-python', (4, 10)), ('pycocotools', (2, 0, 8))):
        if name in versions and release(versions[name]) < first:
            wanted = '.'.join(map(str, first))
            command = 'pip install "numpy<2"' if name == 'torch' else f'pip install "{name}>={wanted}"'
            yield Problem(f'{name} {versions[name]} was built for numpy 1, and numpy {versions["numpy"]} is installed '
                          f'({name} {wanted} is the first built for numpy 2)', command)


def _setuptools(versions: Mapping[str, str]) -> Iterator[Problem]:
    """`mmengine.utils.is_installed` imports pkg_resources, which setuptools 82 dropped."""
    if 'mmengine' in versions and release(versions.get('setuptools', '0')) >= (82, ):
        yield Problem(f'setuptools {versions["setuptools"]} has no pkg_resources any more, which mmengine imports to '
                      'look packages up', 'pip install "setuptools<81"')


RULES: tuple[Callable[[Mapping[str, str]], Iterator[Problem]], ...] = (
    _one_family, _missing, _mm_versions, _torchvision, _numpy, _setuptools)
