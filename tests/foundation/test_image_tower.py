from __future__ import annotations

import copy

import pytest
import torch
from random_tower import RandomTower
from torch import Tensor, nn

from frozenmm.errors import UnknownName
from frozenmm.foundation import ImageTower, RawFeatures, TowerInput
from frozenmm.foundation.image_tower import cell_means
from frozenmm.foundation.image_towers.clip import CLIPTower
from frozenmm.foundation.image_towers.dinov2 import DINOv2Tower
from frozenmm.structures import ImageStats

STATS = ImageStats((120.0, 110.0, 100.0), (60.0, 50.0, 40.0))


class Pooling(ImageTower):
    """A tower whose features can be foretold: mean of 4x4 pixels."""

    def __init__(self, **options: object) -> None:
        channels = dict(fine=3, coarse=3)
        super().__init__(nn.Identity(), input=TowerInput(STATS, 16, 4), channels=channels,
                         strides=dict(fine=1, coarse=4), name='pooling', **options)

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        return RawFeatures(maps={'fine': network(pixels), 'coarse': nn.functional.avg_pool2d(pixels, 4)})


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.randint(0, 256, (2, 3, 24, 32), generator=generator).float()


@pytest.mark.parity
@pytest.mark.parametrize('index', [0, 1])
def test_preprocessing_equals_the_recorded_one(golden_case, index: int) -> None:
    case = golden_case('frozen_detr', 'clip_multi_class_token__preprocess')
    image = case.inputs[f'image{index}'].permute(2, 0, 1)[None].float()
    size = case.params['n_px']
    clip = dict(input_resolution=size, patch_size=14, width=32, layers=1, heads=2, output_dim=8)
    dino = dict(img_size=size, patch_size=14, embed_dim=32, depth=1, num_heads=2)
    common = dict(weights='random', quantise=True)
    towers = {'clip_input': CLIPTower(clip, compat=True, **common),
              'clip_input_clamped': CLIPTower(clip, **common),
              'dinov2_input': DINOv2Tower(dino, compat=True, **common)}
    for name, tower in towers.items():
        pixels, _, _ = tower.prepare(image, [tuple(image.shape[-2:])], ImageStats())
        case.check(f'{name}{index}', pixels[0])


def test_the_region_of_a_centre_crop_is_the_middle_square(images: Tensor) -> None:
    features = Pooling()(images)  # 24x32 becomes 16x21, of which columns 2 to 18 remain
    assert features.region[0].tolist() == pytest.approx([2 * 32 / 21, 0, 18 * 32 / 21, 24])
    assert features.valid.tolist() == [[16, 16]] * 2


def test_squash_shows_everything_and_pad_keeps_the_aspect_ratio(images: Tensor) -> None:
    squash, pad = Pooling(resize_mode='squash')(images), Pooling(resize_mode='pad')(images)
    assert squash.region[0].tolist() == [0, 0, 32, 24] and squash.valid[0].tolist() == [16, 16]
    assert pad.region[0].tolist() == [0, 0, 32, 32] and pad.valid[0].tolist() == [12, 16]
    assert torch.equal(pad.map('fine')[:, :, 12:], torch.zeros(2, 3, 4, 16))


def test_free_resolution_pads_to_the_patch_and_changes_only_the_normalisation(images: Tensor) -> None:
    features = Pooling(resize_mode='none')(images[..., :30], [(22, 29), (24, 30)])
    fine = features.map('fine')
    assert fine.shape == (2, 3, 24, 32) and features.region[0].tolist() == [0, 0, 32, 24]
    mean, std = STATS.tensors(images)
    torch.testing.assert_close(fine[0, :, :22, :29], ((images - mean) / std)[0, :, :22, :29])
    assert fine[0, :, 22:].abs().max() == 0 and fine[1, :, :, 30:].abs().max() == 0


@pytest.mark.parametrize('mode', ['center_crop', 'squash', 'pad', 'none'])
def test_padding_and_company_do_not_change_features(images: Tensor, mode: str) -> None:
    tower = Pooling(resize_mode=mode)
    images[1, :, 20:], images[1, :, :, 24:] = 999.0, -999.0
    both = tower(images, [(24, 32), (20, 24)]).map()
    alone = tower(images[1:, :, :20, :24]).map()
    rows, columns = alone.shape[-2:]
    torch.testing.assert_close(both[1:, :, :rows, :columns], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('mode', ['center_crop', 'none'])
def test_the_pipelines_normalisation_and_channel_order_do_not_matter(images: Tensor, mode: str) -> None:
    tower = Pooling(resize_mode=mode)
    pipeline = ImageStats((100.0, 90.0, 80.0), (57.0, 58.0, 59.0), 'bgr')
    mean, std = pipeline.tensors(images)
    found = tower((images.flip(1) - mean) / std, None, pipeline).map('fine')
    torch.testing.assert_close(found, tower(images).map('fine'), atol=1e-4, rtol=1e-4)


def test_maps_can_be_chosen(images: Tensor) -> None:
    tower = Pooling(out_maps=['coarse'])
    assert list(tower(images).maps) == ['coarse'] == list(tower.channels) == list(tower.strides)


def test_a_tower_without_class_token_gives_means_of_cells(images: Tensor) -> None:
    features = Pooling(resize_mode='squash')(images, num_tokens=5)
    coarse = features.map('coarse')
    assert features.tokens.shape == (2, 5, 3) and features.class_token is None
    torch.testing.assert_close(features.tokens[:, 0], coarse.mean((2, 3)))
    torch.testing.assert_close(features.tokens[:, 2], coarse[:, :, :2, 2:].mean((2, 3)))
    assert Pooling()(images).tokens is None


@pytest.mark.parametrize('count, cells', [(1, 1), (5, 5), (14, 14), (30, 30)])
def test_cell_means_have_one_row_per_token(count: int, cells: int) -> None:
    assert cell_means(torch.rand(2, 4, 6, 6), count).shape == (2, cells, 4)


def test_gradients_go_through_resampling_to_the_image(images: Tensor) -> None:
    images.requires_grad_()
    Pooling(gradient='through')(images).map().square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert not Pooling()(images).map().requires_grad


def test_a_copy_gives_the_same_features(images: Tensor) -> None:
    tower = Pooling()
    assert torch.equal(copy.deepcopy(tower)(images).map(), tower(images).map())


@pytest.mark.parametrize('options, message', [
    (dict(resize_mode='stretch'), "resize_mode must be one of .*got 'stretch'"),
    (dict(size=18), "size must be a positive multiple of pooling's patch of 4 pixels, got 18"),
    (dict(size=0), 'size must be a positive multiple'),
    (dict(out_maps=['res9']), r"pooling has no maps \['res9'\]; it gives \['fine', 'coarse'\]"),
    (dict(gradient='through', quantise=True), 'quantise rounds to 8 bit, which has no gradient'),
])
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pooling(**options)


@pytest.mark.parametrize('change, arguments, message', [
    (lambda x: x[0], {}, r'pooling expects float images \(B, 3, H, W\), got torch.float32 \(3, 24, 32\)'),
    (lambda x: x.byte(), {}, 'expects float images .*got torch.uint8'),
    (lambda x: x, dict(valid_sizes=[(24, 32)]), '1 valid sizes for 2 images'),
    (lambda x: x, dict(valid_sizes=[(24, 32), (25, 32)]), 'image 1 has the valid size 25x32, larger than the batch'),
    (lambda x: x, dict(valid_sizes=[(0, 32), (24, 32)]), 'image 0 is 0x32 pixels'),
    (lambda x: x * float('nan'), {}, 'pooling got NaN or infinite pixels'),
    (lambda x: x / 0, {}, 'pooling got NaN or infinite pixels'),
    (lambda x: x, dict(num_tokens=3), r'num_tokens must be one of \[0, 1, 5, 14, 30\], got 3'),
])
def test_bad_input_is_refused(images: Tensor, change, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pooling()(change(images), **arguments)


def test_an_unknown_map_is_answered_with_those_that_exist(images: Tensor) -> None:
    with pytest.raises(KeyError, match=r"no feature map 'res5'; this tower gives \['fine', 'coarse'\]"):
        Pooling()(images).map('res5')


def test_the_old_name_of_compat_works_for_one_release():
    with pytest.warns(FutureWarning, match='legacy_border=True is now called compat=True'):
        tower = RandomTower(legacy_border=True)
    assert tower.compat
    with pytest.warns(FutureWarning, match='legacy_border is now called compat'):
        tower.legacy_border = False
    with pytest.warns(FutureWarning):
        assert not tower.legacy_border and not tower.compat


def test_misspelt_options_are_answered_with_the_nearest():
    with pytest.raises(UnknownName, match=r"unknown option of RandomTower 'resise_mode'; did you mean one of "
                                          r"\['resize_mode'"):
        RandomTower(resise_mode='pad')
