"""The page in a real headless Chromium: upload, type, see and download; what is refused says so; no file leaks."""
from __future__ import annotations

import json
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import pytest
import skimage.data
import torch
from chromium import INSTALLED, PATIENCE, wait
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
gradio = pytest.importorskip('gradio', reason='the web demo needs requirements/demo.txt')
pytestmark = INSTALLED


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    """A page with a Fusioner, a detector and a depth network, all small and with random weights."""
    from frozenmm.apis import DepthInferencer, DetectionInferencer, FusionerInferencer
    from frozenmm.demo.page import serve
    os.environ['FROZENMM_HOME'] = str(tmp_path_factory.mktemp('home'))
    torch.manual_seed(0)
    configs = ROOT / 'configs'
    detector = Config.fromfile(configs / 'quickstart/dino_frozen_scenes.py')
    detector.model.test_cfg.max_per_img = 4
    page, address = serve({
        'Words: semantic': FusionerInferencer(Config.fromfile(configs / 'fusioner/fusioner_lite0_minilm_scenes.py')),
        'Boxes': DetectionInferencer(detector),
        'Depth': DepthInferencer(dict(type='frozenmm.LeReS', encoder='resnet50', weights='random')),
    }, block=False)
    yield address
    page.close()
    shutil.rmtree(Path(os.environ['GRADIO_TEMP_DIR']).parent, ignore_errors=True)


@pytest.fixture
def page(browser, address):
    """The page, freshly loaded."""
    browser.get(address)
    wait(browser, lambda: browser.find_elements('css selector', '#run-0'))
    return browser


def find(page, selector):
    return wait(page, lambda: page.find_elements('css selector', selector))[0]


def upload(page, number, path):
    find(page, f'#file-{number} input[type=file]').send_keys(str(path))
    # the name of an uploaded file replaces the drop area
    wait(page, lambda: path.stem in page.find_element('css selector', f'#file-{number}').text)


def press(page, number):
    button = find(page, f'#run-{number}')
    page.execute_script('arguments[0].scrollIntoView(); arguments[0].click();', button)


def message(page, number):
    return page.find_element('css selector', f'#message-{number}').text.strip()


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / 'photo.jpg'
    cv2.imwrite(str(path), skimage.data.chelsea()[..., ::-1])
    return path


def test_upload_type_and_see_the_result(page, photo, tmp_path):
    upload(page, 0, photo)
    find(page, '#words-0 textarea').send_keys('cat|kitten, carpet')
    press(page, 0)
    wait(page, lambda: '%' in message(page, 0) or 'nothing' in message(page, 0))
    shown = find(page, '#picture-0 img')
    wait(page, lambda: page.execute_script('return arguments[0].complete && arguments[0].naturalWidth', shown))
    # wider than the upload, with a legend below
    assert page.execute_script('return arguments[0].naturalWidth', shown) == 800
    height = page.execute_script('return arguments[0].naturalHeight', shown)
    assert height > 800 * 300 / 451
    links = {link.get_attribute('href') for link in page.find_elements('css selector', '#downloads-0 a')}
    names = {link.rpartition('/')[2] for link in links if link}
    assert {'picture_overlay.png', 'picture.png', 'semantic_classes.csv', 'results.jsonl'} <= names
    stated = json.loads(read(next(link for link in links if link.endswith('/results.jsonl'))))
    assert stated['classes'] and {entry['name'] for entry in stated['classes']} <= {'cat', 'carpet'}
    if os.environ.get('FROZENMM_SCREENSHOT'):
        page.save_screenshot(os.environ['FROZENMM_SCREENSHOT'])


@pytest.mark.parametrize(('number', 'said'), [(1, ''), (2, 'affine_depth')])
def test_boxes_and_depth(page, photo, number, said):
    page.find_elements('css selector', 'button[role=tab]')[number].click()
    upload(page, number, photo)
    press(page, number)
    wait(page, lambda: said in message(page, number) and message(page, number))
    assert find(page, f'#picture-{number} img').get_attribute('src')


def test_an_empty_vocabulary_and_a_missing_picture_are_answered_on_the_page(page, photo):
    press(page, 0)
    wait(page, lambda: 'Choose a picture first' in message(page, 0))
    upload(page, 0, photo)
    press(page, 0)
    wait(page, lambda: 'Type at least one word' in message(page, 0))
    assert not page.find_elements('css selector', '#picture-0 img')


def test_a_file_that_is_no_picture_is_answered_on_the_page(page, tmp_path):
    bad = tmp_path / 'bad.png'
    bad.write_text('this is no picture')
    upload(page, 0, bad)
    find(page, '#words-0 textarea').send_keys('cat')
    press(page, 0)
    wait(page, lambda: 'no picture that can be read' in message(page, 0))


def read(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=PATIENCE) as answer:
        return answer.read()


@pytest.mark.parametrize('path', [
    '/etc/passwd', str(ROOT / 'README.md'), '../../../../etc/passwd', '..%2f..%2f..%2fetc/passwd', 'README.md',
    'UPLOADS/../../secret.txt'])
def test_no_other_file_of_the_machine_is_served(address, path):
    folder = Path(os.environ['GRADIO_TEMP_DIR'])
    (folder.parent / 'secret.txt').write_text('secret')
    for route in ('gradio_api/file=', 'file='):
        with pytest.raises(urllib.error.HTTPError) as error:
            read(f'{address.rstrip("/")}/{route}{path.replace("UPLOADS", str(folder))}')
        assert error.value.code in (403, 404)


def test_the_page_asks_no_other_host(page):
    wait(page, lambda: page.execute_script('return document.readyState') == 'complete')
    hosts = page.execute_script('return performance.getEntriesByType("resource").map(e => new URL(e.name).hostname)')
    assert set(hosts) == {'127.0.0.1'}


def test_only_this_machine_can_reach_it(address):
    assert address.startswith('http://127.0.0.1:')
