"""Folders of pictures as phones and cameras leave them: what cannot be read is named, the rest is read."""
from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
from mmengine.logging import MMLogger
from PIL import Image

from frozenmm.apis.vocabulary_text import parse_vocabulary
from frozenmm.compat.image_files import list_images, read_image_file
from frozenmm.compat.image_sources import read_images
from frozenmm.errors import UnreadableFile, UserError


@pytest.fixture
def said(monkeypatch):
    """What the logger says, as a list."""
    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'log', lambda level, text: lines.append(text))
    monkeypatch.setattr(logger, 'level', logging.INFO)
    return lines


def test_one_damaged_picture_does_not_end_the_run(field, repo_root, tmp_path):
    folder = field('pictures/one_bad')
    found = subprocess.run(
        [sys.executable, repo_root / 'tools/infer.py', folder, '--model', 'detection', '--device', 'cpu', '--out',
         tmp_path / 'out'], capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 1, found.stderr
    lines = (tmp_path / 'out' / 'results.jsonl').read_text().splitlines()
    assert [json.loads(line)['name'] for line in lines] == ['img0', 'img2']
    assert '1 image could not be read:' in found.stderr and 'img1.jpg is no readable image' in found.stderr


def test_without_a_list_for_them_damaged_pictures_are_errors(field):
    with pytest.raises(UnreadableFile, match='img1.jpg is no readable image'):
        list(read_images(field('pictures/one_bad')))


def test_a_phones_folder_is_read_as_far_as_possible_and_the_rest_is_named(field, said):
    folder = field('pictures/phone')
    names = [path.name for path in list_images(folder)]
    line = ' '.join(said)
    assert set(names) >= {'IMG_2.jpg', 'IMG_4.avif', 'IMG_5'}
    assert ('IMG_1.HEIC' in names) or 'IMG_1.HEIC (1: pip install pillow-heif)' in line
    assert 'sub/' in line and 'folders with images' in line
    assert all(read_image_file(folder / name).ndim == 3 for name in names)


def test_hidden_files_of_a_mac_are_no_images(tmp_path):
    Image.new('RGB', (4, 3)).save(tmp_path / 'a.jpg')
    (tmp_path / '._a.jpg').write_bytes(b'\x00\x05\x16\x07')
    assert [path.name for path in list_images(tmp_path)] == ['a.jpg']


def test_a_jfif_and_a_file_without_suffix_are_images_and_a_text_is_none(tmp_path):
    Image.new('RGB', (4, 3)).save(tmp_path / 'a.jpg')
    shutil.copy(tmp_path / 'a.jpg', tmp_path / 'b.JFIF')
    shutil.copy(tmp_path / 'a.jpg', tmp_path / 'c')
    (tmp_path / 'LICENSE').write_text('words')
    assert [path.name for path in list_images(tmp_path)] == ['a.jpg', 'b.JFIF', 'c']


@pytest.mark.parametrize(('values', 'kind', 'brightest', 'line'), [
    (np.array([[0, 4095]], np.uint16), 'png', 255, 'gray values up to 4095 are shown as 0 to 4095'),
    (np.array([[0, 65535]], np.uint16), 'png', 255, 'up to 65535'),
    (np.array([[0, 200]], np.uint16), 'png', 200, ''),
    (np.array([[0, 0.5]], np.float32), 'tif', 128, 'up to 0.5 are shown as 0 to 1'),
    (np.array([[0, 1.0]], np.float32), 'tif', 255, 'up to 1 are shown as 0 to 1'),
    (np.array([[0, 3000.5]], np.float32), 'tif', 12, 'up to 3000.5 are shown as 0 to 65535')])
def test_gray_values_of_more_bits_keep_their_brightness(tmp_path, said, values, kind, brightest, line):
    path = tmp_path / f'a.{kind}'
    Image.fromarray(values).save(path)
    assert int(read_image_file(path).max()) == brightest
    assert line in ' '.join(said) if line else not said


def test_further_frames_are_mentioned(tmp_path, said):
    frames = [Image.new('L', (4, 3), value) for value in (0, 90, 200)]
    frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
    read_image_file(tmp_path / 'a.gif')
    assert 'the first of 3 frames is read' in said[0]


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(UserError, match='the path of the images is empty'):
        list(read_images(''))


@pytest.mark.parametrize(('text', 'message'), [
    ('ade20k-150', 'did you mean ade20k_150'), ('words.csv', r'looks like a file; .*\.txt'),
    ('ADE20K_150', 'ade20k_150')])
def test_words_that_are_nearly_a_name_or_a_file_are_asked_back(text, message):
    with pytest.raises(UserError, match=message):
        parse_vocabulary(text)
    assert parse_vocabulary('cat').names == ['cat'] and parse_vocabulary('red mug, sky').names == ['red mug', 'sky']
