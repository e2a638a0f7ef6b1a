"""The index of our own checkpoints: what it holds is true, and what it refuses."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from frozenmm.compat.checkpoint import save_checkpoint_file
from frozenmm.compat.fetch import file_digest
from frozenmm.zoo import checkpoints, command
from frozenmm_command import main

ENTRY = dict(aliases=['short'], task='detection', config='configs/quickstart/dino_frozen_scenes.py', file=None,
             sha256=None, what='A detector.', license='Apache-2.0', data_terms='generated', make='make train')
HEADER = dict(config='a.py', data='scenes', revision='abc', metrics={'AP': 0.1}, base_models={'tower': 'fingerprint'})


def zoo(*arguments):
    """Exit code of a command line."""
    with pytest.raises(SystemExit) as end:
        main('zoo', list(arguments))
    return end.value.code


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of the test's own; returns the folder of its weights."""
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))
    monkeypatch.setattr(checkpoints, 'FOLDER', tmp_path / 'weights')
    monkeypatch.setattr(command, 'FOLDER', tmp_path / 'weights')
    monkeypatch.setattr(checkpoints.read_index, '__defaults__', (tmp_path / 'index.json', ))
    return tmp_path / 'weights'


def index(shelf: Path, **entries: dict) -> None:
    (shelf.parent / 'index.json').write_text(json.dumps(entries))


def shipped(shelf: Path, header: dict | None = None) -> dict:
    """An entry whose file lies on the shelf."""
    save_checkpoint_file(shelf / 'new.safetensors', {'head.weight': torch.ones(2)},
                         HEADER if header is None else header)
    digest = file_digest(shelf / 'new.safetensors')
    name = f'model-{digest[:8]}.safetensors'
    (shelf / 'new.safetensors').rename(shelf / name)
    return dict(ENTRY, file=name, sha256=digest)


def test_every_shipped_checkpoint_has_its_hash_header_config_and_size(capsys):
    assert zoo('verify') == 0, capsys.readouterr().out


def test_names_and_aliases_find_the_entry_whatever_their_spelling(shelf):
    index(shelf, detector=shipped(shelf))
    found = checkpoints.checkpoint('detector')
    assert checkpoints.checkpoint('SHORT') == found
    assert found.resolve().parent == shelf
    assert found.header()['metrics'] == {'AP': 0.1}
    assert found.config_path is not None and found.config_path.is_file()
    assert checkpoints.is_checkpoint('short') and not checkpoints.is_checkpoint('shor')


def test_an_unknown_name_is_answered_with_the_nearest(shelf):
    index(shelf, detector=ENTRY)
    with pytest.raises(ValueError, match="unknown checkpoint of the zoo 'detectr'; did you mean .*'detector'"):
        checkpoints.checkpoint('detectr')


def test_a_checkpoint_that_is_not_shipped_says_how_to_make_it(shelf):
    index(shelf, detector=ENTRY)
    with pytest.raises(FileNotFoundError, match='not shipped. Make it with `make train`.*detector.safetensors'):
        checkpoints.checkpoint('detector').resolve()
    with pytest.raises(FileNotFoundError, match='not shipped'):
        checkpoints.default_checkpoint('detection')
    with pytest.raises(FileNotFoundError, match='no checkpoint for \'depth\''):
        checkpoints.default_checkpoint('depth')


def test_a_file_of_the_user_s_own_stands_in_for_one_that_is_not_shipped(shelf):
    index(shelf, detector=ENTRY)
    place = checkpoints.checkpoint('detector').path
    save_checkpoint_file(place, {'a': torch.ones(1)}, {})
    assert checkpoints.default_checkpoint('detection').resolve() == place


def test_a_lost_file_and_a_changed_one_are_told_apart(shelf):
    entry = shipped(shelf)
    index(shelf, detector=entry)
    path = shelf / entry['file']
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match='has the SHA-256 .* but the index of the zoo says'):
        checkpoints.checkpoint('detector').resolve()
    path.unlink()
    with pytest.raises(FileNotFoundError, match='should lie at .* check the repository out again'):
        checkpoints.checkpoint('detector').resolve()


def test_verify_names_what_is_wrong(shelf, capsys):
    index(shelf, detector=shipped(shelf, header=dict(config='a.py')))
    (shelf / 'stranger.safetensors').write_bytes(b'x')
    assert zoo('verify') == 1
    said = capsys.readouterr().out
    assert "lacks ['data', 'revision', 'metrics', 'base_models']" in said
    assert 'files without an entry in the index: stranger.safetensors' in said


def test_verify_measures_size(shelf, capsys, monkeypatch):
    monkeypatch.setattr(checkpoints, 'LARGEST', 10)
    monkeypatch.setattr(command, 'LARGEST_SUM', 20)
    index(shelf, detector=shipped(shelf))
    assert zoo('verify') == 1
    said = capsys.readouterr().out
    assert 'more than the 10 that' in said and 'bytes in all, more than 20' in said


@pytest.mark.parametrize(('change', 'text'), [
    (dict(task='drawing'), "task of 'detector' must be one of"),
    (dict(file='model-12345678.safetensors'), 'both `file` and `sha256`'),
    (dict(file='../model-12345678.safetensors', sha256='12345678' * 8), 'must be a name inside'),
    (dict(file='model.safetensors', sha256='12345678' * 8), 'must end in -12345678.safetensors'),
    (dict(colour='red'), 'must have the keys'),
])
def test_a_wrong_entry_is_refused_by_name(shelf, change, text):
    index(shelf, detector={**ENTRY, **change})
    with pytest.raises(ValueError, match=text):
        checkpoints.read_index()


@pytest.mark.parametrize(('content', 'text'), [
    ('[]', 'one object'), ('{', 'cannot be read as the index of the zoo'), ('{"a": 1}', 'must have the keys')])
def test_a_file_that_is_no_index_is_refused(shelf, content, text):
    (shelf.parent / 'index.json').write_text(content)
    with pytest.raises(ValueError, match=text):
        checkpoints.read_index()


def test_two_entries_may_not_share_a_name(shelf):
    index(shelf, one=ENTRY, two=ENTRY)
    with pytest.raises(ValueError, match="'short' names both one and two"):
        checkpoints.read_index()


def test_the_command_resolves_and_answers_with_exit_code_2(shelf, capsys):
    index(shelf, detector=shipped(shelf))
    assert zoo('resolve', 'short') == 0
    assert str(shelf) in capsys.readouterr().out
    assert zoo('resolve', 'nobody') == 2
    assert 'did you mean' in capsys.readouterr().err
    assert zoo('list', 'checkpoints') == 0
    assert 'detector, short [detection; Apache-2.0] here' in capsys.readouterr().out
