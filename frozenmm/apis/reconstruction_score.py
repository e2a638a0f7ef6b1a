"""Scores of a reconstruction against a sequence with known depth, poses and focal length."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from frozenmm.datasets.rgbd import RGBDSequence
from frozenmm.errors import UserError
from frozenmm.evaluation.depth import align_depth, depth_errors
from frozenmm.evaluation.surface import focal_error_percent, surface_errors
from frozenmm.evaluation.trajectory import fit_similarity, relative_errors, trajectory_errors
from frozenmm.reconstruction.mesh import Mesh, sample_surface
from frozenmm.reconstruction.results_folder import open_results
from frozenmm.reconstruction.sparse_tsdf import fuse_frames

SAMPLES = 100_000
DEFAULT_THRESHOLD_M = 0.05


@dataclass(frozen=True)
class PosedDepth:
    """Depth with cameras: a truth, or what is scored.

    Attributes:
        depth: (F, H, W), 0 where it is unknown.
        poses_c2w: (F, 4, 4).
        intrinsics_px: (3, 3) at that size.
    """

    depth: np.ndarray
    poses_c2w: np.ndarray
    intrinsics_px: np.ndarray


def score_reconstruction(found: PosedDepth, truth: PosedDepth, mesh: Mesh | None = None, *,
                         threshold: float = DEFAULT_THRESHOLD_M) -> dict[str, float]:
    """All measures of a reconstruction.

    Args:
        found: the reconstruction; its depth may have another resolution than the truth's.
        truth: of the same frames, metres.
        mesh: the reconstruction's surface in its own world; without it no measure of the surface.
        threshold: of the F-score, metres.

    Returns:
        Camera: `ate_rmse`, `rpe_rotation_deg`, `rpe_translation`, `path_length`, `focal_error_percent`. Depth after one
        scale for all frames: `abs_rel`, `delta1` and the others of `depth_errors`; after a scale and a shift of every
        frame: `abs_rel_per_frame`. Surface after the similarity of the cameras: those of `surface_errors`, where the
        true surface is the fused true depth.

    Raises:
        UserError: other numbers of frames, or fewer than 2.
    """
    if len(found.depth) != len(truth.depth) or len(found.depth) < 2:
        raise UserError(f'expected the same frames, at least 2, got {len(found.depth)} and {len(truth.depth)}')
    poses, true_poses = torch.from_numpy(found.poses_c2w), torch.from_numpy(truth.poses_c2w)
    scores = trajectory_errors(poses[:, :3, 3], true_poses[:, :3, 3]) | relative_errors(poses, true_poses)
    steps = np.linalg.norm(np.diff(truth.poses_c2w[:, :3, 3], axis=0), axis=1)
    scores['path_length'] = float(steps.sum())
    height, width = truth.depth.shape[1:]
    focal = found.intrinsics_px[0, 0] * width / found.depth.shape[2]
    scores['focal_error_percent'] = focal_error_percent(focal, truth.intrinsics_px[0, 0])
    scores |= _depth_scores(found.depth, truth.depth)
    if mesh is not None:
        move = fit_similarity(poses[:, :3, 3], true_poses[:, :3, 3])
        points = move(torch.from_numpy(sample_surface(mesh, SAMPLES))).numpy()
        scores |= surface_errors(points, true_surface(truth, voxel_size=threshold / 2), threshold=threshold)
    return scores


def true_surface(truth: PosedDepth, *, voxel_size: float, count: int = SAMPLES) -> np.ndarray:
    """Points (count, 3) on the fused true depth."""
    depth = torch.from_numpy(truth.depth).float()
    grey = torch.zeros(*depth.shape, 3, dtype=torch.uint8)
    volume = fuse_frames(depth, grey, torch.from_numpy(truth.intrinsics_px), torch.from_numpy(truth.poses_c2w),
                         voxel_size=voxel_size)
    return sample_surface(volume.extract_mesh(), count)


def _depth_scores(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    size = truth.shape[:0:-1]
    maps = torch.from_numpy(np.stack([cv2.resize(m.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
                                      for m in found])).clamp(min=1e-6)
    true = torch.from_numpy(truth)
    scores = depth_errors(align_depth(maps, true), true)
    frames = [(p, t) for p, t in zip(maps, true) if int((t > 0).sum()) > 1]
    own = [depth_errors(align_depth(p, t, method='lsq_scale_shift'), t)['abs_rel'] for p, t in frames]
    return {**scores, 'abs_rel_per_frame': float(np.mean(own))}


def score_folder(out: str | Path, sequence: RGBDSequence, *,
                 threshold: float = DEFAULT_THRESHOLD_M) -> dict[str, float]:
    """Score what `tools/recon.py` wrote; frames are matched by the names of their images.

    Args:
        out: folder of the results.
        sequence: the truth; it may have more frames.
        threshold: of the F-score, metres.

    Raises:
        MissingFile: a file of the results is missing.
        UserError: a frame that the sequence does not have.
    """
    results = open_results(out)
    places = {image.stem: index for index, image in enumerate(sequence.images)}
    unknown = [name for name in results.names if name not in places]
    if unknown:
        raise UserError(f'the sequence has no frames {unknown[:3]}, which {out} has; were other images reconstructed?')
    index = [places[name] for name in results.names]
    truth = PosedDepth(np.stack([sequence.depth(i) for i in index]), sequence.poses_c2w[index], sequence.intrinsics_px)
    depth = np.stack([results.depth(frame) for frame in range(len(results))])
    found = PosedDepth(depth, results.poses_c2w, results.intrinsics_px())
    return score_reconstruction(found, truth, results.mesh(), threshold=threshold)
