"""What several tests share: where recorded cases and the shared data lie, and a quiet, reproducible torch."""
from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, settings
from mmengine.registry import DefaultScope

from frozenmm import registry  # fills the holes of the installation before any test imports mmcv

ROOT = Path(__file__).resolve().parents[1]

# a timing is never a test: on a busy machine drawing an example can take a minute
settings.register_profile('busy_machine', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('busy_machine')


def pytest_collection_finish(session: pytest.Session) -> None:
    """Collections, of which mmengine makes one per data set, skip what was imported here and lives to the end."""
    gc.collect()
    gc.freeze()


def _shared_folder() -> Path:
    return Path(os.environ.get('FROZENMM_SHARED', ROOT.parent / 'shared'))


@pytest.fixture(scope='session')
def repo_root() -> Path:
    return ROOT


@pytest.fixture(scope='session')
def golden_dir() -> Path:
    """Recorded cases of the official code that the repository carries."""
    return ROOT / 'tests' / 'golden'


@pytest.fixture(scope='session')
def shared_dir() -> Path:
    """Reference data beside the repository; the test is skipped where it is absent."""
    folder = _shared_folder()
    if not folder.is_dir():
        pytest.skip(f'the reference data folder {folder.name} is not beside the repository')
    return folder


@pytest.fixture(scope='session')
def tiny_coco(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder in COCO layout: four small training pictures and two test pictures of two classes."""
    from tiny_coco import write_tiny_coco
    return str(write_tiny_coco(tmp_path_factory.mktemp('coco')))


@pytest.fixture(scope='session')
def demo_room() -> None:
    """The test is skipped where the room of demonstrations has been removed."""
    if not registry.HAS_DEMO:
        pytest.skip('shows material of frozenmm.demo, which has been removed')


@pytest.fixture(scope='session')
def rooms(demo_room: None) -> ModuleType:
    """The module that renders rooms with known cameras."""
    return import_module('frozenmm.demo.rooms.clip')


@pytest.fixture(scope='session')
def tiny_scenes(demo_room: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    """A folder of six small generated scenes, and the settings that made it."""
    scenes = import_module('frozenmm.demo.scenes')
    settings = dict(train=4, val=2, size=64, objects=(2, 3))
    folder = tmp_path_factory.mktemp('scenes')
    scenes.write_scenes(folder, scenes.SceneSettings(**settings))
    return str(folder), settings


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _threads_per_worker() -> None:
    """One thread per parallel worker, so that a small machine is not oversubscribed."""
    if 'PYTEST_XDIST_WORKER' in os.environ:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_default_scope_but_the_test_s_own() -> Iterator[None]:
    """Runners and mmdet's set-up change a process-wide default scope, in which other tests would look names up."""
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()
