"""Videos: one result file a clip, every n-th frame, H.264, and objects that keep their numbers."""
from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from pycocotools import mask as coco_mask

from frozenmm.apis.base import Inferencer, RunOptions
from frozenmm.apis.coco_entries import named_classes
from frozenmm.apis.results import Result
from frozenmm.apis.tracks import Tracker
from frozenmm.compat import image_files, video_codecs
from frozenmm.compat.image_files import video_frames
from frozenmm.compat.image_sources import NamedImage, read_images
from frozenmm.errors import UnreadableFile, UserError

HEIGHT, WIDTH, FRAMES = 80, 120, 12


def squares(number):
    """Two bright squares that pass each other, the second one fainter; (x1, y1, x2, y2) and brightness."""
    return [((5 + 8 * number, 10, 25 + 8 * number, 30), 255), ((95 - 8 * number, 50, 115 - 8 * number, 70), 160)]


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / 'walk.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (WIDTH, HEIGHT))
    for number in range(FRAMES):
        frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for (x1, y1, x2, y2), value in squares(number):
            frame[y1:y2, max(x1, 0):max(x2, 0)] = value
        writer.write(frame)
    writer.release()
    return path


class Bright(Inferencer):
    """Finds bright squares: boxes, masks or panoptic things; what is brighter comes first or last."""

    classes = named_classes(['square', 'dark'])

    def __init__(self, task='masks'):
        self.task = task

    def predict(self, images):
        results = []
        for image in images:
            gray = image.pixels[..., 0] > 100
            count, parts, stats, _ = cv2.connectedComponentsWithStats(gray.astype(np.uint8))
            order = list(range(1, count))[::-1 if image.frame % 2 else 1]  # numbers must not follow the order
            order = [index for index in order if stats[index][4] > 20]
            masks = torch.from_numpy(np.array([parts == index for index in order]).reshape(-1, *gray.shape))
            boxes = [[x, y, x + w, y + h] for x, y, w, h, _ in (stats[index].tolist() for index in order)]
            results.append(Result.of(self._sample(masks, boxes), image, self.classes))
        return results

    def _sample(self, masks, boxes):
        if self.task == 'panoptic':
            values = torch.ones(1, *masks.shape[1:], dtype=torch.int64)
            for index, mask in enumerate(masks):
                values[0][mask] = 1000 * (index + 1)
            infos = [dict(id=index + 1, category_id=0, isthing=True, area=int(mask.sum()), score=0.9,
                          value=1000 * (index + 1)) for index, mask in enumerate(masks)]
            infos.append(dict(id=9, category_id=1, isthing=False, area=1, score=0.9, value=1))
            sample = DetDataSample(metainfo=dict(segments_info=infos))
            sample.pred_panoptic_seg = PixelData(sem_seg=values)
            return sample
        found = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                             labels=torch.zeros(len(boxes), dtype=torch.int64), scores=torch.full((len(boxes), ), 0.9))
        if self.task == 'masks':
            found.masks = masks
        return BaseDataElement(pred_instances=found)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_clip_has_one_result_file_and_a_video_of_its_own_size(clip, tmp_path):
    out = tmp_path / 'out'
    Bright()(clip, out_dir=out, batch_size=5)
    assert sorted(path.name for path in out.iterdir()) == ['walk_overlay.mp4', 'walk_results.jsonl']
    lines = lines_of(out / 'walk_results.jsonl')
    assert [line['frame'] for line in lines] == list(range(FRAMES)) and lines[3]['time_s'] == pytest.approx(0.3)
    entry = lines[2]['objects'][0]
    mask = coco_mask.decode(entry['segmentation'])
    x, y, width, height = map(int, entry['bbox'])
    assert mask.shape == (HEIGHT, WIDTH) and mask[y:y + height, x:x + width].sum() == mask.sum() > 300
    drawn = list(video_frames(out / 'walk_overlay.mp4'))
    assert len(drawn) == FRAMES and drawn[0][0].shape == (HEIGHT, WIDTH, 3) and drawn[0][1] == pytest.approx(10)


def test_every_nth_frame_keeps_the_pace(clip, tmp_path):
    images = list(read_images(clip, every=5))
    assert [(image.frame, image.frames, image.name) for image in images] == [
        (0, FRAMES, 'walk_000000'), (5, FRAMES, 'walk_000005'), (10, FRAMES, 'walk_000010')]
    whole = list(read_images(clip))
    assert all(np.array_equal(image.pixels, whole[image.frame].pixels) for image in images)
    Bright()(clip, out_dir=tmp_path / 'out', options=RunOptions(every=5))
    drawn = list(video_frames(tmp_path / 'out/walk_overlay.mp4'))
    assert len(drawn) == 3 and drawn[0][1] == pytest.approx(2)
    assert [line['time_s'] for line in lines_of(tmp_path / 'out/walk_results.jsonl')] == [0, 0.5, 1]
    with pytest.raises(UserError, match='every must be 1 .* got 0'):
        list(read_images(clip, every=0))


@pytest.mark.parametrize('task', ['boxes', 'masks', 'panoptic'])
def test_objects_keep_their_numbers_from_frame_to_frame(clip, tmp_path, task):
    pytest.importorskip('supervision')
    out = tmp_path / 'out'
    results = Bright(task)([clip, clip], out_dir=out, options=RunOptions(track=True))
    for name in ('walk_results.jsonl', 'walk_avi_results.jsonl'):
        rows: dict[float, list] = {}
        for line in lines_of(out / name):
            for entry in line['segments' if task == 'panoptic' else 'objects']:
                if entry['category'] == 'square':
                    rows.setdefault(entry['bbox'][1], []).append(entry['track_id'])
        assert len(rows) == 2  # the upper and the lower square
        upper, lower = rows.values()
        assert len(upper) > 9 and len(set(upper)) == len(set(lower)) == 1 and upper[0] != lower[0]
    assert '#' in Bright(task).summary(results[3])
    numbers = results[3].to_supervision().tracker_id
    assert numbers is None if task == 'panoptic' else sorted(numbers) == [1, 2]  # stuff has no number


def test_a_tracker_leaves_pictures_and_empty_frames_alone():
    pytest.importorskip('supervision')
    tracker, model = Tracker(), Bright()
    (found, ) = model.predict([NamedImage('a', np.full((9, 9, 3), 255, np.uint8))])
    assert tracker.tracked(NamedImage('a', found.image.pixels), found) is found
    frame = NamedImage('v_000000', np.zeros((9, 9, 3), np.uint8), 'v.mp4', 25.0)
    (found, ) = model.predict([frame])
    assert len(tracker.tracked(frame, found)) == 0


def test_what_opencv_cannot_decode_is_left_to_ffmpeg(clip, monkeypatch):
    frames = [frame for frame, _ in video_frames(clip)]
    monkeypatch.setattr(image_files, 'opencv_frames', lambda path, every: iter(()))
    monkeypatch.setattr(image_files, 'has_ffmpeg', lambda: False)
    with pytest.raises(UnreadableFile, match='walk.avi cannot be decoded.*pip install imageio-ffmpeg'):
        list(video_frames(clip))
    monkeypatch.setattr(image_files, 'has_ffmpeg', lambda: True)
    pytest.importorskip('imageio_ffmpeg')
    by_ffmpeg = list(video_frames(clip, every=4))
    assert len(by_ffmpeg) == 3 and by_ffmpeg[1][1] == pytest.approx(10)
    assert np.abs(by_ffmpeg[1][0].astype(int) - frames[4]).mean() < 3
    clip.write_bytes(b'no video')
    with pytest.raises(UnreadableFile, match='walk.avi cannot be decoded'):
        list(video_frames(clip))


def test_videos_are_written_as_h264_where_ffmpeg_is_there(clip, tmp_path):
    ffmpeg = pytest.importorskip('imageio_ffmpeg')
    assert video_codecs.has_ffmpeg()
    Bright()(clip, out_dir=tmp_path / 'out')
    reader = ffmpeg.read_frames(str(tmp_path / 'out/walk_overlay.mp4'))
    meta = next(reader)
    reader.close()
    assert meta['codec'] == 'h264' and meta['pix_fmt'].startswith('yuv420p') and meta['size'] == (WIDTH, HEIGHT)
    assert len(list(video_frames(tmp_path / 'out/walk_overlay.mp4'))) == FRAMES
