"""Normal equations of unknowns per frame and a few shared by all frames: dense for short clips, block-sparse for long.

Long clips are solved by conjugate gradients, preconditioned with the exact inverses of overlapping windows of
consecutive frames, so that time and memory grow with the number of frames that see each other, and loops stay exact.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from frozenmm.compat.dependencies import require

DENSE_UP_TO = 2000
"""Unknowns up to which the system is solved by one dense Cholesky factor."""
WINDOW = 12
STRIDE = 6
TOLERANCE = 1e-3
MAX_ITERATIONS = 200


class FrameSystem:
    """A symmetric matrix and a gradient, to be filled by blocks.

    Args:
        frames: number of frames.
        columns: unknowns per frame.
        shared: unknowns that belong to no frame.
    """

    def __init__(self, frames: int, columns: int, shared: int) -> None:
        self.frames, self.columns, self.shared = frames, columns, shared
        self.gradient = np.zeros((frames, columns))
        self.border = np.zeros((frames, columns, shared))
        self.corner = np.zeros((shared, shared))
        self.shared_gradient = np.zeros(shared)
        self._dense = np.zeros((frames, columns, frames, columns)) if frames * columns <= DENSE_UP_TO else None
        self._blocks: dict[tuple[int, int], np.ndarray] = {}

    def add(self, a: int, b: int, block: np.ndarray) -> None:
        """Add a block (D, D) at rows of frame a and columns of frame b, and its transpose where a differs from b."""
        if self._dense is not None:
            self._dense[a, :, b] += block
            if a != b:
                self._dense[b, :, a] += block.T
        else:
            key, block = ((a, b), block) if a <= b else ((b, a), block.T)
            present = self._blocks.get(key)
            if present is None:
                self._blocks[key] = block.copy()
            else:
                present += block

    def damp(self, factor: float, floor: float = 1e-9) -> None:
        """Multiply the diagonal by 1 + factor and add the floor."""
        every = np.arange(self.columns)
        for frame in range(self.frames):
            block = self._dense[frame, :, frame] if self._dense is not None else self._blocks[frame, frame]
            block[every, every] = block[every, every] * (1 + factor) + floor
        every = np.arange(self.shared)
        self.corner[every, every] = self.corner[every, every] * (1 + factor) + floor

    def solve(self, free: np.ndarray, free_shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Steps (F, D) and (S, ) that bring the gradient to zero; unknowns that are not free stay.

        Args:
            free: (F, D) bool.
            free_shared: (S, ) bool.

        Raises:
            numpy.linalg.LinAlgError: the matrix is not positive definite.
        """
        right = np.concatenate((-self.gradient[..., None], self.border[..., free_shared]), 2)
        right = right.reshape(-1, right.shape[2]) * free.reshape(-1, 1)
        solved = self._solve_sparse(right, free) if self._dense is None else _solve_dense(self._dense, right, free)
        step, shared = solved[:, 0], np.zeros(self.shared)
        if free_shared.any():
            border = right[:, 1:]
            corner = self.corner[np.ix_(free_shared, free_shared)] - border.T @ solved[:, 1:]
            shared[free_shared] = np.linalg.solve(corner, -self.shared_gradient[free_shared] - border.T @ step)
            step = step - solved[:, 1:] @ shared[free_shared]
        return step.reshape(self.frames, self.columns), shared

    def shared_covariance(self, free: np.ndarray, free_shared: np.ndarray) -> np.ndarray:
        """Covariance (S', S') of the shared unknowns that are free, given that all residuals have the variance 1."""
        border = (self.border[..., free_shared] * free[..., None]).reshape(self.frames * self.columns, -1)
        solved = self._solve_sparse(border, free) if self._dense is None else _solve_dense(self._dense, border, free)
        return np.linalg.inv(self.corner[np.ix_(free_shared, free_shared)] - border.T @ solved)

    def frame_covariance(self, free: np.ndarray) -> np.ndarray | None:
        """Covariance (F, D, F, D) of the frames, the shared unknowns held; None for a long clip."""
        if self._dense is None:
            return None
        kept, found = free.ravel(), np.zeros((free.size, free.size))
        found[np.ix_(kept, kept)] = np.linalg.inv(self._dense.reshape(free.size, -1)[np.ix_(kept, kept)])
        return found.reshape(*free.shape, *free.shape)

    def _solve_sparse(self, right: np.ndarray, free: np.ndarray) -> np.ndarray:
        """Conjugate gradients for every right side; rows and columns that are not free are those of the identity."""
        blocks = {key: block * free[key[0]][:, None] * free[key[1]] for key, block in self._blocks.items()}
        for frame in range(self.frames):
            blocks[frame, frame] = blocks[frame, frame] + np.diag((~free[frame]).astype(float))
        matrix = self._sparse_matrix(blocks)
        windows = self._windows(blocks)
        return _conjugate_gradients(matrix, windows, right)

    def _sparse_matrix(self, blocks: dict[tuple[int, int], np.ndarray]) -> Any:
        sparse = require('scipy.sparse', 'the joint solver')
        mirrored = {(b, a): block.T for (a, b), block in blocks.items() if a != b}
        every = sorted({**blocks, **mirrored}.items())
        starts = np.searchsorted([key[0] for key, _ in every], np.arange(self.frames + 1))
        size = self.frames * self.columns
        return sparse.bsr_matrix((np.stack([block for _, block in every]), [key[1] for key, _ in every], starts),
                                 shape=(size, size))

    def _windows(self, blocks: dict[tuple[int, int], np.ndarray]) -> list[tuple[slice, tuple]]:
        """Cholesky factors of overlapping windows of frames: principal parts, so they are positive definite."""
        linalg, d, found = require('scipy.linalg', 'the joint solver'), self.columns, []
        for first in range(0, max(self.frames - STRIDE, 1), STRIDE):
            last = min(first + WINDOW, self.frames)
            dense = np.zeros((last - first, d, last - first, d))
            for a in range(first, last):
                for b in range(a, last):
                    if (a, b) in blocks:
                        dense[a - first, :, b - first] = blocks[a, b]
            matrix = dense.reshape((last - first) * d, -1)
            factor = linalg.cho_factor(matrix, lower=False, check_finite=False)  # reads the upper half only
            found.append((slice(first * d, last * d), factor))
        return found


def _solve_dense(matrix: np.ndarray, right: np.ndarray, free: np.ndarray) -> np.ndarray:
    linalg = require('scipy.linalg', 'the joint solver')
    kept, solved = free.ravel(), np.zeros_like(right)
    reduced = matrix.reshape(free.size, free.size)[np.ix_(kept, kept)]
    factor = linalg.cho_factor(reduced, lower=True, overwrite_a=True, check_finite=False)
    solved[kept] = linalg.cho_solve(factor, right[kept], check_finite=False)
    return solved


def _conjugate_gradients(matrix: Any, windows: list[tuple[slice, tuple]], right: np.ndarray) -> np.ndarray:
    """Solutions (N, C) for the columns of `right` (N, C), each with its own steps, multiplied at once."""
    linalg = require('scipy.linalg', 'the joint solver')

    def precondition(residual: np.ndarray) -> np.ndarray:
        out = np.zeros_like(residual)
        for place, factor in windows:
            out[place] += linalg.cho_solve(factor, residual[place], check_finite=False)
        return out

    solution, residual = np.zeros_like(right), right.copy()
    goal = TOLERANCE * np.linalg.norm(right, axis=0)
    direction = precondition(residual)
    product = (residual * direction).sum(0)
    for _ in range(MAX_ITERATIONS):
        unsolved = np.linalg.norm(residual, axis=0) > goal
        if not unsolved.any():
            break
        image = matrix @ direction
        length = np.divide(product, (direction * image).sum(0), out=np.zeros_like(product), where=unsolved)
        solution += length * direction
        residual -= length * image
        turned = precondition(residual)
        product, before = (residual * turned).sum(0), product
        direction = turned + np.divide(product, before, out=np.zeros_like(product), where=unsolved) * direction
    return solution
