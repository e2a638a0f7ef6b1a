"""The generated scenes as mmdet data sets: boxes and instance masks, or panoptic maps."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdet.datasets import CocoDataset

from frozenmm.datasets.coco_panoptic import CocoPanoptic
from frozenmm.demo.scenes import CLASSES, make_scenes, require_scenes
from frozenmm.registry import DATASETS

PALETTE = ((230, 159, 0), (213, 94, 0), (86, 180, 233), (204, 121, 167), (0, 114, 178), (255, 99, 71), (240, 228, 66),
           (0, 158, 115))
"""One RGB colour per class, distinguishable with the common colour vision deficiencies."""
_GROUND_COLOUR = (128, 128, 128)


@DATASETS.register_module()
class GeneratedScenes(CocoDataset):
    """Scenes with boxes and instance masks of eight classes.

    Args:
        data_root: folder of the scenes; `make_files`, which training and testing call, paints them (a few seconds).
        split: `'train'` or `'val'`; the grounds and lights of `val` never occur in `train`.
        settings: fields of `SceneSettings` that differ from their defaults (number of images, size, seed).
        **kwargs: for `mmdet.datasets.CocoDataset`: `pipeline`, `filter_cfg`, `indices`, `test_mode`, ...

    Raises:
        MissingFile: `data_root` holds no scenes; the text gives the command that paints them.
        UserError: unknown split; or `data_root` holds scenes of other settings.
    """

    make_files = staticmethod(make_scenes)
    METAINFO = {'classes': CLASSES, 'palette': list(PALETTE)}

    def __init__(self, data_root: str, split: str, *, settings: Mapping[str, Any] | None = None,
                 **kwargs: Any) -> None:
        require_scenes(data_root, split, settings)
        super().__init__(data_root=data_root, ann_file=f'annotations/instances_{split}.json',
                         data_prefix={'img': f'images/{split}/'}, **kwargs)


@DATASETS.register_module()
class GeneratedScenesPanoptic(CocoPanoptic):
    """The same scenes with panoptic maps: the eight classes as things, the ground as stuff.

    Args: those of `GeneratedScenes`; `**kwargs` goes to `CocoPanoptic` (`vocabulary` shows a part of the classes).
    """

    make_files = staticmethod(make_scenes)
    METAINFO = {'classes': (*CLASSES, 'ground'), 'thing_classes': CLASSES, 'stuff_classes': ('ground', ),
                'palette': [*PALETTE, _GROUND_COLOUR]}

    def __init__(self, data_root: str, split: str, *, settings: Mapping[str, Any] | None = None,
                 **kwargs: Any) -> None:
        require_scenes(data_root, split, settings)
        super().__init__(data_root=data_root, ann_file=f'annotations/panoptic_{split}.json',
                         data_prefix={'img': f'images/{split}/', 'seg': f'panoptic_{split}/'}, **kwargs)
