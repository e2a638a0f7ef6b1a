"""The generated scenes as episodes of named classes."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from frozenmm.datasets.episodes import EpisodicSegDataset
from frozenmm.demo.scenes import CLASSES, make_scenes, require_scenes
from frozenmm.errors import UserError
from frozenmm.registry import DATASETS


@DATASETS.register_module()
class SceneEpisodes(EpisodicSegDataset):
    """Episodes over generated scenes; the ground is background.

    Args:
        data_root: folder of the scenes; see `GeneratedScenes`.
        split: `'train'` or `'val'`.
        unseen: names of classes that training never asks for.
        ask: `'seen'`, `'unseen'` or `'all'` classes.
        settings: fields of `SceneSettings` that differ from their defaults.
        **kwargs: for `EpisodicSegDataset`.

    Raises:
        UserError: unknown class or `ask`; else as `GeneratedScenes`.
    """

    make_files = staticmethod(make_scenes)

    def __init__(self, data_root: str, split: str, *, unseen: tuple[str, ...] = (), ask: str = 'all',
                 settings: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        unknown = [name for name in unseen if name not in CLASSES]
        if unknown:
            raise UserError(f'the scenes have no classes {unknown}; they have {list(CLASSES)}')
        groups = dict(all=CLASSES, unseen=tuple(unseen), seen=tuple(name for name in CLASSES if name not in unseen))
        if ask not in groups:
            raise UserError(f'ask must be one of {list(groups)}, got {ask!r}')
        require_scenes(data_root, split, settings)
        super().__init__(kwargs.pop('classes', CLASSES), data_root=data_root,
                         data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'semantic_{split}'),
                         maps=dict(annotations=f'annotations/panoptic_{split}.json',
                                   panoptic_folder=f'panoptic_{split}', category_ids=range(1, len(CLASSES) + 1)),
                         class_ids=[CLASSES.index(name) + 1 for name in groups[ask]], **kwargs)
