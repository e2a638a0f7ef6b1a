"""One map of segments from a data sample, whatever the model has predicted."""
from __future__ import annotations

from typing import Any

import numpy as np


def label_values(field: Any) -> np.ndarray:
    """(H, W) int64 labels of a field, which mmdet calls `sem_seg` and mmseg `data`."""
    return (field.sem_seg if 'sem_seg' in field else field.data)[0].cpu().numpy().astype(np.int64)


def segment_map(sample: Any) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Segments of a data sample, panoptic if there are any, else one per semantic class (-1: none), else instances.

    Returns:
        (H, W) int64 ids, 0 where nothing is; one dictionary per segment with `id`, `category_id` (class index),
        `isthing`, `area` and `score` (None for semantic segments), `track` where its object is tracked.
    """
    if 'pred_panoptic_seg' in sample:
        values = sample.pred_panoptic_seg.sem_seg[0].cpu().numpy()
        ids = np.zeros(values.shape, np.int64)
        segments = []
        for info in sample.segments_info:
            ids[values == info['value']] = info['id']
            segments.append({key: info[key] for key in ('id', 'category_id', 'isthing', 'area', 'score', 'track')
                             if key in info})
        return ids, segments
    if 'pred_sem_seg' in sample:
        labels = label_values(sample.pred_sem_seg)
        return labels + 1, [dict(id=label + 1, category_id=label, isthing=False, area=int((labels == label).sum()),
                                 score=None) for label in np.unique(labels).tolist() if label >= 0]
    instances = sample.pred_instances.cpu()
    masks = instances.masks.numpy()
    ids = np.zeros(masks.shape[1:], np.int64)
    # the best on top
    for index in np.argsort(instances.scores.numpy(), kind='stable').tolist():
        ids[masks[index]] = index + 1
    tracks = instances.tracks.tolist() if 'tracks' in instances else [-1] * len(instances)
    return ids, [dict(id=index + 1, category_id=int(label), isthing=True, area=int(masks[index].sum()),
                      score=float(score), **({} if track < 0 else dict(track=track)))
                 for index, (label, score, track) in enumerate(zip(instances.labels, instances.scores, tracks))]
