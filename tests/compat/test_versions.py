from __future__ import annotations

import pytest

from frozenmm.compat import versions
from frozenmm.compat.versions import IncompatibleVersions, explained, problems, release

GOOD = {
    'torch': '2.13.0+cpu', 'torchvision': '0.28.0', 'numpy': '2.4.6', 'mmengine': '0.10.7', 'mmcv-lite': '2.1.0',
    'mmdet': '3.3.0', 'mmsegmentation': '1.2.2', 'opencv-python': '5.0.0.93', 'pycocotools': '2.0.11',
    'setuptools': '80.10.2', 'ftfy': '6.3.1', 'regex': '2026.1.1',
}
ONEDL = {
    'torch': '2.13.0', 'torchvision': '0.28.0', 'numpy': '2.2.6', 'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1', 'onedl-mmsegmentation': '1.4.2', 'ftfy': '6.3.1', 'regex': '1', 'setuptools': '80.0',
}


def changed(base=GOOD, without=(), **new):
    kept = {name: version for name, version in base.items() if name not in without}
    return {**kept, **{name.replace('_', '-'): version for name, version in new.items()}}


@pytest.mark.parametrize('good', [
    GOOD,
    ONEDL,
    changed(without=['mmdet']),
    changed(without=['mmsegmentation', 'ftfy', 'regex']),
    changed(without=['mmdet', 'mmsegmentation', 'mmcv-lite']),
    changed(without=['mmcv-lite'], mmcv='2.0.0rc4'),
    changed(torch='2.1.2', torchvision='0.16.2', numpy='1.26.4', opencv_python='4.8.0.76', pycocotools='2.0.7'),
], ids=['pinned', 'onedl', 'only mmseg', 'only mmdet', 'neither', 'compiled mmcv', 'older torch'])
def test_sets_that_work_have_no_problems(good):
    assert problems(good) == []


@pytest.mark.parametrize(('bad', 'what', 'command'), [
    (changed(without=['mmcv-lite'], mmcv='2.2.0'), 'mmdet 3.3.0 refuses mmcv 2.2.0',
     'pip uninstall -y mmcv && pip install mmcv-lite==2.1.0'),
    (changed(mmcv_lite='2.2.0'), 'mmdet 3.3.0 refuses mmcv-lite 2.2.0: it accepts 2.0.0 to 2.1.x only',
     'pip install mmcv-lite==2.1.0'),
    (changed(mmcv_lite='1.7.2', without=['mmdet']), 'mmsegmentation 1.2.2 refuses mmcv-lite 1.7.2',
     'pip install mmcv-lite==2.1.0'),
    (changed(without=['mmcv-lite'], onedl_mmcv='2.3.6'), 'mmdet 3.3.0 refuses onedl-mmcv 2.3.6',
     'pip uninstall -y onedl-mmcv && pip install mmcv-lite==2.1.0'),
    (changed(without=['mmcv-lite']), 'mmdet 3.3.0 needs mmcv, which is not installed', 'pip install mmcv-lite==2.1.0'),
    (changed(ONEDL, without=['onedl-mmcv']), 'onedl-mmdetection 3.5.1 needs mmcv', 'pip install onedl-mmcv'),
    (changed(mmcv='2.1.0'), 'mmcv 2.1.0 and mmcv-lite 2.1.0 install the same files',
     'pip uninstall -y mmcv mmcv-lite && pip install mmcv-lite==2.1.0'),
    (changed(onedl_mmengine='0.10.12'), 'mmengine 0.10.7 and onedl-mmengine 0.10.12 install the same files',
     'pip uninstall -y mmengine && pip install --force-reinstall --no-deps onedl-mmengine==0.10.12'),
    (changed(without=['mmengine']), 'mmengine is not installed', 'pip install mmengine==0.10.7'),
    (changed(mmengine='0.6.0'), 'mmengine 0.6.0 is outside the range', 'pip install mmengine==0.10.7'),
    (changed(mmengine='1.0.0'), 'mmengine 1.0.0 is outside the range', 'pip install mmengine==0.10.7'),
    (changed(mmdet='2.28.2'), 'mmdet 2.28.2 is older', 'pip install mmdet==3.3.0'),
    (changed(mmsegmentation='0.30.0'), 'mmsegmentation 0.30.0 is older', 'pip install mmsegmentation==1.2.2'),
    (changed(torchvision='0.29.0'), 'torchvision 0.29.0 was built for another torch than 2.13.0+cpu',
     'pip install --no-deps torchvision==0.28.0'),
    (changed(torch='2.4.1', numpy='1.26.4'), 'torchvision 0.28.0 was built for another torch than 2.4.1',
     'pip install --no-deps torchvision==0.19.1'),
    (changed(torch='2.2.2', torchvision='0.17.2'), 'torch 2.2.2 was built for numpy 1', 'pip install "numpy<2"'),
    (changed(pycocotools='2.0.7'), 'pycocotools 2.0.7 was built for numpy 1', 'pip install "pycocotools>=2.0.8"'),
    (changed(opencv_python='4.8.1.78'), 'opencv-python 4.8.1.78 was built for numpy 1',
     'pip install "opencv-python>=4.10"'),
    (changed(setuptools='84.2.1'), 'setuptools 84.2.1 has no pkg_resources', 'pip install "setuptools<81"'),
    (changed(without=['ftfy', 'regex']), 'mmsegmentation 1.2.2 imports ftfy and regex but does not install them',
     'pip install ftfy regex'),
    (changed(without=['ftfy']), 'imports ftfy but does not install it', 'pip install ftfy'),
])
def test_each_fault_is_named_once_with_the_command_that_mends_it(bad, what, command):
    (problem, ) = problems(bad)
    assert what in problem.what
    assert problem.command == command
    assert str(problem) == f'{problem.what}. Mend it with: {command}'


def test_several_faults_are_all_reported():
    assert len(problems(changed(mmcv_lite='2.2.0', torchvision='0.20.0', setuptools='82.0'))) == 3


def test_the_environment_of_the_tests_is_sound():
    assert [str(problem) for problem in problems()] == []


def test_failed_imports_are_explained_by_version_problems(monkeypatch):
    monkeypatch.setattr(versions, 'installed_versions', lambda: changed(mmcv_lite='2.2.0'))
    message = r'mmdet cannot be imported \(MMCV==2.2.0 is used\). mmdet 3.3.0 refuses'
    with pytest.raises(IncompatibleVersions, match=message) as caught:
        with explained('mmdet'):
            raise AssertionError('MMCV==2.2.0 is used')
    assert isinstance(caught.value.__cause__, AssertionError)


def test_failed_imports_pass_through_where_versions_are_sound(monkeypatch):
    monkeypatch.setattr(versions, 'installed_versions', lambda: GOOD)
    with pytest.raises(ImportError, match='^something else$'):
        with explained('mmdet'):
            raise ImportError('something else')


def test_versions_are_read_by_their_leading_numbers():
    assert release('2.13.0+cpu') == (2, 13, 0)
    assert release('2.0.0rc4') == (2, 0, 0)
    with pytest.raises(ValueError, match='\'unknown\' is not a version number'):
        release('unknown')
