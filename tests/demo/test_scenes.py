from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from frozenmm.demo.scenes import CLASSES, SceneSettings, paint, write_scenes, writer
from frozenmm.demo.scenes.cutouts import cutouts
from frozenmm.demo.scenes.painter import MIN_VISIBLE, leaves_all_visible
from frozenmm.demo.scenes.photographs import photograph
from frozenmm.demo.scenes.surroundings import LIGHTS, TEXTURES, light

TINY = SceneSettings(train=3, val=2, size=64, objects=(2, 3))


def _files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


@pytest.mark.parametrize('name', CLASSES)
def test_a_cutout_is_solid_inside_and_clear_at_its_edge(name):
    for cutout in cutouts(name):
        assert cutout.pixels.shape[:2] == cutout.alpha.shape
        assert cutout.alpha.min() == 0 and cutout.alpha.max() == pytest.approx(1)
        edge = np.concatenate([cutout.alpha[0], cutout.alpha[-1], cutout.alpha[:, 0], cutout.alpha[:, -1]])
        assert edge.max() < 0.1
        soft = ((cutout.alpha > 0.05) & (cutout.alpha < 0.95)).mean()
        assert 0.2 < (cutout.alpha > 0.5).mean() < 0.95 and soft < 0.2
        assert cv2.connectedComponents((cutout.alpha > 0.5).astype(np.uint8))[0] - 1 <= 2


def test_the_tray_gives_many_different_coins():
    coins = cutouts('coin')
    assert len(coins) > 12
    assert len({coin.pixels.tobytes() for coin in coins}) == len(coins)


def test_an_unknown_class_is_refused_with_the_list():
    with pytest.raises(ValueError, match='no cut-outs of \'dog\'.*motorcycle'):
        cutouts('dog')


def test_a_missing_photograph_is_named_with_the_release_that_has_it():
    with pytest.raises(FileNotFoundError, match='nothing.png is missing.*scikit-image==0.26.0'):
        photograph('nothing.png')


def test_training_and_test_share_neither_ground_nor_light():
    assert not set(TEXTURES['train']) & set(TEXTURES['val'])
    assert not set(LIGHTS['train']) & set(LIGHTS['val'])
    for split in 'train', 'val':
        scenes = [paint(split, 64, (1, 2), np.random.default_rng(seed)) for seed in range(12)]
        assert {scene.texture for scene in scenes} <= set(TEXTURES[split])
        assert {scene.light for scene in scenes} <= set(LIGHTS[split])


def test_an_unknown_light_is_refused_with_the_list():
    with pytest.raises(ValueError, match='no light \'neon\'.*dusk'):
        light(np.zeros((8, 8, 3)), 'neon', np.random.default_rng(0))


def test_a_scene_follows_from_its_random_source_alone():
    first, again, other = (paint('train', 96, (3, 5), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.image, again.image) and first.labels == again.labels
    assert not np.array_equal(first.image, other.image)


def test_every_object_stays_in_sight():
    for seed in range(8):
        scene = paint('val', 96, (3, 6), np.random.default_rng(seed))
        assert scene.labels
        assert set(np.unique(scene.segments)) - {0} == set(range(1, len(scene.labels) + 1))


def test_an_object_that_would_hide_another_is_refused():
    from frozenmm.demo.scenes.cutouts import Cutout
    block = Cutout(np.zeros((10, 10, 3), np.uint8), np.ones((10, 10), np.float32))
    segments = np.zeros((20, 20), np.uint8)
    segments[:10, :10] = 1
    mask = np.zeros((20, 20), bool)
    mask[:10, :int(10 * (1 - MIN_VISIBLE)) + 1] = True
    assert not leaves_all_visible(segments, mask, [100], block)
    mask[:10, int(10 * (1 - MIN_VISIBLE)):] = False
    assert leaves_all_visible(segments, mask, [100], block)


def test_boxes_masks_and_panoptic_maps_agree(tmp_path):
    from pycocotools.coco import COCO
    folder = write_scenes(tmp_path, TINY)
    coco = COCO(str(folder / 'annotations/instances_train.json'))
    panoptic = json.loads((folder / 'annotations/panoptic_train.json').read_text())
    assert len(coco.imgs) == TINY.train == len(panoptic['annotations'])
    for entry in panoptic['annotations']:
        colours = cv2.imread(str(folder / 'panoptic_train' / entry['file_name'])).astype(int)
        ids = colours[..., 2] + 256 * colours[..., 1] + 65536 * colours[..., 0]
        assert set(np.unique(ids)) == {segment['id'] for segment in entry['segments_info'] if segment['area']}
        instances = coco.loadAnns(coco.getAnnIds(imgIds=entry['image_id']))
        things = [segment for segment in entry['segments_info'] if segment['category_id'] <= len(CLASSES)]
        for instance, segment in zip(instances, things, strict=True):
            mask = coco.annToMask(instance)
            assert np.array_equal(mask, ids == segment['id'])
            assert list(cv2.boundingRect(mask)) == instance['bbox'] and mask.sum() == instance['area']


def test_an_interrupted_run_goes_on_and_gives_the_same_files(tmp_path, monkeypatch):
    whole = write_scenes(tmp_path / 'whole', TINY)
    original, calls = writer._write_scene, []

    def interrupted(folder, split, index, settings):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append((split, index))
        original(folder, split, index, settings)

    monkeypatch.setattr(writer, '_write_scene', interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / 'part', TINY)
    assert not (tmp_path / 'part/annotations').exists()
    remaining = []
    monkeypatch.setattr(writer, '_write_scene', lambda *args: (remaining.append(args[1:3]), original(*args)))
    write_scenes(tmp_path / 'part', TINY)
    assert len(remaining) == TINY.train + TINY.val - 2
    assert _files(tmp_path / 'part') == _files(whole)


def test_complete_scenes_are_not_painted_again(tmp_path, monkeypatch):
    write_scenes(tmp_path, TINY)
    painted = []
    monkeypatch.setattr(writer, '_write_scene', lambda *args: painted.append(args))
    write_scenes(tmp_path, TINY)
    assert not painted


def test_a_folder_of_other_settings_is_refused(tmp_path):
    write_scenes(tmp_path, TINY)
    with pytest.raises(ValueError, match='holds scenes made with.*\'seed\': 0.*\'seed\': 7.*remove the folder'):
        write_scenes(tmp_path, SceneSettings(train=3, val=2, size=64, objects=(2, 3), seed=7))


@pytest.mark.parametrize(('change', 'message'), [
    (dict(train=0), 'train and val must be at least 1, got 0'),
    (dict(size=32), 'size must be at least 64 pixels, got 32'),
    (dict(objects=(4, 2)), 'smallest <= largest.*got \\(4, 2\\)'),
])
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SceneSettings(**change)
