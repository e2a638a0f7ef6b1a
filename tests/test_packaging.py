"""What is installed: built from a copy of the tracked files, without isolation and without torch."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UNTRACKED = {'.venv', 'build', 'dist', 'work_dirs', 'data', '__pycache__', '_lib', '.mim', '.git', '.mypy_cache',
             '.ruff_cache', '.pytest_cache', '.hypothesis', 'golden', 'tests', 'benchmarks'}
# torch must not be importable while the package is built: an isolated build does not have it
NO_TORCH = 'import sys; sys.modules["torch"] = None; sys.argv = sys.argv[1:]; import runpy; ' \
           'runpy.run_path("setup.py", run_name="__main__")'


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp('build') / 'frozenmm'
    shutil.copytree(ROOT, target, ignore=lambda folder, names: [
        name for name in names if name in UNTRACKED or name.endswith('.egg-info')])
    return target


@pytest.fixture(scope='module')
def wheel(source) -> zipfile.ZipFile:
    subprocess.run([sys.executable, '-W', 'ignore', '-c', NO_TORCH, 'setup.py', '-q', 'bdist_wheel'], cwd=source,
                   check=True, capture_output=True, env={**os.environ, 'PYTHONPATH': ''})
    (path, ) = (source / 'dist').glob('*.whl')
    return zipfile.ZipFile(path)


def tracked(folder: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob('*')
            if path.is_file() and not UNTRACKED & set(path.relative_to(ROOT).parts)
            and path.suffix not in ('.pyc', '.so', '.o')}


def test_wheel_carries_configs_and_tools_where_mim_looks(wheel):
    names = set(wheel.namelist())
    expected = tracked('configs') | tracked('tools') | {'model-index.yml'}
    assert len(expected) > 10
    assert {f'frozenmm/.mim/{name}' for name in expected} <= names


def test_wheel_carries_the_kernels_so_that_operators_can_be_built(wheel):
    assert tracked('csrc')
    assert {f'frozenmm/{name}' for name in tracked('csrc')} <= set(wheel.namelist())


def test_wheel_carries_every_file_of_the_package(wheel):
    missing = tracked('frozenmm') - set(wheel.namelist())
    assert missing == set()
    assert 'frozenmm/py.typed' in wheel.namelist()


def test_wheel_carries_nothing_else(wheel):
    assert {name.split('/')[0].partition('-')[0] for name in wheel.namelist()} == {'frozenmm', 'frozenmm_command'}
    assert not [name for name in wheel.namelist() if name.endswith(('.so', '.pyc', '.o'))]


def test_metadata_names_extras_and_python(wheel):
    (name, ) = (name for name in wheel.namelist() if name.endswith('METADATA'))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata['Requires-Python'] == '>=3.10'
    assert set(metadata.get_all('Provides-Extra')) == {
        'mmdet', 'mmseg', 'clip', 'sam', 'text', 'demo', 'docs', 'tests', 'viewer', 'all'}
    plain = [line for line in metadata.get_all('Requires-Dist') if 'extra ==' not in line]
    assert 'torch' in plain
    # both families of OpenMMLab must stay possible
    assert not [line for line in plain if line.startswith(('mm', 'onedl'))]
    assert any(line.startswith('mmcv-lite==2.1.0') for line in metadata.get_all('Requires-Dist'))


def test_source_archive_can_build_the_same_wheel(source, wheel, tmp_path):
    subprocess.run([sys.executable, '-W', 'ignore', '-c', NO_TORCH, 'setup.py', '-q', 'sdist', '-d', str(tmp_path)],
                   cwd=source, check=True, capture_output=True)
    (archive, ) = tmp_path.glob('*.tar.gz')
    shutil.unpack_archive(archive, tmp_path)
    (unpacked, ) = (path for path in tmp_path.iterdir() if path.is_dir())
    subprocess.run([sys.executable, '-W', 'ignore', '-c', NO_TORCH, 'setup.py', '-q', 'bdist_wheel', '-d',
                    str(tmp_path)],
                   cwd=unpacked, check=True, capture_output=True)
    (path, ) = tmp_path.glob('*.whl')
    again = {name for name in zipfile.ZipFile(path).namelist() if '.dist-info' not in name}
    assert again == {name for name in wheel.namelist() if '.dist-info' not in name}


def test_editable_install_links_configs_for_mim(source, tmp_path):
    """The build step of an editable install, without installing."""
    code = ('import sys; sys.modules["torch"] = None\nfrom setuptools import build_meta\n'
            'print(build_meta.build_editable(sys.argv[1]))')
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code, str(tmp_path)], cwd=source, check=True,
                   capture_output=True)
    linked = source / 'frozenmm' / '.mim' / 'configs'
    assert linked.is_symlink() and linked.resolve() == source / 'configs'
    assert (source / 'frozenmm' / '.mim' / 'model-index.yml').is_file()


def test_an_extra_without_pin_is_refused(source):
    text = (source / 'setup.py').read_text()
    changed = source / 'setup_with_unpinned_extra.py'
    changed.write_text(text.replace("'text': ('transformers', )", "'text': ('no-such-package', )"))
    done = subprocess.run([sys.executable, changed.name, '--version'], cwd=source, capture_output=True, text=True)
    changed.unlink()
    assert done.returncode != 0
    assert 'requirements/runtime.txt pins no [\'no-such-package\'], but setup.py names them' in done.stderr
