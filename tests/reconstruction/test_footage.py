"""Images of several sizes, zooms and lenses as one pinhole would have taken them; copies."""
from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from frozenmm.errors import UserError
from frozenmm.reconstruction.footage import first_alike, read_footage
from frozenmm.reconstruction.given_lens import FILM_DIAGONAL_MM, given_lens


def _write(folder, name, size, film_mm=None, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (size[0] // 10 + 1, size[1] // 10 + 1, 3), dtype=np.uint8)
    exif = Image.Exif()
    if film_mm:
        exif.get_ifd(0x8769)[41989] = film_mm
    image = cv2.resize(values, size[::-1], interpolation=cv2.INTER_CUBIC)
    Image.fromarray(image).save(folder / name, exif=exif)
    return image


def test_images_of_one_size_stay_as_they_are(tmp_path):
    first = _write(tmp_path, 'a.png', (60, 80))
    _write(tmp_path, 'b.png', (60, 80), seed=1)
    footage = read_footage(tmp_path)
    np.testing.assert_array_equal(footage.images[0], first)
    assert footage.outside is None and footage.names == footage.listed == ['a.png', 'b.png'] and footage.scale == 1
    assert footage.focal_px is None and footage.focal_prior_px is None


def test_landscape_and_portrait_share_a_canvas_by_their_centres(tmp_path):
    landscape, portrait = _write(tmp_path, 'a.png', (60, 80)), _write(tmp_path, 'b.png', (80, 60))
    footage = read_footage(tmp_path)
    assert footage.images.shape == (2, 80, 80, 3)
    np.testing.assert_array_equal(footage.images[0, 10:70], landscape)
    np.testing.assert_array_equal(footage.images[1, :, 10:70], portrait)
    outside = footage.outside
    assert outside[0, :10].all() and outside[0, 70:].all() and not outside[0, 10:70].any()
    laid = footage.laid(np.full((40, 30), 2.0), 1)
    np.testing.assert_array_equal(np.isnan(laid), outside[1])
    assert laid[40, 40] == 2


def test_a_zoom_is_brought_to_one_focal_length(tmp_path):
    for name, film in (('a.jpg', 30), ('b.jpg', 60)):
        _write(tmp_path, name, (60, 80), film)
    footage = read_footage(tmp_path)
    focal = 30 / FILM_DIAGONAL_MM * 100
    assert footage.focal_prior_px == pytest.approx(focal)
    assert footage.images.shape[1:3] == (60, 80)
    assert footage.outside[1].sum() == 60 * 80 - 30 * 40  # the view of twice the focal length is half as wide


def test_large_images_are_made_smaller_and_the_scale_is_kept(tmp_path):
    _write(tmp_path, 'a.png', (300, 400))
    footage = read_footage(tmp_path, longest_side=100)
    assert footage.images.shape[1:3] == (75, 100) and footage.scale == 0.25


def test_a_given_lens_is_taken_out_with_all_of_the_view(tmp_path):
    image = _write(tmp_path, 'a.png', (60, 80))
    footage = read_footage(tmp_path, lens=given_lens([100, 100, 19.5, 29.5]))
    height, width = footage.images.shape[1:3]
    assert footage.focal_px == 100 and width >= 2 * 60 - 1 and height <= 62
    left = (width - 1) // 2 - 20
    np.testing.assert_allclose(footage.images[0, height // 2, left + 30:left + 70].astype(int),
                               cv2.GaussianBlur(image, (1, 1), 0)[29, 29:69].astype(int), atol=60)
    assert footage.outside[0, :, :5].all()


def test_what_cannot_be_read_is_left_out_and_named(tmp_path):
    for index in range(3):
        _write(tmp_path, f'{index}.jpg', (60, 80), seed=index)
    content = (tmp_path / '1.jpg').read_bytes()
    (tmp_path / '1.jpg').write_bytes(content[:len(content) // 2])
    footage = read_footage(tmp_path)
    assert footage.names == ['0.jpg', '2.jpg'] and footage.listed == ['0.jpg', '1.jpg', '2.jpg']
    assert len(footage.unreadable) == 1 and '1.jpg is no readable image' in footage.unreadable[0]
    for index in (0, 2):
        (tmp_path / f'{index}.jpg').write_bytes(b'')
    with pytest.raises(UserError, match='none of the 3 images of .* can be read: .*0.jpg'):
        read_footage(tmp_path)


def test_copies_are_found_and_slow_movement_is_none():
    grey = cv2.resize(np.random.default_rng(0).integers(60, 200, (30, 40), dtype=np.uint8), (240, 180))
    texture = np.stack([grey] * 3, -1)
    frames = [texture[10:130, left:left + 160] for left in (0, 0, 1, 30, 0)]
    packed = [cv2.imdecode(cv2.imencode('.jpg', frame, [cv2.IMWRITE_JPEG_QUALITY, 95])[1], 1) for frame in frames]
    assert first_alike(np.stack(frames)).tolist() == [0, 0, 2, 3, 0]
    assert first_alike(np.stack([frames[0], packed[0], packed[3], frames[3]])).tolist() == [0, 0, 2, 2]
