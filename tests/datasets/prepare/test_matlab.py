"""MATLAB files: what scipy writes is read back, and damage is a sentence, never a look outside of the file."""
from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import scipy.io

from frozenmm.datasets.prepare.matlab import read_matrix


def written(compressed=False, **variables):
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, variables, do_compression=compressed)
    return buffer.getvalue()


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('kind', ['u1', 'i1', 'u2', 'i2', 'u4', 'i4', 'u8', 'i8', 'f4', 'f8'])
@pytest.mark.parametrize('shape', [(375, 500), (1, 1), (2, 3, 4), (0, 5)])
def test_matrices_are_read_as_they_were(kind, shape, compressed):
    values = np.random.default_rng(0).integers(0, 120, shape).astype(kind)
    found = read_matrix(written(compressed, other=np.ones((2, 2)), LabelMap=values), 'LabelMap')
    assert found.dtype == values.dtype and np.array_equal(found, values)


def test_the_other_byte_order():
    def element(kind, body):
        return struct.pack('>II', kind, len(body)) + body + bytes(-len(body) % 8)

    values = np.arange(6).reshape(2, 3)
    matrix = element(6, struct.pack('>II', 11, 0)) + element(5, struct.pack('>ii', 2, 3)) + element(1, b'LabelMap') + \
        element(4, values.T.astype('>u2').tobytes())
    found = read_matrix(bytes(124) + b'\x01\x00MI' + element(14, matrix), 'LabelMap')
    assert np.array_equal(found, values) and found.dtype == np.uint16


@pytest.mark.parametrize(('content', 'words'), [
    (b'', 'no MATLAB file'), (b'x' * 200, 'no MATLAB file'), (written(other=np.ones(3)), "no variable 'LabelMap'"),
    (written(LabelMap=np.ones((20, 20)))[:400], 'ends after the end'),
    (written(LabelMap='text'), 'no real matrix'), (written(LabelMap=np.ones(3) * 1j), 'no real matrix'),
    (written(LabelMap=dict(a=1)), 'no real matrix|ends'),
])
def test_anything_else_is_refused(content, words):
    with pytest.raises(ValueError, match=words):
        read_matrix(content, 'LabelMap')


def test_a_small_file_cannot_become_a_large_one(monkeypatch):
    monkeypatch.setattr('frozenmm.datasets.prepare.matlab.LARGEST', 1000)
    with pytest.raises(ValueError, match='unpacks to more than'):
        read_matrix(written(True, LabelMap=np.zeros((100, 100))), 'LabelMap')
