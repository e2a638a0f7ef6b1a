"""Whatever a file holds that is not what its reader wants: one sentence that names it, never a bare Python error."""
from __future__ import annotations

import io
import pickle

import cv2
import numpy as np
import pytest

from frozenmm.errors import UserError
from frozenmm.reconstruction.command import read_settings
from frozenmm.reconstruction.depth_sources import PrecomputedDepth
from frozenmm.reconstruction.footage import read_footage
from frozenmm.reconstruction.frames import read_images
from frozenmm.reconstruction.mesh import Mesh
from frozenmm.reconstruction.outputs import read_ply, read_tum, write_ply
from frozenmm.reconstruction.results_folder import open_results
from frozenmm.reconstruction.stored_state import StoredState

READERS = {
    'depth.npz': lambda path: PrecomputedDepth(path).maps(['a'], (4, 6)),
    'depth.npy': lambda path: PrecomputedDepth(path).maps(['a'], (4, 6)),
    'maps/a.npy': lambda path: PrecomputedDepth(path.parent).maps(['a'], (4, 6)),
    'maps/a.png': lambda path: PrecomputedDepth(path.parent).maps(['a'], (4, 6)),
    'image.png': lambda path: read_images([path]),
    'film.mp4': read_footage,
    'mesh.ply': read_ply,
    'poses.txt': read_tum,
    'transforms.json': lambda path: open_results(path.parent),
    'config.py': lambda path: read_settings(path),
}


def _npy(values) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def _npz(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _ply() -> bytes:
    return (b'ply\nformat binary_little_endian 1.0\nelement vertex %s\nproperty float x\nproperty float y\n'
            b'property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n')


CONTENTS = {
    'nothing': b'',
    'noise': bytes(np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8)),
    'an object': pickle.dumps({'depth': [1, 2]}),
    'half an npz': _npz(depth=np.ones((1, 40, 60)))[:900],
    'half an npy': _npy(np.ones((1, 40, 60)))[:900],
    'objects in an npy': _npy(np.array([{}, []], dtype=object)),
    'words in an npy': _npy(np.array([[['a']]])),
    'words in an npz': _npz(depth=np.array([[['a']]])),
    'records in an npy': _npy(np.zeros((1, 4, 6), dtype=[('x', 'f4'), ('y', 'f4')])),
    'a PLY that counts words': _ply() % b'many',
    'a PLY of -5 points': _ply() % b'-5',
    'a PLY of too many points': _ply() % b'999999999999999999',
    'a list in JSON': b'[1, 2]',
    'a number in JSON': b'5',
    'frames that are none': b'{"frames": 3, "fl_x": 1, "h": 2, "w": 2}',
    'a focal length that is none': b'{"frames": [], "fl_x": null, "h": 2, "w": 2}',
    'words for poses': b'0 a b c d e f g\n',
    'poses that are not finite': b'0 nan 0 0 0 0 0 1\n',
    'a name that nobody knows': b'every = evrey\n',
    'another alphabet': 'Тиефе'.encode('utf-16'),
}


SETTINGS = ('nothing', 'a list in JSON', 'a number in JSON', 'frames that are none')
"""Contents that are Python, so a config without settings."""


@pytest.mark.parametrize(('name', 'content'), [(name, content) for name in READERS for content in CONTENTS
                                               if not (name == 'config.py' and content in SETTINGS)])
def test_a_file_that_cannot_be_read_is_named_in_one_sentence(name, content, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(CONTENTS[content])
    with pytest.raises(UserError) as error:
        READERS[name](path)
    text = str(error.value)
    assert path.name in text or path.stem in text or path.parent.name in text
    assert '\n' not in text
    for bare in ('object is not', 'has no attribute', 'indices must be', 'Traceback', '__'):
        assert bare not in text.replace(str(path), ''), text


def test_a_state_under_another_key_is_no_error(tmp_path):
    StoredState(tmp_path, 'first').save('state', values=np.arange(3))
    assert StoredState(tmp_path, 'second').load('state') is None
    assert StoredState(tmp_path, 'first').load('state')['values'].tolist() == [0, 1, 2]


@pytest.mark.parametrize('content', [b'', b'noise', b'PK\x03\x04 and no end', None])
def test_a_damaged_state_is_computed_again(tmp_path, content):
    (tmp_path / 'state.npz').write_bytes(_npz(values=np.arange(3)) if content is None else content)
    assert StoredState(tmp_path, 'first').load('state') is None


def test_an_incomplete_mesh_is_not_read(tmp_path):
    mesh = Mesh(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]]), np.zeros((3, 3), np.uint8))
    whole = write_ply(tmp_path / 'mesh.ply', mesh).read_bytes()
    assert len(read_ply(tmp_path / 'mesh.ply').faces) == 1
    for content in (whole[:-1], whole + b'0'):
        (tmp_path / 'mesh.ply').write_bytes(content)
        with pytest.raises(UserError, match='mesh.ply is no complete PLY file of this package'):
            read_ply(tmp_path / 'mesh.ply')


def test_whole_numbers_and_sixteen_bits_are_depth_too(tmp_path):
    np.save(tmp_path / 'a.npy', np.full((4, 6), 7))
    cv2.imwrite(str(tmp_path / 'b.png'), np.full((4, 6), 40000, np.uint16))
    maps = PrecomputedDepth(tmp_path).maps(['a', 'b'], (4, 6))
    assert [values.dtype for values in maps] == [np.float32] * 2 and [values[0, 0] for values in maps] == [7, 40000]
