"""Pictures of strangers: formats that start programs, damaged files of every format, and bombs."""
from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, features

try:
    import pillow_heif
except ImportError:
    pillow_heif = None

from frozenmm.compat.image_files import FORMATS
from frozenmm.compat.image_sources import read_images
from frozenmm.datasets.annotation_pictures import read_picture

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
showpage
%%EOF
"""


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program in Ghostscript's place that leaves a mark."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    (folder / 'gs').write_text(f'#!/bin/sh\ntouch {tmp_path}/started\n')
    (folder / 'gs').chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
    monkeypatch.setattr(EpsImagePlugin, 'gs_binary', str(folder / 'gs'))
    yield
    assert not (tmp_path / 'started').exists()


def _doors():
    yield lambda path: list(read_images(path))
    yield lambda path: list(read_images(str(path.parent)))
    yield read_picture
    yield _demo


def _demo(path):
    from frozenmm.demo.limits import picture_of
    return picture_of(str(path))


@pytest.mark.parametrize('door', list(_doors()), ids=['file', 'folder', 'annotation', 'demo'])
@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.eps', '.tif'])
def test_no_picture_starts_a_program(door, suffix, ghostscript, tmp_path, demo_room):
    (tmp_path / 'in').mkdir()
    path = tmp_path / 'in' / f'x{suffix}'
    path.write_bytes(EPS)
    with pytest.raises(ValueError):
        door(path)


def _written(kind: str) -> bytes:
    if kind == 'HEIF':
        pillow_heif.register_heif_opener()
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


WRITABLE = {'AVIF': features.check('avif'), 'HEIF': pillow_heif is not None}
KINDS = [kind for kind in FORMATS if WRITABLE.get(kind, True)]


@pytest.mark.parametrize('kind', KINDS)
def test_every_format_is_read_whatever_the_name(kind, tmp_path):
    (tmp_path / 'x.png').write_bytes(_written(kind))
    (image, ) = read_images(tmp_path / 'x.png')
    assert image.pixels.shape == (40, 50, 3)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('share', [0.02, 0.3, 0.6, 0.95])
def test_a_damaged_picture_of_every_format_is_a_sentence(kind, share, tmp_path):
    whole = _written(kind)
    place = int(share * len(whole))
    for content in (whole[:place], whole[:place] + bytes(40) + whole[place + 40:], whole[:place] + b'\xff' * 9):
        (tmp_path / 'x.png').write_bytes(content)
        try:
            (image, ) = read_images(tmp_path / 'x.png')
        except ValueError as error:
            assert 'x.png' in str(error)
        else:
            assert image.pixels.dtype == np.uint8


def _png_bomb(side: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
    rows = zlib.compress(bytes(min(side // 8 + 1, 20_000)) * 100, 9)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 1, 0, 0, 0, 0)) + \
        chunk(b'IDAT', rows) + chunk(b'IEND', b'')


@pytest.mark.parametrize('side', [17_000, 100_000, 2**31 - 1])
@pytest.mark.parametrize('door', list(_doors()), ids=['file', 'folder', 'annotation', 'demo'])
def test_a_bomb_is_refused_by_its_header(door, side, tmp_path, demo_room):
    path = tmp_path / 'bomb.png'
    path.write_bytes(_png_bomb(side))
    with pytest.raises(ValueError) as caught:
        door(path)
    assert 'Error' not in str(caught.value)
