"""Objects of a video that keep their number from frame to frame, by supervision's ByteTrack."""
from __future__ import annotations

from typing import Any

import numpy as np
import torch

from frozenmm.apis.found import MIN_SCORE, segments, selected
from frozenmm.apis.results import Result
from frozenmm.compat import require
from frozenmm.compat.image_sources import NamedImage

_FAINT = 0.1
"""Score from which a box may continue an object: ByteTrack's lower threshold."""


class Tracker:
    """Numbers the boxes or masks of each video, or the things of its panoptic maps.

    Objects get `pred_instances.tracks` (N,) int64, -1 for those without a number, or `track` in `segments_info`. A new
    object needs a score 0.1 above the least one; one that is known may be fainter for a while, as in the paper.

    Args:
        min_score: least score of what is drawn; 0.25, ByteTrack's own, for the things of panoptic maps by default.
        every: of the frames of a video, only every n-th comes.

    Raises:
        MissingPackage: supervision is not installed.

    Source: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV 2022.
    """

    def __init__(self, min_score: float | None = None, every: int = 1) -> None:
        self._supervision: Any = require('supervision', 'tracking')
        self._min_score, self._every = min_score, every
        self._source = ''
        self._tracker: Any = None

    def tracked(self, image: NamedImage, result: Result) -> Result:
        """The result of a frame with numbers; of a picture and of a semantic map as it is."""
        if not image.frames_per_second:
            return result
        if image.path != self._source or image.frame == 0:
            self._start(image)
        if 'pred_panoptic_seg' in result:
            return self._things(result)
        return self._instances(result) if 'pred_instances' in result else result

    def _start(self, image: NamedImage) -> None:
        least = 0.25 if self._min_score is None else max(self._min_score, _FAINT)
        # it counts how long an object may be out of sight in thirtieths of a second
        rate = max(image.frames_per_second / self._every, 1.0)
        self._source, self._tracker = image.path, self._supervision.ByteTrack(
            track_activation_threshold=least, frame_rate=round(rate))

    def _numbers(self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(N,) int64 numbers of boxes (N, 4), -1 where there is none."""
        found = self._supervision.Detections(
            xyxy=boxes.reshape(-1, 4).astype(np.float32), confidence=scores.astype(np.float32),
            class_id=labels.astype(int), data={'place': np.arange(len(boxes))})
        numbers = np.full(len(boxes), -1)
        matched = self._tracker.update_with_detections(found)
        if len(matched):
            numbers[matched.data['place']] = matched.tracker_id
        return numbers

    def _instances(self, result: Result) -> Result:
        found = result.pred_instances
        least = MIN_SCORE if self._min_score is None else self._min_score
        chosen = selected(found, min(least, _FAINT))
        numbers = torch.full((len(found), ), -1)
        numbers[chosen] = torch.from_numpy(self._numbers(
            found.bboxes[chosen].numpy(), found.scores[chosen].numpy(), found.labels[chosen].numpy()))
        numbered = result.new()
        numbered.pred_instances = found.new(tracks=numbers, **dict(found.items()))
        return numbered

    def _things(self, result: Result) -> Result:
        things = [one for one in segments(result) if one.isthing]
        numbers = self._numbers(np.array([one.box for one in things]), np.array([one.score for one in things]),
                                np.array([one.label for one in things]))
        tracks = {one.id: int(number) for one, number in zip(things, numbers) if number >= 0}
        numbered = result.new()
        numbered.set_metainfo(dict(segments_info=[
            info | dict(track=tracks[info['id']]) if info['id'] in tracks else info for info in result.segments_info]))
        return numbered
