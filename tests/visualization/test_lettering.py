"""Labels in any script are drawn, each letter as itself."""
from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from frozenmm.visualization.detections import Boxes, draw_boxes
from frozenmm.visualization.lettering import TEXT, text_width, write

WORDS = ['größe', 'łódź', 'кошка', 'γάτα', '猫', '고양이', 'แมว', 'बिल्ली', 'قطة', 'חתול', 'კატა', 'կատու', 'ድመት']


def drawn(text: str) -> np.ndarray:
    picture = Image.new('L', (160, 24), 255)
    write(ImageDraw.Draw(picture), (2, 2), text, fill=0)
    return np.asarray(picture)


@pytest.mark.parametrize('word', WORDS)
def test_letters_of_a_word_differ_from_each_other(word):
    # a font draws all letters that it lacks as the same box; marks are drawn on the letter before them only
    letters = {letter: drawn(letter).tobytes() for letter in set(word) if unicodedata.category(letter).startswith('L')}
    assert len(set(letters.values())) == len(letters)
    assert drawn(word).min() < 100 and 0 < text_width(word) < 150


def test_plain_english_is_in_the_usual_font():
    picture = Image.new('L', (160, 24), 255)
    ImageDraw.Draw(picture).text((2, 2), 'traffic light', fill=0, font=ImageFont.load_default(size=TEXT))
    assert np.array_equal(drawn('traffic light'), np.asarray(picture))


def test_a_name_is_whole_on_its_box():
    box = Boxes(np.array([[10.0, 40, 200, 150]]), np.array([0]), np.array([0.5]))
    image = np.full((160, 240, 3), 128, np.uint8)
    pictures = {name: draw_boxes(image, box, [name], [(0, 0, 0)], width=240) for name in ('猫科动物', '□□□□')}
    plates = {name: int((picture[25] == 0).all(-1).sum()) for name, picture in pictures.items()}
    assert plates['猫科动物'] >= 4 * TEXT
    assert not np.array_equal(*pictures.values())
