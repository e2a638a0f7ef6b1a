"""Coloured meshes as binary glTF 2.0 whose surfaces show the colours of their vertices under any light."""
from __future__ import annotations

import json
import struct

import numpy as np

from frozenmm.errors import UserError
from frozenmm.reconstruction.mesh import Mesh

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_VERTICES, _INDICES = 34962, 34963


def glb_content(mesh: Mesh) -> bytes:
    """The bytes of a `.glb` file: vertices as they stand, colours linear, both sides visible, no shading.

    Photographs carry their light already, hence the extension KHR_materials_unlit; viewers without it see no metal.
    glTF's vertex colours are linear (section 3.9.2), so those of the mesh, which are sRGB as in its photographs, are
    converted, to 16 bits, because 8 would leave visible steps in the dark.

    Raises:
        UserError: a mesh without faces.

    >>> mesh = Mesh(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]]), np.zeros((3, 3), np.uint8))
    >>> content = glb_content(mesh)
    >>> content[:4], len(content) % 4
    (b'glTF', 0)
    """
    if not len(mesh.faces):
        raise UserError('a mesh without faces cannot be written as glTF; points.ply holds the point cloud')
    vertices = np.ascontiguousarray(mesh.vertices, '<f4')
    colours = np.full((len(vertices), 4), 65535, '<u2')
    colours[:, :3] = np.rint(_linear(mesh.colours) * 65535)
    faces = np.ascontiguousarray(mesh.faces, '<u4')
    parts = [(vertices, _VERTICES), (colours, _VERTICES), (faces, _INDICES)]
    starts = np.cumsum([0, *(part.nbytes for part, _ in parts)])
    document = {
        'asset': {'version': '2.0', 'generator': 'frozenmm'},
        'extensionsUsed': ['KHR_materials_unlit'],
        'scene': 0, 'scenes': [{'nodes': [0]}], 'nodes': [{'mesh': 0}],
        'materials': [{'doubleSided': True, 'extensions': {'KHR_materials_unlit': {}},
                       'pbrMetallicRoughness': {'metallicFactor': 0.0, 'roughnessFactor': 1.0}}],
        'meshes': [{'primitives': [{'attributes': {'POSITION': 0, 'COLOR_0': 1}, 'indices': 2, 'material': 0}]}],
        'accessors': [
            {'bufferView': 0, 'componentType': _FLOAT, 'type': 'VEC3', 'count': len(vertices),
             'min': vertices.min(0).tolist(), 'max': vertices.max(0).tolist()},
            {'bufferView': 1, 'componentType': _UINT16, 'type': 'VEC4', 'count': len(vertices), 'normalized': True},
            {'bufferView': 2, 'componentType': _UINT32, 'type': 'SCALAR', 'count': faces.size}],
        'bufferViews': [{'buffer': 0, 'byteOffset': int(start), 'byteLength': part.nbytes, 'target': target}
                        for start, (part, target) in zip(starts, parts)],
        'buffers': [{'byteLength': int(starts[-1])}]}
    text = json.dumps(document, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 4)
    chunks = (struct.pack('<I4s', len(text), b'JSON') + text
              + struct.pack('<I4s', int(starts[-1]), b'BIN\0') + b''.join(part.tobytes() for part, _ in parts))
    return struct.pack('<4sII', b'glTF', 2, 12 + len(chunks)) + chunks


def _linear(colours: np.ndarray) -> np.ndarray:
    """Linear light 0..1 of sRGB bytes (IEC 61966-2-1)."""
    values = colours / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055)**2.4)
