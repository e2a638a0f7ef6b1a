from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from frozenmm.foundation.resample import axis_weights, resample
from frozenmm.structures import ImageStats

RAW = ImageStats()
CLIP = ImageStats((122.77, 116.75, 104.09), (68.5, 66.63, 70.32))
FILTERS = {'bicubic': Image.Resampling.BICUBIC, 'bilinear': Image.Resampling.BILINEAR}
sides = st.integers(2, 60)


def _picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float()


def _pillow(picture: np.ndarray, size: tuple[int, int], interpolation: str,
            box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """Pillow's own two passes in the order of all its versions up to 12: newer ones sometimes swap them."""
    columns, rows = size
    left, top, right, bottom = box or (0, 0, picture.shape[1], picture.shape[0])
    method = FILTERS[interpolation]
    wide = Image.fromarray(picture).resize((columns, picture.shape[0]), method, box=(left, 0, right, picture.shape[0]))
    return np.asarray(wide.resize((columns, rows), method, box=(0, top, columns, bottom)), dtype=np.float32)


def _whole(picture: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    height, width = picture.shape[:2]
    return torch.tensor([[0.0, 0.0, width, height]]), torch.tensor([[height, width]])


@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, rows=sides, columns=sides, interpolation=st.sampled_from(sorted(FILTERS)))
def test_quantised_resampling_equals_pillow_bit_for_bit(height: int, width: int, rows: int, columns: int,
                                                        interpolation: str) -> None:
    picture = _picture(height, width)
    expected = _pillow(picture, (columns, rows), interpolation)
    region, valid = _whole(picture)
    found = resample(_tensor(picture), region, (rows, columns), valid, interpolation=interpolation, source=RAW,
                     target=RAW, quantise=True)
    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), expected)


@settings(max_examples=40, deadline=None)
@given(height=sides, width=sides, rows=sides, columns=sides, data=st.data())
def test_a_box_inside_equals_pillow_up_to_one_level(height: int, width: int, rows: int, columns: int,
                                                data: st.DataObject) -> None:
    left, top = data.draw(st.floats(0, width - 1.5)), data.draw(st.floats(0, height - 1.5))
    right, bottom = data.draw(st.floats(left + 1, width)), data.draw(st.floats(top + 1, height))
    picture = _picture(height, width)
    expected = _pillow(picture, (columns, rows), 'bicubic', (left, top, right, bottom))
    found = resample(_tensor(picture), torch.tensor([[left, top, right, bottom]], dtype=torch.float64), (rows, columns),
                     _whole(picture)[1], source=RAW, target=RAW, quantise=True)
    # Pillow keeps the box in single precision; a weight may round the other way
    difference = np.abs(found[0].permute(1, 2, 0).numpy() - expected)
    assert difference.max() <= 1


def test_unquantised_resampling_stays_within_the_rounding_of_two_passes() -> None:
    picture = _picture(37, 53)
    expected = _pillow(picture, (24, 24), 'bilinear')
    region, valid = _whole(picture)
    found = resample(_tensor(picture), region, (24, 24), valid, interpolation='bilinear', source=RAW, target=RAW)
    assert np.abs(found[0].permute(1, 2, 0).numpy() - expected).max() <= 1.0


@pytest.mark.parametrize('quantise', [False, True])
def test_what_lies_in_the_padding_does_not_matter(quantise: bool, generator: torch.Generator) -> None:
    image = torch.randint(0, 256, (1, 3, 30, 40), generator=generator).float()
    region, valid = torch.tensor([[0.0, 0.0, 33.0, 21.0]]), torch.tensor([[21, 33]])
    other = image.clone()
    other[:, :, 21:], other[:, :, :, 33:] = 77.0, -5.0
    first, second = (resample(x, region, (16, 16), valid, source=RAW, target=CLIP, quantise=quantise)
                     for x in (image, other))
    assert torch.equal(first, second)
    assert torch.allclose(first, resample(image[:, :, :21, :33], region, (16, 16), valid, source=RAW, target=CLIP,
                                          quantise=quantise), atol=1e-5)


def test_a_batch_of_two_equals_two_batches_of_one(generator: torch.Generator) -> None:
    images = torch.randint(0, 256, (2, 3, 30, 40), generator=generator).float()
    region = torch.tensor([[0.0, 0.0, 40.0, 30.0], [3.0, 2.0, 20.0, 19.0]])
    valid = torch.tensor([[30, 40], [25, 22]])
    both = resample(images, region, (16, 16), valid, source=RAW, target=CLIP)
    for index in range(2):
        part = slice(index, index + 1)
        one = resample(images[part], region[part], (16, 16), valid[part], source=RAW, target=CLIP)
        torch.testing.assert_close(both[part], one)


def test_a_change_of_normalisation_is_the_same_before_and_after() -> None:
    image = _tensor(_picture(20, 30))
    source = ImageStats((100.0, 110.0, 120.0), (50.0, 60.0, 70.0), 'bgr')
    mean, std = source.tensors(image)
    region, valid = torch.tensor([[0.0, 0.0, 30.0, 20.0]]), torch.tensor([[20, 30]])
    expected = resample(image, region, (12, 12), valid, source=RAW, target=CLIP)
    found = resample((image.flip(1) - mean) / std, region, (12, 12), valid, source=source, target=CLIP)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_outside_the_image_stands_the_mean_of_the_target() -> None:
    image = torch.full((1, 3, 10, 10), 200.0)
    found = resample(image, torch.tensor([[0.0, 0.0, 20.0, 20.0]]), (8, 8), torch.tensor([[10, 10]]), source=RAW,
                     target=CLIP)
    assert found[:, :, 4:].abs().max() == 0 and found[..., 4:].abs().max() == 0
    torch.testing.assert_close(found[0, :, :4, :4].mean((1, 2)) * torch.tensor(CLIP.std) + torch.tensor(CLIP.mean),
                               torch.full((3, ), 200.0))


@given(start=st.floats(-5, 5), length=st.floats(1, 40), out=st.integers(1, 30), size=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_weights_of_a_pixel_sum_to_one_or_to_nothing(start: float, length: float, out: int, size: int) -> None:
    weights = axis_weights(torch.tensor([start]), torch.tensor([start + length]), out, torch.tensor([size]), size + 3)
    total = weights.sum(-1)
    assert ((total - 1).abs().lt(1e-9) | total.eq(0)).all()
    assert torch.equal(weights[..., size:], torch.zeros(1, out, 3, dtype=torch.float64))


def test_gradients_reach_the_image() -> None:
    image = torch.rand(1, 3, 9, 7, dtype=torch.float64, requires_grad=True)
    region, valid = torch.tensor([[1.0, 0.0, 7.0, 8.5]]), torch.tensor([[9, 7]])
    assert torch.autograd.gradcheck(lambda x: resample(x, region, (4, 4), valid, source=RAW, target=CLIP), image)
