from __future__ import annotations

import pytest

from frozenmm.datasets.scenes import SceneSettings, write_scenes

SETTINGS = dict(train=4, val=2, size=64, objects=(2, 3))


@pytest.fixture(scope='session')
def tiny_scenes(tmp_path_factory):
    """A folder of six small scenes and the settings that made it."""
    folder = tmp_path_factory.mktemp('scenes')
    write_scenes(folder, SceneSettings(**SETTINGS))
    return str(folder), SETTINGS
