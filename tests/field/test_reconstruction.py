"""Other people's clips: sensor depth with holes, damaged files, phone photographs."""
from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from frozenmm.reconstruction.command import reconstruct_from
from frozenmm.reconstruction.footage import read_footage


def _quiet(*step):
    return None


def test_depth_that_was_not_measured_is_missing_to_the_end(field, tmp_path):
    folder = field('reconstruction/sensor_zeros')
    given = np.load(folder / 'depth_with_zeros.npz')['depth']
    assert (given == 0).any()
    result = reconstruct_from(folder / 'room4', tmp_path / 'out', depth=folder / 'depth_with_zeros.npz',
                              options={'mesh': False}, report=_quiet)
    np.testing.assert_array_equal(result.depth == 0, given == 0)
    whole = reconstruct_from(folder / 'room4', tmp_path / 'whole', depth=folder / 'depth.npz',
                             options={'mesh': False}, report=_quiet)
    ratio = (result.depth / whole.depth)[given > 0]
    # what was measured is not spoilt by the holes
    assert np.quantile(np.abs(ratio / np.median(ratio) - 1), 0.95) < 0.05


def test_a_truncated_photograph_is_left_out_and_the_command_ends_with_1(field, tmp_path, repo_root):
    folder = field('reconstruction/truncated_jpeg')
    footage = read_footage(folder)
    bad, = footage.unreadable
    assert len(footage.images) == 2 and 'is no readable image' in bad
    run = subprocess.run([sys.executable, repo_root / 'tools/recon.py', folder, '--out', tmp_path / 'out',
                          '--cfg-options', 'mesh=False'], capture_output=True, text=True, cwd=repo_root)
    assert run.returncode == 1 and '1 image could not be read' in run.stderr, run.stderr
    assert 'focal length' in run.stdout and 'frozenmm view' in run.stdout
    assert len(list((tmp_path / 'out/images').iterdir())) == 2


@pytest.mark.parametrize('name', ['berlin', 'lund'])
def test_photographs_state_their_focal_length(field, name):
    footage = read_footage(field(f'reconstruction/{name}'))
    longer = max(footage.images.shape[1:3])
    assert footage.focal_prior_px == pytest.approx(405.6 / 408 * longer, rel=0.05)  # what COLMAP finds for berlin


def test_three_photographs_of_a_phone_are_placed(field, tmp_path):
    folder = field('reconstruction/berlin')
    result = reconstruct_from(folder, tmp_path / 'out', options={'mesh': False}, report=_quiet)
    longer = max(result.depth.shape[1:])
    assert result.focal_px == pytest.approx(405.6 / 408 * longer, rel=0.08)
    assert np.median(result.reprojection) < 1
