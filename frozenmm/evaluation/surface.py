"""Distances between two surfaces given as points, and the error of a focal length."""
from __future__ import annotations

import numpy as np

from frozenmm.compat import require


def surface_errors(points: np.ndarray, truth: np.ndarray, *, threshold: float = 0.05) -> dict[str, float]:
    """Accuracy, completeness, Chamfer-l1 and F-score of points on a surface.

    Args:
        points: (N, 3) on the reconstruction, in the frame and unit of the truth.
        truth: (M, 3) on the true surface.
        threshold: distance below which a point counts as right.

    Returns:
        `accuracy` (mean distance of `points` to the nearest of `truth`), `completeness` (the other way),
        `chamfer_l1` (their mean), `precision`, `recall` (shares below the threshold) and `f_score`, their harmonic
        mean.

    Raises:
        ValueError: shapes that do not fit, no point, or a threshold that is not positive.
    """
    for name, values in (('points', points), ('truth', truth)):
        if values.ndim != 2 or values.shape[1] != 3 or not len(values):
            raise ValueError(f'{name} must be at least one point (N, 3), got {values.shape}')
    if threshold <= 0:
        raise ValueError(f'threshold must be positive, got {threshold}')
    tree = require('scipy.spatial', 'distances between surfaces').cKDTree
    there, back = tree(truth).query(points)[0], tree(points).query(truth)[0]
    precision, recall = float((there < threshold).mean()), float((back < threshold).mean())
    return {'accuracy': float(there.mean()), 'completeness': float(back.mean()),
            'chamfer_l1': float(there.mean() + back.mean()) / 2, 'precision': precision, 'recall': recall,
            'f_score': 2 * precision * recall / (precision + recall) if precision + recall else 0.0}


def focal_error_percent(focal_px: float, truth_px: float) -> float:
    """Signed error of a focal length in per cent of the true one, both at the same width.

    Raises:
        ValueError: a true focal length that is not positive.
    """
    if truth_px <= 0:
        raise ValueError(f'the true focal length must be positive, got {truth_px}')
    return 100 * (focal_px / truth_px - 1)
