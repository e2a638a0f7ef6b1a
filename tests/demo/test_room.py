"""The room of demonstrations: known by name, and nothing in the library needs it."""
from __future__ import annotations

import subprocess
import sys

import pytest

import frozenmm
from frozenmm import registry
from frozenmm.demo import datasets, models


def test_every_demonstration_is_registered_under_its_name():
    assert {*models.__all__, *datasets.__all__} == registry.DEMONSTRATIONS
    found = [child.get(f'frozenmm.{name}') for name in sorted(registry.DEMONSTRATIONS)
             for child in (registry.MODELS, registry.DATASETS, registry.METRICS)]
    assert {kind.__name__ for kind in found if kind is not None} == registry.DEMONSTRATIONS
    assert frozenmm.GeneratedScenes is datasets.GeneratedScenes and frozenmm.DemoSAM is models.DemoSAM


def test_the_old_place_of_the_generated_room_is_known_for_a_release():
    from frozenmm.demo.rooms.clip import RoomSettings
    from frozenmm.reconstruction import generated_room
    with pytest.warns(FutureWarning, match='generated_room.RoomSettings is now called frozenmm.demo.rooms.clip'):
        assert generated_room.RoomSettings is RoomSettings


def test_without_the_room_the_rest_works_and_its_names_are_explained(repo_root, tmp_path):
    """In a copy of the package; the whole test suite passes there too, which is too long for a test."""
    copy = tmp_path / 'frozenmm'
    copy.mkdir()
    for path in (repo_root / 'frozenmm').iterdir():
        if path.name not in ('demo', '__pycache__'):
            (copy / path.name).symlink_to(path)
    (copy / 'registry.py').unlink()
    (copy / 'registry.py').write_bytes((repo_root / 'frozenmm/registry.py').read_bytes())
    code = ('import frozenmm.models, frozenmm.datasets, frozenmm.evaluation\n'
            'from frozenmm.registry import MODELS, DATASETS\n'
            'MODELS.build(dict(type="frozenmm.EfficientNetLiteTower", weights="random"))\n'
            'for child, name in (MODELS, "LightDepth"), (DATASETS, "frozenmm.GeneratedScenes"):\n'
            '    try: child.build(dict(type=name))\n'
            '    except ImportError as error: print(error)\n')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path,
                          env={'PYTHONPATH': str(tmp_path), 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr
    assert 'frozenmm.LightDepth is demonstration material' in done.stdout
    assert 'frozenmm.GeneratedScenes is demonstration material' in done.stdout
