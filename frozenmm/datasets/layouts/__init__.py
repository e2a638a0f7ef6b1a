"""Folders of data as people have them: COCO and its exports, COCO panoptic, Pascal VOC, YOLO, LabelMe, label maps."""
from frozenmm.datasets.layouts.as_coco import left_out, origin, pictures
from frozenmm.datasets.layouts.split import Kind, Split, find_split

__all__ = ['Kind', 'Split', 'find_split', 'left_out', 'origin', 'pictures']
