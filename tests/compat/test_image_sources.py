from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from PIL import Image

from frozenmm.compat import image_files
from frozenmm.compat.image_files import array_pixels, list_images
from frozenmm.compat.image_sources import read_images
from frozenmm.errors import MissingFile


def colours(height=4, width=6):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def one(source, **options):
    images = list(read_images(source, **options))
    assert len(images) == 1
    return images[0]


def test_a_file_an_array_and_a_picture_give_the_same_pixels(tmp_path):
    Image.fromarray(colours()).save(tmp_path / 'a.png')
    for source in (tmp_path / 'a.png', str(tmp_path / 'a.png'), colours(), Image.fromarray(colours())):
        np.testing.assert_array_equal(one(source).pixels, colours())
    np.testing.assert_array_equal(one(colours()[..., ::-1], channel_order='bgr').pixels, colours())
    assert one(tmp_path / 'a.png').name == 'a'


def test_gray_pictures_become_gray_colours(tmp_path):
    gray = colours()[..., 0]
    Image.fromarray(gray).save(tmp_path / 'a.png')
    for source in (tmp_path / 'a.png', gray, gray[..., None]):
        np.testing.assert_array_equal(one(source).pixels, np.repeat(gray[..., None], 3, 2))


def test_sixteen_bit_gray_keeps_its_range(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(tmp_path / 'a.png')
    assert one(tmp_path / 'a.png').pixels[0, :, 0].tolist() == [0, 100, 255]


def test_transparent_parts_become_white(tmp_path):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = 0, 255, 51  # a fifth of black on white is 204
    Image.fromarray(pixels, 'RGBA').save(tmp_path / 'a.png')
    for source in (tmp_path / 'a.png', pixels):
        assert one(source).pixels[0, :, 0].tolist() == [255, 0, 204]


def test_palette_and_turned_pictures_are_read_as_seen(tmp_path):
    picture = Image.fromarray(np.uint8([[[255, 0, 0], [0, 0, 255]]]))
    picture.convert('P').save(tmp_path / 'p.gif')
    assert one(tmp_path / 'p.gif').pixels.tolist() == [[[255, 0, 0], [0, 0, 255]]]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(colours(4, 6)).save(tmp_path / 't.png', exif=exif)
    np.testing.assert_array_equal(one(tmp_path / 't.png').pixels, np.rot90(colours(4, 6), -1))


def test_a_folder_gives_its_images_in_order_with_different_names(tmp_path):
    for name in ('b.png', 'a.jpg', 'a.png', 'note.txt'):
        (tmp_path / name).write_bytes(b'text') if name.endswith('txt') else \
            Image.fromarray(colours()).save(tmp_path / name)
    assert [image.name for image in read_images(tmp_path)] == ['a', 'a_png', 'b']
    assert [image.name for image in read_images([colours(), colours(), tmp_path / 'b.png', tmp_path / 'b.png'])] == \
        ['image_0000', 'image_0001', 'b', 'b_png']


def test_a_video_gives_its_frames(tmp_path):
    path = str(tmp_path / 'clip.avi')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 5, (32, 24))
    for value in (0, 250):
        writer.write(np.full((24, 32, 3), (value, 0, 0), np.uint8))
    writer.release()
    frames = list(read_images(path))
    assert [frame.name for frame in frames] == ['clip_000000', 'clip_000001']
    assert frames[1].pixels.shape == (24, 32, 3) and frames[1].frames_per_second == 5
    assert frames[1].pixels[..., 2].mean() > 200 > 60 > frames[1].pixels[..., 0].mean()  # blue, in RGB


@pytest.fixture
def served(tmp_path):
    """Address under which the files of tmp_path are served."""
    with ThreadingHTTPServer(('127.0.0.1', 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def test_an_address_gives_the_image_behind_it(tmp_path, served):
    Image.fromarray(colours()).save(tmp_path / 'a b.png')
    image = one(f'{served}/a%20b.png?size=full')
    assert image.name == 'a b' and image.path.startswith(served)
    np.testing.assert_array_equal(image.pixels, colours())


def test_an_address_that_gives_no_image_is_named(tmp_path, served, monkeypatch):
    with pytest.raises(OSError, match='missing.png cannot be fetched .*404'):
        one(f'{served}/missing.png')
    (tmp_path / 'page').write_text('<html>')
    with pytest.raises(ValueError, match='is no readable image'):
        one(f'{served}/page')
    monkeypatch.setenv('FROZENMM_OFFLINE', '1')
    with pytest.raises(OSError, match='FROZENMM_OFFLINE is set'):
        one(f'{served}/page')


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    Image.fromarray(colours()).save(tmp_path / 'a.png')
    images = read_images([tmp_path / 'a.png', tmp_path / 'missing.png'])
    assert next(images).name == 'a'
    with pytest.raises(FileNotFoundError, match='there is no image .*missing.png'):
        next(images)


@pytest.mark.parametrize(('content', 'name', 'message'), [
    (b'no picture at all', 'a.png', 'a.png is no readable image'),
    (b'', 'a.jpg', 'a.jpg is no readable image'),
    (b'no video', 'a.mp4', 'a.mp4 cannot be decoded as a video'),
])
def test_corrupt_files_are_named(tmp_path, content, name, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_images(tmp_path / name))


def test_a_truncated_image_is_named(tmp_path):
    Image.fromarray(colours(64, 64)).save(tmp_path / 'a.png')
    whole = (tmp_path / 'a.png').read_bytes()
    (tmp_path / 'a.png').write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ValueError, match='a.png is no readable image .*complete'):
        list(read_images(tmp_path / 'a.png'))


def test_huge_images_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    Image.fromarray(colours(10, 10)).save(tmp_path / 'a.png')
    monkeypatch.setattr(image_files, 'MAX_PIXELS', 99)
    for source in (tmp_path / 'a.png', colours(10, 10)):
        with pytest.raises(ValueError, match='10x10 pixels, more than'):
            list(read_images(source))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 40)  # Pillow's own alarm rings at twice that
    with pytest.raises(ValueError, match='far more pixels, more than'):
        list(read_images(tmp_path / 'a.png'))


@pytest.mark.parametrize(('source', 'kind', 'message'), [
    ([], ValueError, 'the list of images is empty'),
    (7, TypeError, 'an image is a path, an address, a numpy array .* got int'),
    (b'abc', TypeError, 'got bytes'),
    (np.zeros((4, 4, 3)), ValueError, 'must be uint8, 0 to 255, got float64'),
    (np.zeros((4, 4, 2), np.uint8), ValueError, r'with 1, 3 or 4 channels.* got \(4, 4, 2\)'),
    (np.zeros((0, 4, 3), np.uint8), ValueError, 'at least one pixel'),
])
def test_what_is_no_image_is_refused(source, kind, message):
    with pytest.raises(kind, match=message):
        list(read_images(source))


def test_an_empty_folder_and_an_unknown_order_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='holds no image'):
        list(read_images(tmp_path))
    with pytest.raises(ValueError, match="channel_order must be 'rgb' or 'bgr', got 'gbr'"):
        list(read_images(colours(), channel_order='gbr'))


def test_one_channel_has_no_order():
    np.testing.assert_array_equal(array_pixels(colours()[..., :1], 'bgr'), array_pixels(colours()[..., :1]))


def test_a_folder_is_read_in_natural_order_and_other_files_are_left(tmp_path):
    for name in ('f10.png', 'F9.PNG', 'f9b.jpg', 'deep/f1.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(colours()).save(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('-')
    assert [image.name for image in read_images(tmp_path)] == ['F9', 'f9b', 'f10']
    assert [path.name for path in list_images(tmp_path, every=2)] == ['F9.PNG', 'f10.png']
    assert [path.name for path in list_images(tmp_path, below=True)] == ['f1.png', 'F9.PNG', 'f9b.jpg', 'f10.png']
    with pytest.raises(MissingFile, match='there is no folder'):
        list_images(tmp_path / 'gone')


def test_the_old_place_works_for_one_release():
    import frozenmm.apis.image_sources as old
    with pytest.warns(FutureWarning, match='frozenmm.compat.image_sources.read_images'):
        assert old.read_images is read_images
