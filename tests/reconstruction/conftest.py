from __future__ import annotations

from types import ModuleType

import pytest


@pytest.fixture(scope='session')
def room(rooms: ModuleType):
    """Five frames of a generated room at 160x120."""
    return rooms.render_room(rooms.RoomSettings(frames=5, size=(120, 160), path_m=0.6, samples=2, seed=1))
