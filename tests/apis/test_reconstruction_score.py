from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from frozenmm.apis.reconstruction_score import PosedDepth, score_folder, score_reconstruction
from frozenmm.datasets.rgbd import read_sequence
from frozenmm.reconstruction.align import Alignment
from frozenmm.reconstruction.fusion import fuse, without_edges
from frozenmm.reconstruction.outputs import write_depth, write_nerfstudio, write_ply, write_tum

FACTOR = 0.4
NAMES = ['000', '001', '002', '003']


@pytest.fixture(scope='module')
def clip(rooms):
    return rooms.render_room(rooms.RoomSettings(frames=4, size=(90, 120), path_m=0.6, samples=1, seed=2))


@pytest.fixture(scope='module')
def truth(clip, tmp_path_factory):
    """The clip in the layout of a plain folder."""
    folder = tmp_path_factory.mktemp('truth')
    (folder / 'color').mkdir()
    (folder / 'depth').mkdir()
    lines = []
    for name, image, depth, pose in zip(NAMES, clip.images, clip.depth, clip.poses_c2w):
        cv2.imwrite(str(folder / f'color/{name}.jpg'), image[..., ::-1])
        cv2.imwrite(str(folder / f'depth/{name}.png'), np.rint(depth * 1000).astype(np.uint16))
        lines.append(f'{name} ' + ' '.join(f'{value:.9f}' for value in pose.flatten()))
    (folder / 'poses.txt').write_text('\n'.join(lines))
    np.savetxt(folder / 'intrinsics.txt', [[clip.focal_px, 0, 59.5], [0, clip.focal_px, 44.5], [0, 0, 1]])
    return folder


@pytest.fixture(scope='module')
def results(clip, tmp_path_factory):
    """What a perfect reconstruction in another unit would write for the last three frames."""
    out = tmp_path_factory.mktemp('out')
    poses = clip.poses_c2w[1:].copy()
    poses[:, :3, 3] *= FACTOR
    depth = clip.depth[1:] * FACTOR
    write_tum(out / 'poses.txt', poses)
    write_depth(out / 'depth', NAMES[1:], depth)
    write_nerfstudio(out / 'transforms.json', [f'{name}.jpg' for name in NAMES[1:]], poses, clip.focal_px, (90, 120))
    empty = np.zeros(0)
    aligned = Alignment(poses, depth, clip.focal_px, empty, empty, empty, empty, empty, empty, [])
    write_ply(out / 'mesh.ply', fuse(clip.images[1:], aligned, voxel_size=0.04 * FACTOR))
    return out


def test_a_perfect_reconstruction_in_another_unit_has_no_error(results, truth):
    scores = score_folder(results, read_sequence(truth, 'folder'), threshold=0.12)
    assert scores['ate_rmse'] < 1e-3 and scores['rpe_rotation_deg'] < 1e-3 and abs(scores['focal_error_percent']) < 1e-6
    assert scores['abs_rel'] < 2e-3 and scores['delta1'] == 1 and scores['abs_rel_per_frame'] < 2e-3
    assert scores['precision'] > 0.98 and scores['f_score'] > 0.9 and scores['chamfer_l1'] < 0.06


def test_errors_of_a_reconstruction_show(clip):
    intrinsics = np.array([[clip.focal_px, 0, 59.5], [0, clip.focal_px, 44.5], [0, 0, 1]])
    right = PosedDepth(clip.depth, clip.poses_c2w, intrinsics)
    wrong_focal = intrinsics.copy()
    wrong_focal[0, 0] *= 1.1
    scales = np.array([1, 1, 1, 2.0])[:, None, None]
    found = PosedDepth((clip.depth * scales)[:, ::2, ::2], clip.poses_c2w, wrong_focal / 2)
    scores = score_reconstruction(found, right)
    assert scores['focal_error_percent'] == pytest.approx(10)
    assert scores['abs_rel'] == pytest.approx(0.25, abs=0.03)  # one frame of four is off by its depth
    assert scores['abs_rel_per_frame'] < 0.03 and 'f_score' not in scores
    with pytest.raises(ValueError, match='expected the same frames, at least 2, got 3 and 4'):
        score_reconstruction(PosedDepth(clip.depth[:3], clip.poses_c2w[:3], intrinsics), right)


def test_pixels_at_jumps_take_no_part_in_fusion():
    depth = np.full((1, 6, 8), 2.0)
    depth[0, :, 4:] = 3.0
    depth[0, :, 5:] = 3.1  # a slope, no jump
    kept = without_edges(depth)
    assert (kept[0, :, 3:5] == 0).all() and (kept[0, :, :3] == 2).all() and (kept[0, :, 5:] == 3.1).all()
    depth[0, :, :4] = 0  # unknown beside known is no jump
    np.testing.assert_array_equal(without_edges(depth)[0, :, 4:], depth[0, :, 4:])


def test_the_tool_prints_and_writes_scores(results, truth, repo_root, tmp_path):
    command = [sys.executable, str(repo_root / 'tools/eval_recon.py'), str(results), str(truth), '--json',
               str(tmp_path / 'scores.json')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    scores = json.loads((tmp_path / 'scores.json').read_text())
    assert f'{scores["abs_rel"]:10.4f}' in done.stdout and set(scores) > {'f_score', 'ate_rmse', 'focal_error_percent'}


def test_results_of_other_images_are_refused(results, truth, tmp_path):
    sequence = read_sequence(truth, 'folder')
    with pytest.raises(ValueError, match=r"the sequence has no frames \['001'\]"):
        score_folder(results, sequence.select(np.array([True, False, True, True])))
    with pytest.raises(FileNotFoundError, match='give the --out folder of a finished tools/recon.py'):
        score_folder(tmp_path, sequence)
