"""Panoptic annotations without the package panopticapi, which no package index carries."""
from __future__ import annotations

from mmdet.datasets.transforms import LoadAnnotations, LoadPanopticAnnotations

from frozenmm.datasets.panoptic_files import segment_ids
from frozenmm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadPanopticMaps(LoadPanopticAnnotations):
    """Mmdet's `LoadPanopticAnnotations` for installations without panopticapi; same keys, same result.

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
