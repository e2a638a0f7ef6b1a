"""Accuracy on the recorded clips; their times are measured by benchmarks/recon_e2e.py."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from frozenmm.evaluation.trajectory import trajectory_errors
from frozenmm.reconstruction.align import align
from frozenmm.reconstruction.frames import read_images, resize_depth


@pytest.mark.parametrize('name, focal_px, ate_m', [('photo_room', 240.0, 0.005)])
def test_a_recorded_clip_is_within_its_limits(shared_dir, name, focal_px, ate_m):
    case = shared_dir / 'golden/frozen_recon' / f'e2e_clip__{name}'
    if not case.is_dir():
        pytest.skip(f'the reference data has no clip {name}')
    content = json.loads((case / 'case.json').read_text())
    data = shared_dir / 'data' / content['data']
    images = read_images([data / 'color' / f'{frame}.jpg' for frame in content['frames']])
    affine = load_file(case / 'tensors.safetensors')['in.affine_depth'].astype(np.float32)
    result = align(images, resize_depth(affine, images.shape[1:3]))
    rows = {line.split()[0]: line.split()[1:] for line in (data / 'poses.txt').read_text().splitlines() if line.strip()}
    truth = np.stack([np.array(rows[frame], float).reshape(4, 4)[:3, 3] for frame in content['frames']])
    errors = trajectory_errors(torch.from_numpy(result.poses_c2w[:, :3, 3]), torch.from_numpy(truth))
    assert errors['ate_rmse'] < ate_m and abs(result.focal_px / focal_px - 1) < 0.05
