"""The viewer of reconstructions in a real headless Chromium: what it draws from a camera's place is the photograph."""
from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest

pytest.importorskip('viser', reason='the viewer needs requirements/viewer.txt')
from chromium import INSTALLED, wait
from small_results import write_room

from frozenmm.demo.rooms.clip import RoomSettings, render_room
from frozenmm.reconstruction.results_folder import open_results
from frozenmm.reconstruction.viewer import Viewer

pytestmark = INSTALLED
FRAME = 3
CORNER = slice(250, 900), slice(330, 800)
"""Part of the window that neither the controls nor a note of the page cover."""


@pytest.fixture(scope='module')
def room():
    return render_room(RoomSettings(frames=5, size=(120, 160), path_m=0.6, samples=2, seed=1))


@pytest.fixture(scope='module')
def viewer(room, tmp_path_factory):
    viewer = Viewer(open_results(write_room(tmp_path_factory.mktemp('room'), room)))
    yield viewer
    viewer.close()


@pytest.fixture
def page(browser, viewer):
    browser.get(viewer.address)
    wait(browser, lambda: viewer.server.get_clients() and browser.find_elements('css selector', 'canvas'))
    wait(browser, lambda: np.ptp(shot(browser)[CORNER]) > 100)  # something is drawn
    return browser


def shot(browser):
    return cv2.imdecode(np.frombuffer(browser.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def difference(browser, image):
    """Mean difference of what is drawn and a photograph whose height is that of the window, where anything is drawn."""
    drawn = shot(browser)
    height, width = drawn.shape[:2]
    scale = height / image.shape[0]
    left, half = (width - image.shape[1] * scale) / 2, (scale - 1) / 2  # pixel centres are integers
    seen = cv2.warpAffine(image, np.array([[scale, 0, left + half], [0, scale, half]], float), (width, height))
    apart = np.abs(drawn.astype(float) - seen).mean(-1)[CORNER]
    there = drawn.min(-1)[CORNER] < 250
    return float(apart[there].mean()) if there.any() else np.inf


@pytest.mark.parametrize('surface', ['mesh', 'points', 'nothing'])
def test_a_surface_seen_from_a_camera_is_its_photograph(page, viewer, room, surface):
    viewer.surface.value = surface
    viewer.depth.value = surface == 'nothing'  # then the frame's own points are drawn
    viewer.slider.value, viewer.along.value = FRAME, True
    others = [image for frame, image in enumerate(room.images) if frame != FRAME]
    wait(page, lambda: difference(page, room.images[FRAME]) < 20)
    assert difference(page, room.images[FRAME]) < min(difference(page, image) for image in others) / 1.7
    if os.environ.get('FROZENMM_SCREENSHOT'):
        page.save_screenshot(f'{os.environ["FROZENMM_SCREENSHOT"]}-{surface}.png')


def test_the_slider_moves_the_marked_camera_and_its_picture(page, viewer):
    viewer.along.value = False
    viewer.slider.value = 2
    wait(page, lambda: '2.png' in page.find_element('css selector', 'body').text)


def test_the_page_asks_no_other_host(page, viewer):
    asked = json.loads(page.execute_script(
        'return JSON.stringify(performance.getEntriesByType("resource").map(e => e.name))'))
    assert all(name.startswith((viewer.address, 'data:', 'blob:')) for name in asked)


def test_a_saved_page_opens_without_a_server(browser, viewer, tmp_path):
    viewer.along.value, viewer.surface.value = False, 'mesh'
    browser.get(viewer.save(tmp_path / 'scene.html').as_uri())
    wait(browser, lambda: np.ptp(shot(browser)[CORNER]) > 100)
