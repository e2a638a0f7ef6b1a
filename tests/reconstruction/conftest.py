from __future__ import annotations

import pytest

from frozenmm.demo.rooms.clip import RoomClip, RoomSettings, render_room


@pytest.fixture(scope='session')
def room() -> RoomClip:
    """Five frames of a generated room at 160x120."""
    return render_room(RoomSettings(frames=5, size=(120, 160), path_m=0.6, samples=2, seed=1))
