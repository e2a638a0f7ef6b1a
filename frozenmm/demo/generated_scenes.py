"""The generated scenes as mmdet data sets: boxes and instance masks, or panoptic maps."""
from __future__ import annotations

from pathlib import Path

from mmdet.datasets import CocoDataset

from frozenmm.datasets.coco_panoptic import CocoPanoptic
from frozenmm.demo.scenes import CLASSES, SceneSettings, write_scenes
from frozenmm.registry import DATASETS

SPLITS = ('train', 'val')
PALETTE = ((230, 159, 0), (213, 94, 0), (86, 180, 233), (204, 121, 167), (0, 114, 178), (255, 99, 71), (240, 228, 66),
           (0, 158, 115))
"""One RGB colour per class, distinguishable with the common colour vision deficiencies."""
_GROUND_COLOUR = (128, 128, 128)


@DATASETS.register_module()
class GeneratedScenes(CocoDataset):
    """Scenes with boxes and instance masks of eight classes.

    Args:
        data_root: folder of the scenes; painted on first use (a few seconds).
        split: `'train'` or `'val'`; the grounds and lights of `val` never occur in `train`.
        settings: fields of `SceneSettings` that differ from their defaults (number of images, size, seed).
        **kwargs: for `mmdet.datasets.CocoDataset`: `pipeline`, `filter_cfg`, `indices`, `test_mode`, ...

    Raises:
        ValueError: unknown split; or `data_root` holds scenes of other settings.
    """

    METAINFO = {'classes': CLASSES, 'palette': list(PALETTE)}

    def __init__(self, data_root: str, split: str, *, settings: dict | None = None, **kwargs: object) -> None:
        _prepare(data_root, split, settings)
        super().__init__(data_root=data_root, ann_file=f'annotations/instances_{split}.json',
                         data_prefix={'img': f'images/{split}/'}, **kwargs)


@DATASETS.register_module()
class GeneratedScenesPanoptic(CocoPanoptic):
    """The same scenes with panoptic maps: the eight classes as things, the ground as stuff.

    Args: those of `GeneratedScenes`; `**kwargs` goes to `CocoPanoptic` (`vocabulary` shows a part of the classes).
    """

    METAINFO = {'classes': (*CLASSES, 'ground'), 'thing_classes': CLASSES, 'stuff_classes': ('ground', ),
                'palette': [*PALETTE, _GROUND_COLOUR]}

    def __init__(self, data_root: str, split: str, *, settings: dict | None = None, **kwargs: object) -> None:
        _prepare(data_root, split, settings)
        super().__init__(data_root=data_root, ann_file=f'annotations/panoptic_{split}.json',
                         data_prefix={'img': f'images/{split}/', 'seg': f'panoptic_{split}/'}, **kwargs)


def _prepare(data_root: str, split: str, settings: dict | None) -> None:
    """Paint the scenes where they are missing. Several processes may do so at once: they write the same files."""
    if split not in SPLITS:
        raise ValueError(f'split must be one of {list(SPLITS)}, got {split!r}')
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in (settings or {}).items()}
    write_scenes(Path(data_root), SceneSettings(**given))
