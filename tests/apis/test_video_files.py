from __future__ import annotations

import cv2
import numpy as np
import pytest

from frozenmm.apis.base import Inferencer
from frozenmm.apis.video_files import AnnotatedVideos, fitted
from frozenmm.compat.image_sources import NamedImage


class Framed(Inferencer):
    """Draws a red frame around every picture; fails at a given frame."""

    def __init__(self, fails_at: int = -1) -> None:
        self.fails_at, self.count = fails_at, 0

    def predict(self, images):
        self.count += len(images)
        if self.count > self.fails_at >= 0:
            raise RuntimeError('no more')
        return [None] * len(images)

    def draw(self, image, result, *, min_score=0.0):
        picture = image.pixels.copy()
        picture[:6], picture[-6:], picture[:, :6], picture[:, -6:] = ((255, 0, 0), ) * 4
        return picture

    def write(self, folder, image, result, *, min_score=0.0):
        return []


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 7, (64, 48))
    for value in (40, 120, 200):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    return path


def frames_of(path):
    video = cv2.VideoCapture(str(path))
    rate, frames = video.get(cv2.CAP_PROP_FPS), []
    while (found := video.read())[0]:
        frames.append(found[1])
    video.release()
    return rate, frames


@pytest.mark.parametrize('batch_size', [1, 2])
def test_a_video_comes_back_with_every_frame_drawn(clip, tmp_path, batch_size):
    out = tmp_path / 'out'
    Framed()(clip, out_dir=out, batch_size=batch_size)
    assert [path.name for path in out.iterdir()] == ['clip_overlay.mp4']
    rate, frames = frames_of(out / 'clip_overlay.mp4')
    assert rate == pytest.approx(7) and [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    for frame, value in zip(frames, (40, 120, 200)):
        assert abs(int(frame[24, 32].mean()) - value) < 12
        assert frame[24, 2, 2] > 150 > 90 > frame[24, 2, 0]  # red, in BGR


def test_pictures_beside_a_video_stay_out_of_it(clip, tmp_path):
    still = np.zeros((48, 64, 3), np.uint8)
    Framed()([still, clip, still, clip, clip], out_dir=tmp_path / 'out')
    videos = sorted((tmp_path / 'out').iterdir())
    assert len(videos) == 3 and videos[-1].name == 'clip_overlay.mp4'
    assert all(len(frames_of(path)[1]) == 3 for path in videos)


def test_a_video_that_is_not_complete_leaves_nothing(clip, tmp_path):
    with pytest.raises(RuntimeError, match='no more'):
        Framed(fails_at=2)(clip, out_dir=tmp_path / 'out')
    assert list((tmp_path / 'out').iterdir()) == []


def test_frames_of_another_size_are_fitted_into_the_first():
    canvas = fitted(np.zeros((40, 20, 3), np.uint8), (20, 30))
    assert canvas.shape == (20, 30, 3)
    assert (canvas[:, :10] == 0).all() and (canvas[:, 10:] == 255).all()


def test_a_folder_that_cannot_hold_a_video_is_named(tmp_path):
    (tmp_path / 'taken').write_text('a file')
    videos = AnnotatedVideos(tmp_path / 'taken')
    with pytest.raises(OSError, match='taken'):
        videos.add(NamedImage('clip_000000', np.zeros((8, 8, 3), np.uint8), 'clip.avi', 5.0),
                   np.zeros((8, 8, 3), np.uint8))
