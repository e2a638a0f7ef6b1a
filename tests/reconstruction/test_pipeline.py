from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

import frozenmm.reconstruction.pipeline as pipeline
from frozenmm.errors import DeviceError, UserError
from frozenmm.evaluation.trajectory import trajectory_errors
from frozenmm.reconstruction.bundle_builder import TrackSettings
from frozenmm.reconstruction.command import DEFAULTS, ProgressLine, read_settings, reconstruct_from
from frozenmm.reconstruction.depth_model import FrozenDepth
from frozenmm.reconstruction.depth_sources import PrecomputedDepth
from frozenmm.reconstruction.footage import read_footage
from frozenmm.reconstruction.frames import list_images, read_images
from frozenmm.reconstruction.outputs import read_ply, read_tum, write_glb
from frozenmm.reconstruction.pipeline import UnwritableFolder
from frozenmm.reconstruction.track_solver import solve_tracks


@pytest.fixture(scope='module')
def clip(room, tmp_path_factory, rooms) -> Path:
    folder = tmp_path_factory.mktemp('clip')
    for index, image in enumerate(room.images):
        cv2.imwrite(str(folder / f'{index + 8}.png'), image[..., ::-1])  # 8, 9, 10, ...: natural order matters
    np.savez(folder / 'depth.npz', depth=rooms.distort_depth(room.depth))
    return folder


@pytest.fixture(scope='module')
def results(clip, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('out')
    reconstruct_from(clip, out, depth=clip / 'depth.npz', report=ProgressLine())
    return out


def test_everything_is_written(results):
    for name in ('poses.txt', 'transforms.json', 'points.ply', 'mesh.ply', 'mesh.png', 'report.png', 'summary.json',
                 'colmap/cameras.txt', 'colmap/images.txt', 'colmap/points3D.txt', 'depth/8.npy', 'depth/12.png'):
        assert (results / name).stat().st_size > 0, name
    assert not list(results.rglob('.*'))  # no temporary file is left


def test_poses_and_exports_agree(results, room):
    rows = np.loadtxt(results / 'poses.txt')
    transforms = json.loads((results / 'transforms.json').read_text())
    assert [Path(frame['file_path']).stem for frame in transforms['frames']] == ['8', '9', '10', '11', '12']
    for frame, image in zip(transforms['frames'], room.images):  # as nerfstudio and COLMAP look for them
        np.testing.assert_array_equal(cv2.imread(str(results / frame['file_path']))[..., ::-1], image)
    matrix = np.array(transforms['frames'][3]['transform_matrix'])
    np.testing.assert_allclose(matrix[:3, 3], rows[3, 1:4], atol=1e-6)
    assert matrix[2, 2] < 0  # nerfstudio's cameras look along -z
    lines = [line for line in (results / 'colmap/images.txt').read_text().splitlines() if line.endswith('.png')]
    numbers = np.array(lines[3].split()[1:8], float)
    w, x, y, z = numbers[:4]
    rotation = np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                         [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                         [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]])
    np.testing.assert_allclose(-rotation.T @ numbers[4:], rows[3, 1:4], atol=1e-6)


def test_depth_images_hold_the_depth(results):
    unit = json.loads((results / 'depth/scale.json').read_text())['depth_per_step']
    steps = cv2.imread(str(results / 'depth/9.png'), -1)
    np.testing.assert_allclose(steps * unit, np.load(results / 'depth/9.npy'), atol=unit)


def test_confidence_is_high_where_frames_agree_and_low_where_depth_is_spoilt(results, exact):
    maps = np.stack([cv2.imread(str(results / 'confidence' / f'{index + 8}.png'), -1) for index in range(5)])
    assert maps.shape == exact.room.depth.shape and maps.dtype == np.uint8 and np.median(maps) > 150
    depth = exact.room.depth.copy()
    depth[2, 40:80, 40:80] *= 1.5  # a thing that no other frame sees
    found = solve_tracks(exact.tracks, FrozenDepth(depth), settings=TrackSettings()).confidence[2].astype(float)
    assert np.median(found[50:70, 50:70]) < 0.3 < 0.7 < np.median(found[:30])


def test_ply_files_have_the_size_that_their_header_says(results):
    for name in ('points.ply', 'mesh.ply'):
        content = (results / name).read_bytes()
        header, _, body = content.partition(b'end_header\n')
        counts = {line.split()[1]: int(line.split()[2]) for line in header.splitlines() if line.startswith(b'element')}
        assert len(body) == counts[b'vertex'] * 15 + counts.get(b'face', 0) * 13
        assert counts[b'vertex'] > 1000


def test_a_second_run_takes_the_stored_alignment(results, clip, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError('aligned again')

    monkeypatch.setattr(pipeline, 'align', fail)
    reconstruct_from(clip, results, depth=clip / 'depth.npz', options={'mesh': False}, report=ProgressLine())
    with pytest.raises(AssertionError, match='aligned again'):
        reconstruct_from(clip, results, depth=clip / 'depth.npz', options={'seed': 1}, report=ProgressLine())


def test_the_shipped_config_states_the_defaults(repo_root):
    path = repo_root / 'configs/frozen_recon/frozen_recon_tracks.py'
    config = Config.fromfile(path).to_dict()
    config.pop('custom_imports')
    assert config == DEFAULTS and read_settings(path) == DEFAULTS


def test_the_old_name_of_given_poses_still_works():
    with pytest.warns(FutureWarning, match='the setting poses is now called poses_c2w; .* goes with frozenmm 0.3'):
        assert read_settings(None, {'poses': 'poses.txt'}) == {**DEFAULTS, 'poses_c2w': 'poses.txt'}


def test_bad_settings_are_explained(clip, tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no config'):
        read_settings('nothing.py')
    with pytest.raises(ValueError, match='voxel_size'):
        read_settings(None, {'voxel_sise': 0.1})
    with pytest.raises(ValueError, match='every must be a number'):
        reconstruct_from(clip, tmp_path, depth=clip / 'depth.npz', options={'every': 'two'})
    with pytest.raises(ValueError, match='every must be a whole number or None, got 2.5'):
        reconstruct_from(clip, tmp_path, depth=clip / 'depth.npz', options={'every': 2.5})
    for options, message in ((
            {'every': 0}, 'every must be at least 1'), ({'voxel_size': -0.1}, 'voxel_size must be positive'),
            ({'min_faces': -5}, 'min_faces must be at least 0'), ({'seed': 'abc'}, "seed must be a number .* 'abc'"),
            ({'mesh': 'flase'}, "mesh must be True or False, got 'flase'"), ({'mode': 'track'}, 'tracks')):
        with pytest.raises(ValueError, match=message):
            reconstruct_from(clip, tmp_path / 'out', depth=clip / 'depth.npz', options=options)
    with pytest.raises(ValueError, match='depth must be the config of a depth network'):
        reconstruct_from(clip, tmp_path / 'out', options={'depth': 5})
    for depth, message in (
            ({'type': 'frozenmm.LightDeth'}, "'frozenmm.LightDeth', which is no .*LightDepth"),
            ({}, "'None', which is no registered"), ({'type': 'frozenmm.LightDepth', 'wieghts': None}, "'wieghts'"),
            ({'type': 'frozenmm.AffineDepthLoss'}, 'must be a depth network, got AffineDepthLoss')):
        with pytest.raises(UserError, match=message):
            reconstruct_from(clip, tmp_path / 'out', options={'depth': depth})
    for device, message in (('gpuu', "device must be auto, .* got 'gpuu'"),
                            ('cuda:99', "device 'cuda:99' cannot be used")):
        with pytest.raises(DeviceError, match=message):
            reconstruct_from(clip, tmp_path / 'out', device=device)
    (tmp_path / 'broken.py').write_text('every = (')
    with pytest.raises(ValueError, match='broken.py cannot be read as a config: .* line 1'):
        read_settings(tmp_path / 'broken.py')


def test_a_folder_that_cannot_be_written_is_found_before_the_work(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, 'align', None)
    (tmp_path / 'file').touch()
    with pytest.raises(UnwritableFolder, match='file is a file; give a folder for the results'):
        reconstruct_from(clip, tmp_path / 'file', depth=clip / 'depth.npz')
    with pytest.raises(OSError, match='cannot be made .*; give another place'):
        reconstruct_from(clip, tmp_path / 'file' / 'below', depth=clip / 'depth.npz')
    monkeypatch.setattr(pipeline.os, 'access', lambda path, mode: False)
    with pytest.raises(UnwritableFolder, match='nothing can be written to'):
        reconstruct_from(clip, tmp_path / 'out', depth=clip / 'depth.npz')


def test_a_mesh_of_another_alignment_does_not_stay(clip, tmp_path):
    (tmp_path / 'mesh.ply').write_bytes(b'of another clip')
    reconstruct_from(clip, tmp_path, depth=clip / 'depth.npz', options={'mesh': False})
    assert not (tmp_path / 'mesh.ply').exists()
    (tmp_path / 'mesh.ply').write_bytes(b'of this clip')
    reconstruct_from(clip, tmp_path, depth=clip / 'depth.npz', options={'mesh': False})
    assert (tmp_path / 'mesh.ply').exists()


def test_images_without_content_or_with_one_name_are_refused(tmp_path):
    for name in 'a', 'b':
        cv2.imwrite(str(tmp_path / f'{name}.png'), np.zeros((60, 80, 3), np.uint8))
    with pytest.raises(ValueError, match='all 2 frames of .* are of one colour'):
        reconstruct_from(tmp_path, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    cv2.imwrite(str(tmp_path / 'b.jpg'), np.zeros((60, 80, 3), np.uint8))
    with pytest.raises(ValueError, match='several images called b, whose depth maps would get one name'):
        reconstruct_from(tmp_path, tmp_path / 'out')


def test_bad_input_is_explained(clip, tmp_path, room):
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        list_images(tmp_path / 'nothing')
    with pytest.raises(FileNotFoundError, match='holds no image'):
        list_images(tmp_path)
    with pytest.raises(FileNotFoundError, match='there is no image'):
        read_images([tmp_path / 'a.png'])
    (tmp_path / 'a.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match='is no readable image'):
        read_images([tmp_path / 'a.png'])
    cv2.imwrite(str(tmp_path / 'b.png'), room.images[0, :50])
    with pytest.raises(ValueError, match=r'b.png has 160x50 pixels, but 8.png has 160x120'):
        read_images([clip / '8.png', tmp_path / 'b.png'])
    (tmp_path / 'film.mp4').write_bytes(b'no video')
    with pytest.raises(ValueError, match='cannot be decoded as a video'):
        read_footage(tmp_path / 'film.mp4')
    with pytest.raises(FileNotFoundError, match='there is no folder .*nothing.mp4; give a folder of images or a video'):
        read_footage(tmp_path / 'nothing.mp4')
    with pytest.raises(ValueError, match='neither a folder of images nor a video'):
        read_footage(clip / 'depth.npz')
    with pytest.raises(ValueError, match='gives 1 frame'):
        reconstruct_from(clip, tmp_path, depth=clip / 'depth.npz', options={'every': 9})


def test_a_video_gives_every_nth_frame(tmp_path, room):
    writer = cv2.VideoWriter(str(tmp_path / 'film.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (160, 120))
    for image in room.images:
        writer.write(image[..., ::-1])
    writer.release()
    frames = read_footage(tmp_path / 'film.avi', 2).images
    assert frames.shape == (2, 120, 160, 3)
    assert np.abs(frames[0].astype(int) - room.images[1]).mean() < 12
    with pytest.raises(ValueError, match='has 5 frames, fewer than every=9'):
        read_footage(tmp_path / 'film.avi', 9)


def test_depth_maps_are_found_by_name_or_by_order(tmp_path):
    for name in ('a', 'b'):
        np.save(tmp_path / f'{name}.npy', np.full((4, 6), ord(name), np.float32))
    source = PrecomputedDepth(tmp_path)
    assert [values[0, 0] for values in source.maps(['b', 'a'], (4, 6))] == [98, 97]
    assert [values[0, 0] for values in source.maps(['x', 'y'], (8, 12))] == [97, 98]
    with pytest.raises(ValueError, match='holds 2 depth maps, but there are 3 frames'):
        source.maps(['a', 'b', 'c'], (4, 6))
    np.save(tmp_path / 'b.npy', np.ones((5, 6, 3), np.float32))
    with pytest.raises(ValueError, match='no single-channel depth map'):
        source.maps(['a', 'b'], (4, 6))


def test_depth_files_that_do_not_fit_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no depth at'):
        PrecomputedDepth(tmp_path / 'nothing')
    with pytest.raises(ValueError, match='kind must be one of'):
        PrecomputedDepth(tmp_path, kind='depth')
    np.savez(tmp_path / 'two.npz', a=np.ones(2), b=np.ones(2))
    with pytest.raises(ValueError, match=r"holds the arrays \['a', 'b'\]"):
        PrecomputedDepth(tmp_path / 'two.npz').maps(['a'], (4, 6))
    np.savez(tmp_path / 'flat.npz', depth=np.ones((4, 6)))
    with pytest.raises(ValueError, match=r'expected \(F, h, w\)'):
        PrecomputedDepth(tmp_path / 'flat.npz').maps(['a'], (4, 6))
    np.savez(tmp_path / 'many.npz', depth=np.ones((3, 4, 6)))
    with pytest.raises(ValueError, match='holds 3 depth maps, but there are 1 frames'):
        PrecomputedDepth(tmp_path / 'many.npz').maps(['a'], (4, 6))


def srgb_of_glb(path):
    """Colours (V, 3) uint8 of a file whose vertex colours are linear, as glTF has them."""
    content = path.read_bytes()
    length = int.from_bytes(content[12:16], 'little')
    document, buffer = json.loads(content[20:20 + length]), content[28 + length:]
    assert len(content) == int.from_bytes(content[8:12], 'little')
    assert document['materials'][0]['extensions'] == {'KHR_materials_unlit': {}}
    accessor = document['accessors'][document['meshes'][0]['primitives'][0]['attributes']['COLOR_0']]
    start = document['bufferViews'][accessor['bufferView']]['byteOffset']
    linear = np.frombuffer(buffer, '<u2', 4 * accessor['count'], start).reshape(-1, 4)[:, :3] / 65535
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear**(1 / 2.4) - 0.055)
    return np.rint(curve * 255).astype(np.uint8)


def test_the_mesh_as_gltf_is_that_of_the_ply(results, clip, tmp_path):
    trimesh = pytest.importorskip('trimesh')
    mesh = read_ply(results / 'mesh.ply')
    read = trimesh.load(str(write_glb(tmp_path / 'mesh.glb', mesh)), force='mesh', process=False)
    np.testing.assert_array_equal(read.faces, mesh.faces)
    np.testing.assert_allclose(read.vertices, mesh.vertices * [1, -1, -1], atol=1e-6)  # y up, z to the viewer
    np.testing.assert_array_equal(srgb_of_glb(tmp_path / 'mesh.glb'), mesh.colours)
    with pytest.raises(ValueError, match='a mesh without faces cannot be written as glTF'):
        write_glb(tmp_path / 'points.glb', read_ply(results / 'points.ply'))
    reconstruct_from(clip, results, depth=clip / 'depth.npz', options={'glb': True}, report=ProgressLine())
    assert (results / 'mesh.glb').stat().st_size > 10_000


def test_depth_alone_is_written_where_nothing_else_is_wanted(clip, tmp_path):
    reconstruct_from(clip, tmp_path, depth=clip / 'depth.npz', options={'depth_only': True}, report=ProgressLine())
    assert {path.name for path in tmp_path.iterdir()} == {'depth', 'confidence', 'report.png', 'summary.json', 'state'}
    assert len(list((tmp_path / 'depth').glob('*.npy'))) == 5


def test_results_of_a_distorting_lens_are_straight(room, tmp_path, rooms):
    """Images bent by a known k, so that the way back is tested too."""
    k, (height, width) = 0.12, room.images.shape[1:3]
    v, u = np.meshgrid(np.arange(height), np.arange(width), indexing='ij')
    bent = np.stack((u - (width - 1) / 2, v - (height - 1) / 2), -1) / room.focal_px
    straight = bent.copy()
    for _ in range(20):
        straight = bent / (1 + k * (straight**2).sum(-1, keepdims=True))
    place = (straight * room.focal_px + [(width - 1) / 2, (height - 1) / 2]).astype(np.float32)
    (tmp_path / 'in').mkdir()
    depth = [cv2.remap(x.astype(np.float32), place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
             for x in rooms.distort_depth(room.depth)]
    for index, image in enumerate(room.images):
        cv2.imwrite(str(tmp_path / 'in' / f'{index}.png'), cv2.remap(image[..., ::-1], place, None, cv2.INTER_CUBIC))
    np.savez(tmp_path / 'depth.npz', depth=np.stack(depth))
    reconstruct_from(tmp_path / 'in', tmp_path / 'out', depth=tmp_path / 'depth.npz', options={'radial': True},
                     report=ProgressLine())
    summary = json.loads((tmp_path / 'out/summary.json').read_text())
    assert abs(summary['radial'][0] - k) < 0.08
    written = cv2.imread(str(tmp_path / 'out/images/2.png'))[20:-20, 20:-20, ::-1].astype(int)
    given = cv2.imread(str(tmp_path / 'in/2.png'))[20:-20, 20:-20, ::-1].astype(int)
    truth = room.images[2, 20:-20, 20:-20].astype(int)
    assert np.abs(written - truth).mean() < np.abs(given - truth).mean()
    assert (tmp_path / 'out/mesh.ply').stat().st_size > 10_000


def test_names_with_blanks_are_written_without_and_kept_in_a_table(clip, tmp_path):
    """COLMAP cuts a name at a blank."""
    (tmp_path / 'in').mkdir()
    for index in range(8, 11):
        (tmp_path / 'in' / f'my photo {index}.png').write_bytes((clip / f'{index}.png').read_bytes())
    depth = np.load(clip / 'depth.npz')['depth'][:3]
    np.savez(tmp_path / 'depth.npz', depth=depth)
    reconstruct_from(tmp_path / 'in', tmp_path / 'out', depth=tmp_path / 'depth.npz', options={'mesh': False},
                     report=ProgressLine())
    names = [line.split()[-1] for line in (tmp_path / 'out/colmap/images.txt').read_text().splitlines()
             if line.endswith('.png')]
    assert names == [f'my_photo_{index}.png' for index in range(8, 11)]
    assert all((tmp_path / 'out/images' / name).is_file() for name in names)
    assert (tmp_path / 'out/names.txt').read_text().splitlines()[0] == 'my_photo_8.png\tmy photo 8.png'
    assert pipeline.safe_names(['a b.png', 'a_b.png', 'a\tb.png']) == ['a_b.png', '_a_b.png', '__a_b.png']


def test_landscape_and_portrait_of_one_camera_are_one_clip(room, tmp_path, rooms):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'depth').mkdir()
    depth = rooms.distort_depth(room.depth)
    for index, (image, values) in enumerate(zip(room.images, depth)):
        part = (slice(0, 120), slice(35, 125)) if index % 2 else (slice(15, 105), slice(20, 140))
        cv2.imwrite(str(tmp_path / 'in' / f'{index}.png'), image[part][..., ::-1])
        np.save(tmp_path / 'depth' / f'{index}.npy', values[part])
    result = reconstruct_from(tmp_path / 'in', tmp_path / 'out', depth=tmp_path / 'depth', report=ProgressLine(),
                              options={'mesh': False})
    assert result.depth.shape == (5, 120, 120) and abs(result.focal_px / room.focal_px - 1) < 0.1
    outside = np.zeros((5, 120, 120), dtype=bool)
    outside[1::2, :, :15] = outside[1::2, :, 105:] = outside[::2, :15] = outside[::2, 105:] = True
    np.testing.assert_array_equal(result.depth == 0, outside)
    errors = trajectory_errors(torch.from_numpy(result.poses_c2w[:, :3, 3]), torch.from_numpy(room.poses_c2w[:, :3, 3]))
    assert errors['ate_rmse'] < 0.03


def test_metric_depth_in_millimetres_is_metres(clip, tmp_path, room):
    (tmp_path / 'depth').mkdir()
    for index, values in enumerate(room.depth):
        steps = np.rint(1000 * values).astype(np.uint16)
        steps[10:20, 30:50] = 0
        cv2.imwrite(str(tmp_path / 'depth' / f'{index + 8}.png'), steps)
    result = reconstruct_from(clip, tmp_path / 'out', depth=tmp_path / 'depth', depth_kind='metric',
                              options={'mesh': False}, report=ProgressLine())
    known = result.depth > 0
    assert not known[:, 10:20, 30:50].any() and known[:, 30:].all()
    assert np.median(result.depth[known] / room.depth[known]) == pytest.approx(1, abs=0.02)
    for unit, factor in (('mm', 1e-3), ('m', 1.0), ('0.0002', 2e-4), (5e-4, 5e-4)):
        maps = PrecomputedDepth(tmp_path / 'depth', kind='metric', unit=unit).maps([str(i) for i in range(8, 13)])
        assert np.nanmedian(maps[0]) == pytest.approx(factor * 1000 * np.median(room.depth[0]), rel=0.1)
    with pytest.raises(ValueError, match="the unit of depth must be one of auto, mm, m, .* got 'cm'"):
        PrecomputedDepth(tmp_path / 'depth', kind='metric', unit='cm')


def test_images_alone_are_enough_with_the_embedded_network(clip, tmp_path, room):
    """No depth, no config, no download: the demonstration network's depth is coarse, its cameras are not."""
    reconstruct_from(clip, tmp_path, report=ProgressLine())
    poses = read_tum(tmp_path / 'poses.txt')[1]
    errors = trajectory_errors(torch.from_numpy(poses[:, :3, 3]), torch.from_numpy(room.poses_c2w[:, :3, 3]))
    length = np.linalg.norm(np.diff(room.poses_c2w[:, :3, 3], axis=0), axis=1).sum()
    assert errors['ate_rmse'] < 0.05 * length
    assert (tmp_path / 'mesh.ply').stat().st_size > 10_000
