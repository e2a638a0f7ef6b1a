"""Fusioner's augmentation: sizes, labels that follow the pixels, borders, repeatability, what is refused."""
from __future__ import annotations

import numpy as np
import pytest

from frozenmm.datasets.episode_augmentation import FusionerAugmentation, PackEpisode


def sample(height=60, width=90):
    """Colour tells the label: 1 where it is bright, else 0."""
    labels = np.zeros((height, width), np.uint8)
    labels[height // 4:, width // 3:] = 1
    image = np.where(labels[..., None] == 1, np.uint8(200), np.uint8(40)) * np.ones(3, np.uint8)
    return dict(img=image.astype(np.uint8), gt_seg_map=labels, seg_fields=['gt_seg_map'])


@pytest.fixture(autouse=True)
def _numpy_state():
    state = np.random.get_state()
    yield
    np.random.set_state(state)


def link(name, seed, **options):
    """One link of the chain alone, on a square sample."""
    transform = FusionerAugmentation(64, **options)
    results = sample(64, 64)
    np.random.seed(seed)
    getattr(transform, name)(results)
    return results


@pytest.mark.parametrize('shape', [(60, 90), (90, 60), (10, 200), (200, 7), (64, 64)])
def test_every_shape_becomes_the_square_asked_for(shape):
    transform = FusionerAugmentation(32)
    for seed in range(20):
        np.random.seed(seed)
        results = transform(sample(*shape))
        assert results['img'].shape == (32, 32, 3) and results['img'].dtype == np.uint8
        assert results['gt_seg_map'].shape == (32, 32) and set(np.unique(results['gt_seg_map'])) <= {0, 1, 255}
        assert tuple(results['img_shape']) == (32, 32)


@pytest.mark.parametrize('name', ['_area_crop', '_short_side_crop', '_mirror', '_elastic', '_shift_scale_rotate'])
def test_labels_follow_the_pixels(name):
    for seed in range(5):
        results = link(name, seed)
        image, labels = results['img'][..., 0].astype(int), results['gt_seg_map']
        # interpolation blurs the edge; away from it colour and label agree
        clear = (np.abs(image - 200) < 3) | (np.abs(image - 40) < 3)
        known = clear & (labels != 255)
        assert known.mean() > 0.5
        assert ((image > 120) == (labels == 1))[known].mean() > 0.98


def test_a_crop_keeps_between_half_and_all_of_the_area():
    transform = FusionerAugmentation(100)
    ramp = np.repeat(np.repeat(np.arange(100, dtype=np.uint8)[:, None], 100, 1)[..., None], 3, -1)
    kept = []
    for seed in range(30):
        np.random.seed(seed)
        results = dict(img=ramp.copy(), gt_seg_map=ramp[..., 0].copy(), seg_fields=['gt_seg_map'])
        transform._area_crop(results)
        kept.append(float(np.ptp(results['gt_seg_map'])) / 100)
    # rows kept: sqrt(area / aspect), at least sqrt(0.5 * 3 / 4), and all of them in some
    assert 0.55 < min(kept) < 0.8 and max(kept) > 0.95


@pytest.mark.parametrize(('border', 'options'), [(255, {}), (0, dict(border=0))])
def test_what_a_warp_brings_in_has_the_label_of_the_border(border, options):
    transform = FusionerAugmentation(64, degrees=20, **options)
    for seed in range(10):
        results = dict(img=np.full((64, 64, 3), 200, np.uint8), gt_seg_map=np.ones((64, 64), np.uint8),
                       seg_fields=['gt_seg_map'])
        np.random.seed(seed)
        transform._shift_scale_rotate(results)
        outside = results['gt_seg_map'] != 1
        assert outside.any() and (results['gt_seg_map'][outside] == border).all()
        assert (results['img'][outside] < 200).mean() > 0.9


def test_colours_leave_labels_alone_and_strength_zero_changes_nothing():
    strong, none = link('_colours', 3, colour=0.5), link('_colours', 3, colour=0.0)
    assert np.abs(strong['img'].astype(int) - sample(64, 64)['img']).mean() > 5
    assert np.abs(none['img'].astype(int) - sample(64, 64)['img']).max() <= 1
    np.testing.assert_array_equal(strong['gt_seg_map'], sample(64, 64)['gt_seg_map'])


def test_hue_turns_the_colour_circle_in_either_channel_order():
    red = np.zeros((4, 4, 3), np.float32)
    red[..., 2] = 255
    bgr = FusionerAugmentation(4)._turn_hue(red, 1 / 3)
    np.testing.assert_allclose(bgr[0, 0], [0, 255, 0], atol=2)
    rgb = FusionerAugmentation(4, channel_order='rgb')._turn_hue(red[..., ::-1].copy(), 1 / 3)
    np.testing.assert_allclose(rgb[0, 0], [0, 255, 0], atol=2)


def test_noise_has_the_variance_of_the_recipe():
    for seed in range(5):
        results = dict(img=np.full((64, 64, 3), 128, np.uint8), seg_fields=[])
        np.random.seed(seed)
        FusionerAugmentation(64)._noise(results)
        assert 9 < results['img'].astype(float).var() < 55


def test_the_same_seed_gives_the_same_sample():
    outcomes = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        outcomes.append(FusionerAugmentation(32)(sample())['img'])
    np.testing.assert_array_equal(outcomes[0], outcomes[1])
    assert not np.array_equal(outcomes[0], outcomes[2])


@pytest.mark.parametrize(('options', 'message'), [
    (dict(size=0), 'size must be at least 1 pixel, got 0'),
    (dict(size=8, colour=0.7), r'colour must be in 0..0.5 .*got 0.7'),
    (dict(size=8, channel_order='gray'), "channel_order must be one of .*got 'gray'"),
])
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FusionerAugmentation(**options)


def test_a_packed_episode_names_its_classes():
    pytest.importorskip('mmseg')
    packed = PackEpisode()(dict(sample(), class_names=['cat'], class_ids=[3], img_shape=(60, 90)))
    meta = packed['data_samples'].metainfo
    assert meta['class_names'] == ['cat'] and meta['class_ids'] == [3]
    assert packed['data_samples'].gt_sem_seg.data.shape == (1, 60, 90) and packed['inputs'].shape == (3, 60, 90)
