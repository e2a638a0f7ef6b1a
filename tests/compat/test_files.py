"""Files that are written as a whole or not at all."""
from __future__ import annotations

import os

import pytest

from frozenmm.compat.files import write_whole


def test_content_arrives_and_nothing_else_stays_behind(tmp_path):
    write_whole(tmp_path / 'new' / 'file.bin', b'first')
    write_whole(tmp_path / 'new' / 'file.bin', b'second')
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['file.bin']
    assert (tmp_path / 'new' / 'file.bin').read_bytes() == b'second'


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'file.bin'
    write_whole(path, b'old')

    def refuse(*names):
        raise OSError('no space left on device')

    monkeypatch.setattr(os, 'replace', refuse)
    with pytest.raises(OSError, match='no space left'):
        write_whole(path, b'new')
    assert [entry.name for entry in tmp_path.iterdir()] == ['file.bin'] and path.read_bytes() == b'old'
