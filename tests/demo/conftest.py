from __future__ import annotations

import pytest


@pytest.fixture(scope='module')
def browser():
    from chromium import start
    driver = start()
    yield driver
    driver.quit()


@pytest.fixture(scope='session')
def room(rooms):
    """Five frames of a generated room at 160x120."""
    return rooms.render_room(rooms.RoomSettings(frames=5, size=(120, 160), path_m=0.6, samples=2, seed=1))
