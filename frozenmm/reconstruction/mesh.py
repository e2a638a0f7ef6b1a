"""Coloured triangle meshes: connected parts, specks, samples on the surface."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frozenmm.compat.dependencies import require
from frozenmm.errors import UserError


@dataclass
class Mesh:
    """A coloured triangle mesh; without faces a point cloud.

    Attributes:
        vertices: (V, 3) float32 in world units.
        faces: (T, 3) int64.
        colours: (V, 3) uint8, RGB.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray


def component_of_faces(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Number of the connected part that every face belongs to (T, ), and faces per part (C, ); shared vertices join."""
    sparse, graph = require('scipy.sparse', 'mesh parts'), require('scipy.sparse.csgraph', 'mesh parts')
    edges = np.concatenate((mesh.faces[:, :2], mesh.faces[:, 1:]))
    matrix = sparse.coo_matrix((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])),
                               shape=(len(mesh.vertices), ) * 2)
    _, label = graph.connected_components(matrix, directed=False)
    used, part = np.unique(label[mesh.faces[:, 0]], return_inverse=True)
    return part, np.bincount(part, minlength=len(used))


def largest_share(mesh: Mesh) -> float:
    """Share of the faces that belong to the largest connected part; 0 without faces."""
    return float(component_of_faces(mesh)[1].max() / len(mesh.faces)) if len(mesh.faces) else 0.0


def drop_specks(mesh: Mesh, min_faces: int) -> Mesh:
    """The mesh without connected parts of fewer than `min_faces` faces, and without vertices of no face.

    >>> faces = np.array([[0, 1, 2], [1, 2, 3], [4, 5, 6]])
    >>> mesh = drop_specks(Mesh(np.zeros((7, 3)), faces, np.zeros((7, 3), np.uint8)), 2)
    >>> mesh.faces.tolist(), len(mesh.vertices)
    ([[0, 1, 2], [1, 2, 3]], 4)
    """
    if not len(mesh.faces):
        return mesh
    part, count = component_of_faces(mesh)
    faces = mesh.faces[count[part] >= min_faces]
    used, index = np.unique(faces, return_inverse=True)
    return Mesh(mesh.vertices[used], index.reshape(-1, 3), mesh.colours[used])


def sample_surface(mesh: Mesh, count: int, seed: int = 0) -> np.ndarray:
    """Points (count, 3) float64 drawn evenly by area from the faces.

    Raises:
        UserError: no face, or faces without area.
    """
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    if not area.sum() > 0:
        raise UserError(f'a mesh of {len(mesh.faces)} faces without area has no surface to sample')
    random = np.random.default_rng(seed)
    face = random.choice(len(area), count, p=area / area.sum())
    u, v = random.random((2, count, 1))
    outside = u + v > 1
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    a, b, c = corners[face].transpose(1, 0, 2)
    return a + u * (b - a) + v * (c - a)
