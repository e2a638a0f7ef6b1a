"""What is installed: built from a copy of the tracked files, without isolation and without torch."""
from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from frozenmm.version import PROJECT_URL

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


def build_wheel(source: Path, target: Path) -> Path:
    subprocess.run([sys.executable, '-W', 'ignore', '-c', NO_TORCH, 'setup.py', '-q', 'bdist_wheel', '-d',
                    str(target)], cwd=source, check=True, capture_output=True, env={**os.environ, 'PYTHONPATH': ''})
    (path, ) = target.glob('*.whl')
    return path


@pytest.fixture(scope='module')
def wheel(source) -> zipfile.ZipFile:
    path = build_wheel(source, source / 'dist')
    assert path.name.endswith('-py3-none-any.whl')
    return zipfile.ZipFile(path)


def metadata_of(wheel: zipfile.ZipFile) -> Message:
    (name, ) = (name for name in wheel.namelist() if name.endswith('METADATA'))
    return Parser().parsestr(wheel.read(name).decode())


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
    metadata = metadata_of(wheel)
    assert metadata['Requires-Python'] == '>=3.10'
    assert set(metadata.get_all('Provides-Extra')) == {
        'mmdet', 'mmseg', 'clip', 'sam', 'text', 'embedded', 'recon', 'demo', 'docs', 'tests', 'colmap', 'export',
        'video', 'viewer', 'all'}
    plain = [line for line in metadata.get_all('Requires-Dist') if 'extra ==' not in line]
    assert 'torch' in plain
    # both families of OpenMMLab must stay possible
    assert not [line for line in plain if line.startswith(('mm', 'onedl'))]
    assert any(line.startswith('mmcv-lite==2.1.0') for line in metadata.get_all('Requires-Dist'))


def extra_of(metadata: Message, extra: str) -> set[str]:
    """Names of the packages that an extra adds."""
    return {re.split(r'[=<>;]', line)[0] for line in metadata.get_all('Requires-Dist') if f'extra == "{extra}"' in line}


def test_every_extra_is_enough_to_import_frozenmm_and_all_has_every_one(wheel):
    metadata = metadata_of(wheel)
    extras = {name: extra_of(metadata, name) for name in metadata.get_all('Provides-Extra')}
    users = set(extras) - {'docs', 'tests', 'all'}
    assert [name for name in users if not {'mmengine', 'opencv-python'} <= extras[name]] == []
    assert set.union(*(extras[name] for name in users)) == extras['all']
    embedded = {line.partition('==')[0] for line in (ROOT / 'requirements/embedded.txt').read_text().splitlines()
                if not line.startswith('#')}
    assert embedded <= extras['embedded'] & extras['recon']  # the default depth network stands on one of them


def test_metadata_names_author_addresses_and_the_console_command(wheel):
    metadata = metadata_of(wheel)
    assert metadata['Author'] and metadata['Home-page'] == PROJECT_URL
    assert all(PROJECT_URL in line for line in metadata.get_all('Project-URL'))
    (entry, ) = (name for name in wheel.namelist() if name.endswith('entry_points.txt'))
    assert 'frozenmm = frozenmm_command:main' in wheel.read(entry).decode()


def test_the_description_has_no_link_that_needs_the_repository(wheel):
    links = re.findall(r'\]\(([^)]+)\)', metadata_of(wheel).get_payload())
    assert len(links) > 10 and [link for link in links if not link.startswith(('https://', '#'))] == []


@pytest.mark.skipif((sys.platform, platform.machine()) != ('linux', 'x86_64'), reason='kernels are for x86-64 Linux')
def test_a_wheel_with_kernels_says_its_platform(source, tmp_path):
    copy = shutil.copytree(source, tmp_path / 'source', ignore=shutil.ignore_patterns('dist', 'build'))
    folder = copy / 'frozenmm' / 'ops' / '_lib'
    folder.mkdir()
    (folder / 'libfrozenmm_cpu.so').write_bytes(b'kernels')
    (folder / 'libfrozenmm_cpu.json').write_text('{"torch": "2.13.0"}')
    path = build_wheel(copy, tmp_path / 'dist')
    assert path.name.endswith('-py3-none-linux_x86_64.whl')
    wheel = zipfile.ZipFile(path)
    assert wheel.read('frozenmm/ops/_lib/libfrozenmm_cpu.so') == b'kernels'
    assert json.loads(wheel.read('frozenmm/ops/_lib/libfrozenmm_cpu.json')) == {'torch': '2.13.0', 'shipped': True}


def test_source_archive_can_build_the_same_wheel(source, wheel, tmp_path):
    subprocess.run([sys.executable, '-W', 'ignore', '-c', NO_TORCH, 'setup.py', '-q', 'sdist', '-d', str(tmp_path)],
                   cwd=source, check=True, capture_output=True)
    (archive, ) = tmp_path.glob('*.tar.gz')
    shutil.unpack_archive(archive, tmp_path)
    (unpacked, ) = (path for path in tmp_path.iterdir() if path.is_dir())
    whole = {path.relative_to(source).as_posix() for folder in ('.ci', 'docs', 'requirements', 'tools')
             for path in (source / folder).rglob('*') if path.is_file()} | {'Makefile', 'CHANGELOG.md'}
    whole = {name for name in whole if not name.startswith(('docs/_build', 'docs/reference', 'docs/manuals'))}  # made
    assert [name for name in whole if not (unpacked / name).is_file()] == []  # so `make` works in it
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
