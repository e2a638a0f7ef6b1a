"""The generated scenes as episodes of named classes."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from frozenmm.datasets.episodes import EpisodicSegDataset
from frozenmm.demo.scenes import CLASSES, SceneSettings, write_scenes
from frozenmm.registry import DATASETS

SPLITS = ('train', 'val')


@DATASETS.register_module()
class SceneEpisodes(EpisodicSegDataset):
    """Episodes over generated scenes; the ground is background.

    Args:
        data_root: folder of the scenes; painted on first use.
        split: `'train'` or `'val'`.
        unseen: names of classes that training never asks for.
        ask: `'seen'`, `'unseen'` or `'all'` classes.
        settings: fields of `SceneSettings` that differ from their defaults.
        **kwargs: for `EpisodicSegDataset`.

    Raises:
        ValueError: unknown split, class or `ask`; scenes of other settings in `data_root`.
    """

    def __init__(self, data_root: str, split: str, *, unseen: tuple[str, ...] = (), ask: str = 'all',
                 settings: dict | None = None, **kwargs: Any) -> None:
        if split not in SPLITS:
            raise ValueError(f'split must be one of {list(SPLITS)}, got {split!r}')
        unknown = [name for name in unseen if name not in CLASSES]
        if unknown:
            raise ValueError(f'the scenes have no classes {unknown}; they have {list(CLASSES)}')
        groups = dict(all=CLASSES, unseen=tuple(unseen), seen=tuple(name for name in CLASSES if name not in unseen))
        if ask not in groups:
            raise ValueError(f'ask must be one of {list(groups)}, got {ask!r}')
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in (settings or {}).items()}
        write_scenes(Path(data_root), SceneSettings(**given))
        super().__init__(kwargs.pop('classes', CLASSES), data_root=data_root,
                         data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'semantic_{split}'),
                         annotations=f'annotations/panoptic_{split}.json', panoptic_folder=f'panoptic_{split}',
                         category_ids=range(1, len(CLASSES) + 1),
                         class_ids=[CLASSES.index(name) + 1 for name in groups[ask]], **kwargs)
