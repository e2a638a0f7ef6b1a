"""Whatever a server answers, a download is the file, or an error of one sentence, and leaves no wrong file."""
from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from served import serving

from frozenmm.compat import fetch as fetching
from frozenmm.compat.fetch import TransferLimits, fetch
from frozenmm.compat.image_sources import read_images
from frozenmm.datasets.prepare import sources
from frozenmm.datasets.prepare.sources import SourceFile, obtain, unpack
from frozenmm.foundation.weights import WeightFile, locate

MANNERS = ('cut', 'wrong_range', 'no_http', 'empty', 'bad_chunks', 'cut_chunks', 'long_header', 'bad_length')


def _weights() -> bytes:
    stream = io.BytesIO()
    torch.save(dict(weight=torch.arange(30_000.0)), stream)
    return stream.getvalue()


def _png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(stream, 'PNG')
    return stream.getvalue()


CONTENT = _weights()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The cache folder of a process that may ask the network."""
    monkeypatch.delenv('FROZENMM_OFFLINE', raising=False)
    monkeypatch.delenv('FROZENMM_MIRROR', raising=False)
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path))
    return tmp_path / 'weights'


def _file(server):
    return WeightFile(f'{server.address}/net.pth', 1, 'MIT')


@pytest.mark.parametrize('part', [False, True])
@pytest.mark.parametrize('manner', MANNERS)
def test_weights_from_a_bad_server(manner, part, home):
    with serving(CONTENT, manner) as server:
        if part:
            home.mkdir()
            (home / 'net.pth.part').write_bytes(CONTENT[:5000])
            (home / 'net.pth.part.etag').write_text(server.tag)
        try:
            path = locate(None, _file(server), name='net')
        except ValueError as error:
            assert 'net' in str(error) and 'Error(' not in str(error)
            assert not (home / 'net.pth').exists()
            server.manner = ''  # and when the server is well again
            for _ in range(2):
                try:
                    path = locate(None, _file(server), name='net')
                    break
                except FileNotFoundError as error:
                    assert 'call again' in str(error)
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize('page', [b'<!DOCTYPE html><p>Please log in', b'{"error": 1}', bytes(range(200)) * 50, b'.'])
def test_a_page_does_not_become_the_weights(page, home):
    with serving(page) as server:
        with pytest.raises(ValueError, match='net.pth gave no weights, so they were deleted'):
            locate(None, _file(server), name='net')
        assert {path.suffix for path in home.iterdir()} == {'.lock'}
        server.content = CONTENT
        assert locate(None, _file(server), name='net').read_bytes() == CONTENT


def test_a_part_of_other_content_is_fetched_anew(home):
    with serving(CONTENT, 'cut') as server:
        with pytest.raises(FileNotFoundError, match='call again'):
            locate(None, _file(server), name='net')
        server.manner, server.tag = '', '"second"'
        server.content = content = _weights_of(7.0)
        assert locate(None, _file(server), name='net').read_bytes() == content
        assert server.asked[1].startswith('bytes=')


def _weights_of(value: float) -> bytes:
    stream = io.BytesIO()
    torch.save(dict(weight=torch.full((30_000, ), value)), stream)
    return stream.getvalue()


def test_a_part_that_is_longer_than_the_file_is_fetched_anew(home):
    home.mkdir()
    (home / 'net.pth.part').write_bytes(CONTENT + b'more')
    (home / 'net.pth.part.etag').write_text('"first"')
    with serving(CONTENT) as server:
        with pytest.raises(FileNotFoundError, match='call again to fetch it anew'):
            locate(None, _file(server), name='net')
        assert locate(None, _file(server), name='net').read_bytes() == CONTENT


def test_a_part_that_nobody_can_name_is_fetched_anew(home):
    home.mkdir()
    (home / 'net.pth.part').write_bytes(b'something else')
    with serving(CONTENT) as server:
        assert locate(None, _file(server), name='net').read_bytes() == CONTENT
        assert server.asked == ['']


def test_weights_that_were_exchanged_after_their_first_use_are_noticed(home):
    with serving(CONTENT) as server:
        path = locate(None, _file(server), name='net')
        assert locate(None, _file(server), name='net') == path
        path.write_bytes(_weights_of(1.0))
        with pytest.raises(ValueError, match='when it was first used; it is damaged or was exchanged'):
            locate(None, _file(server), name='net')


@pytest.mark.parametrize('manner', [*MANNERS, 'trickle', 'trickled_header'])
def test_images_from_a_bad_server(manner, home, monkeypatch):
    from frozenmm.compat import image_sources
    monkeypatch.setattr(image_sources, 'ADDRESS_LIMITS', TransferLimits(1.5, 1 << 20))
    start = time.monotonic()
    with serving(_png(), manner) as server:
        try:
            (image, ) = read_images(f'{server.address}/a.png')
        except ValueError as error:
            assert server.address in str(error) or 'no readable image' in str(error)
        else:
            assert manner == 'wrong_range' and image.pixels.shape == (5, 6, 3)  # nothing was asked for in parts
    assert time.monotonic() - start < 60


def test_a_trickle_ends_at_the_limit_and_says_so(tmp_path):
    with serving(b'', 'trickle') as server:
        with pytest.raises(OSError, match=r'longer than 0\.5 s'):
            fetch(server.address, tmp_path / 'a', title='a', limits=TransferLimits(0.5))


def test_a_server_that_is_too_slow_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, '_SLOW_S', 0.3)
    with serving(b'', 'trickle') as server:
        with pytest.raises(OSError, match=r'the server sent \d bytes in 0\.3 s'):
            fetch(server.address, tmp_path / 'a', title='a')


@pytest.mark.parametrize('manner', ['', 'bad_length'])
def test_more_than_the_limit_is_not_fetched(manner, tmp_path):
    with serving(bytes(3 << 20), manner) as server:
        if manner:
            server.content = b''
        limits = TransferLimits(size=2 << 20 if not manner else 3)
        with pytest.raises(OSError, match='more than the'):
            fetch(server.address, tmp_path / 'a', title='a', limits=limits)


def test_a_service_does_not_ask_its_own_network(home, monkeypatch):
    monkeypatch.setenv('FROZENMM_ADDRESSES', 'public')
    with serving(_png()) as server:
        for host in ('127.0.0.1', 'localhost'):
            with pytest.raises(ValueError, match='which is no public address'):
                list(read_images(f'http://{host}:{server.server_port}/a.png'))
        assert server.asked == []
    monkeypatch.setenv('FROZENMM_ADDRESSES', 'rubbish')
    with pytest.raises(ValueError, match='use any or public'):
        list(read_images('http://127.0.0.1/a.png'))


@pytest.mark.parametrize('location', ['file:///etc/hostname', 'ftp://127.0.0.1/a', 'data:,a', 'rubbish://', '/again'])
def test_redirections_lead_to_http_only_and_end(location, home):
    with serving(_png(), 'redirect') as server:
        server.location = location
        with pytest.raises(ValueError, match='cannot be fetched'):
            list(read_images(f'{server.address}/a.png'))


# archives

def _zip(files: dict[str, bytes], **options) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


ARCHIVE = _zip({f'images/{number}.txt': b'content' * 1000 for number in range(50)})


def _obtain(server, folder):
    file = SourceFile('set.zip', '1 MB', 'page', ('images', ), url=f'{server.address}/set.zip')
    obtain([file], folder / 'set', splits=['val'], archives=[folder / 'downloads'], download=True, command='x')


@pytest.mark.parametrize('manner', MANNERS)
def test_a_bad_archive_never_stands_under_its_name(manner, tmp_path, home):
    with serving(ARCHIVE, manner) as server:
        try:
            _obtain(server, tmp_path)
        except ValueError as error:
            assert 'set.zip' in str(error)
            assert not (tmp_path / 'downloads' / 'set.zip').exists()
        server.manner = ''
        _obtain(server, tmp_path)
    assert len(list((tmp_path / 'set' / 'images').iterdir())) == 50


def test_a_page_is_no_archive(tmp_path, home):
    with serving(b'<html>too many requests') as server:
        with pytest.raises(ValueError, match='gave no whole archive'):
            _obtain(server, tmp_path)
    assert not list((tmp_path / 'downloads').iterdir())


def test_an_archive_that_grows_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, '_ALWAYS_ALLOWED', 1 << 20)
    path = tmp_path / 'bomb.zip'
    path.write_bytes(_zip({f'{n}': bytes(4 << 20) for n in range(3)}, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match='200 times its size'):
        unpack(path, tmp_path / 'out')
    assert not [file for file in (tmp_path / 'out').iterdir() if not file.name.startswith('.')]


def test_an_encrypted_archive_is_named(tmp_path):
    content = bytearray(_zip({'a': b'secret'}))
    content[6] |= 1  # the flag in the header of the file, and in the directory
    content[content.index(b'PK\x01\x02') + 8] |= 1
    (tmp_path / 'a.zip').write_bytes(content)
    with pytest.raises(ValueError, match='a.zip is encrypted; unpack it yourself'):
        unpack(tmp_path / 'a.zip', tmp_path / 'out')


@pytest.mark.journey
def test_preparing_twice_at_once(tmp_path, home, repo_root):
    """The two share archives, folders and the server; both end well, and the archive is asked for once."""
    script = """import sys
from pathlib import Path
from frozenmm.datasets.prepare import catalogue
from frozenmm.datasets.prepare.sources import SourceFile
file = SourceFile('set.zip', '1 MB', 'page', ('images', ), url=sys.argv[1])
catalogue.PREPARATIONS = dict(set=catalogue.Preparation('set', 'set', '', (file, ), lambda *_: None, ()))
catalogue.prepare('set', sys.argv[2])
"""
    with serving(ARCHIVE) as server:
        both = [subprocess.Popen([sys.executable, '-c', script, f'{server.address}/set.zip', str(tmp_path)], text=True,
                                 env={**os.environ, 'PYTHONPATH': str(repo_root)}, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT) for _ in range(3)]
        outputs = [process.communicate(timeout=200)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0, 0], outputs
        assert server.asked == ['']
    assert len(list((tmp_path / 'set' / 'images').iterdir())) == 50
