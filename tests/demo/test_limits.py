"""What the demo takes and what it refuses, without gradio."""
from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from frozenmm.apis.base import Inferencer
from frozenmm.demo import limits, offers
from frozenmm.demo.limits import Refused, picture_of, words_of


class Blue(Inferencer):
    """Finds blue pixels if asked for them."""

    words: list[str] = []

    def set_vocabulary(self, vocabulary):
        self.words = vocabulary.names

    def predict(self, images):
        return [int((image.pixels[..., 2] > image.pixels[..., 0]).sum()) for image in images]

    def draw(self, image, result, *, min_score=0.0):
        return image.pixels

    def write(self, folder, image, result, *, min_score=0.0):
        path = folder / f'{image.name}.json'
        path.write_text(str(result))
        return [path]

    def summary(self, result, *, min_score=0.0):
        return f'{self.words}: {result} pixels'


@pytest.fixture
def picture(tmp_path):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:2, :, 2] = 255
    path = tmp_path / 'my holiday ../x.png'.replace('/', '_')
    Image.fromarray(pixels).save(path)
    return str(path)


def test_a_request_gives_picture_text_and_files(tmp_path, picture):
    made = offers.Offers({'Blue': Blue()}, tmp_path)
    outcome = made.run('Blue', picture, 'sky, sea|ocean', 0.0)
    assert outcome.text == "['sky', 'sea']: 12 pixels" and outcome.picture.shape == (4, 6, 3)
    # files are named by us, in a folder of ours
    assert [file.rpartition('/')[2] for file in outcome.files] == ['picture.json']
    assert all(str(tmp_path) in file for file in outcome.files)


def test_old_results_go(tmp_path, picture, monkeypatch):
    monkeypatch.setattr(offers, 'KEPT', 2)
    made = offers.Offers({'Blue': Blue()}, tmp_path)
    for _ in range(4):
        made.run('Blue', picture, 'sky', 0.0)
    assert len(list(tmp_path.glob('result-*'))) == 2


@pytest.mark.parametrize('text', [None, '', '  ', ',', ' ,\n, ', '|'])
def test_nothing_typed_is_answered(text):
    with pytest.raises(Refused, match='Type at least one word'):
        words_of(text)


@pytest.mark.parametrize(('text', 'answer'), [
    ('a' * 2001, 'letters are too many'), (','.join(f'w{n}' for n in range(101)), '101 classes are too many'),
    ('cat, cat', 'cannot be used.*same words'), ('cat,,dog', 'cannot be used.*empty')])
def test_words_that_cannot_be_used_are_answered(text, answer):
    with pytest.raises(Refused, match=answer):
        words_of(text)


def test_a_path_is_a_word_and_never_a_file(tmp_path):
    secret = tmp_path / 'secret.txt'
    secret.write_text('password\n')
    assert words_of(str(secret)).names == [str(secret)]


def test_files_that_are_no_pictures_are_answered(tmp_path, picture, monkeypatch):
    with pytest.raises(Refused, match='Choose a picture first'):
        picture_of(None)
    text = tmp_path / 'a.png'
    text.write_text('hello')
    with pytest.raises(Refused, match='no picture that can be read'):
        picture_of(str(text))
    cut = tmp_path / 'cut.jpg'
    Image.effect_noise((200, 200), 90).save(cut)
    cut.write_bytes(cut.read_bytes()[:3000])
    with pytest.raises(Refused, match='damaged'):
        picture_of(str(cut))
    monkeypatch.setattr(limits, 'MAX_PIXELS', 20)
    with pytest.raises(Refused, match='6x4 pixels; at most'):
        picture_of(picture)
    monkeypatch.setattr(limits, 'MAX_BYTES', 10)
    with pytest.raises(Refused, match='at most'):
        picture_of(picture)


def test_offers_are_loaded_by_name(monkeypatch):
    monkeypatch.setattr(offers, 'inferencer', lambda name, device: name)
    assert list(offers.load_inferencers(['detection', 'dino_scratch_scenes'])) == ['Boxes', 'dino_scratch_scenes']
    monkeypatch.setattr(offers, 'TITLES', {})
    with pytest.raises(FileNotFoundError, match='no task has a checkpoint'):
        offers.load_inferencers()


@given(content=st.binary(max_size=200), suffix=st.sampled_from(['.png', '.jpg', '.gif', '.tif', '.webp']))
def test_bytes_that_call_themselves_a_picture_are_refused(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f'foreign{suffix}'
    path.write_bytes(content)
    with pytest.raises(Refused):
        picture_of(str(path))


@given(st.text(alphabet=string.printable + 'äß漢\u200b\U0001f600', max_size=40))
def test_words_of_any_kind_are_read_or_refused(text):
    try:
        assert words_of(text).names
    except Refused as error:
        assert str(error)
