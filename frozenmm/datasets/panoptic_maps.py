"""Panoptic annotations without the package panopticapi, which no package index carries."""
from __future__ import annotations

import numpy as np
from mmdet.datasets.transforms import LoadAnnotations, LoadPanopticAnnotations
from mmdet.structures.mask import BitmapMasks

from frozenmm.datasets.annotation_pictures import check_same_size
from frozenmm.datasets.panoptic_files import read_panoptic_map, segment_ids
from frozenmm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadPanopticMaps(LoadPanopticAnnotations):
    """Mmdet's `LoadPanopticAnnotations` for installations without panopticapi; same keys, same result.

    Beyond mmdet's it reads maps of gray values and palettes, leaves out segments without a pixel, and compares sizes.

    Args:
        with_bbox: load boxes.
        with_label: load class labels.
        with_mask: load the masks of things.
        with_seg: load the semantic map, 255 where nothing is annotated.
    """

    def __init__(self, *, with_bbox: bool = True, with_label: bool = True, with_mask: bool = True,
                 with_seg: bool = True) -> None:
        # not LoadPanopticAnnotations.__init__, which needs the package
        LoadAnnotations.__init__(self, with_bbox=with_bbox, with_label=with_label, with_mask=with_mask,
                                 with_seg=with_seg)
        self.rgb2id = segment_ids

    def transform(self, results: dict) -> dict:
        """The sample with boxes, labels, masks and semantic map.

        Raises:
            UnreadableFile: the map holds none of the listed segments.
            UserError: map, annotation file and picture differ in size.
        """
        if results.get('seg_map_path') is None:
            return super().transform(results)
        listed = results.get('listed_ids') or [segment['id'] for segment in results['segments_info']]
        ids = read_panoptic_map(results['seg_map_path'], listed)
        check_same_size(results, ids.shape[:2])
        results['segments_info'], results['instances'] = present_segments(results, ids)
        self._fill(results, ids)
        return results

    def _fill(self, results: dict, ids: np.ndarray) -> None:
        if self.with_bbox:
            self._load_bboxes(results)
        if self.with_label:
            self._load_labels(results)
        if self.with_mask:
            masks = [(ids == segment['id']).astype(np.uint8) for segment in results['segments_info']
                     if segment['is_thing']]
            results['gt_masks'] = BitmapMasks(masks, *ids.shape)
        if self.with_seg:
            semantic = np.full(ids.shape, 255, np.int64)
            for segment in results['segments_info']:
                semantic[ids == segment['id']] = segment['category']
            results['gt_seg_map'] = semantic


def present_segments(results: dict, ids: np.ndarray) -> tuple[list[dict], list[dict]]:
    """Segments and instances of a sample with pixels in its map (H, W), which give boxes where none is stated."""
    present = set(np.unique(ids).tolist())
    things = iter(results['instances'])
    segments, instances = [], []
    for segment in results['segments_info']:
        instance = next(things) if segment.get('is_thing') else None
        if segment['id'] not in present:
            continue
        segments.append(segment)
        if instance is not None:
            x1, y1, x2, y2 = instance['bbox']
            if x2 - x1 < 1 or y2 - y1 < 1:
                rows, columns = np.nonzero(ids == segment['id'])
                instance = dict(instance, bbox=[int(columns.min()), int(rows.min()), int(columns.max()) + 1,
                                                int(rows.max()) + 1])
            instances.append(instance)
    return segments, instances
