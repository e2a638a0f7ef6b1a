from __future__ import annotations

import json

import pytest

from frozenmm import errors
from frozenmm.errors import MissingFile, UnknownName, UnreadableFile, UserError, reading


@pytest.mark.parametrize(('kind', 'caught_as'), [
    (errors.UserError, ValueError), (errors.MissingFile, FileNotFoundError), (errors.UnreadableFile, OSError),
    (errors.UnknownName, KeyError), (errors.WrongKind, TypeError), (errors.MissingPackage, ImportError),
    (errors.DeviceError, RuntimeError)])
def test_every_kind_is_a_user_error_and_what_code_catches_today(kind, caught_as):
    error = kind('a sentence')
    assert isinstance(error, UserError) and isinstance(error, caught_as)
    assert str(error) == 'a sentence'


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFile, match=r'there is no .*words\.json, which should be a vocabulary; see the docs'):
        with reading('words.json', 'a vocabulary', 'see the docs'):
            (tmp_path / 'words.json').read_text()


@pytest.mark.parametrize(('fault', 'reason'), [
    (lambda: json.loads('{'), 'Expecting property name'), (lambda: {}['images'], "the key 'images' is missing"),
    (lambda: json.loads('3')['a'], 'another form'), (lambda: json.loads('[]')[1], 'another form'),
    (lambda: json.loads('null').get('images'), 'another form'),
    (lambda: b'\xff'.decode(), 'it is no text in utf-8 (byte 0)'), (lambda: 1 / 0, 'division by zero')])
def test_whatever_goes_wrong_names_the_file_and_no_sentence_of_python(fault, reason):
    with pytest.raises(UnreadableFile) as caught:
        with reading('a.json', 'a COCO annotation file'):
            fault()
    assert str(caught.value).startswith('a.json cannot be read as a COCO annotation file: ')
    assert reason in str(caught.value) and 'object' not in str(caught.value).replace('objects', '')


def test_a_sentence_from_within_stays_as_it_is():
    with pytest.raises(UnknownName, match=r'^no word of that name$'):
        with reading('a.json', 'a vocabulary'):
            raise UnknownName('no word of that name')
