"""The generated rooms as a depth data set of mmseg, and points of known depth for corrections."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets.nyu import NYUDataset

from frozenmm.datasets.rooms import RoomImages, write_rooms
from frozenmm.datasets.rooms.writer import SPLITS
from frozenmm.registry import DATASETS, TRANSFORMS


@DATASETS.register_module()
class GeneratedRooms(NYUDataset):
    """Rooms with exact depth in millimetres.

    Args:
        data_root: folder of the rooms; painted on first use (half a second per image).
        split: `'train'` or `'val'`; photographs on the surfaces of `val` never occur in `train`.
        settings: fields of `RoomImages` that differ from their defaults (number of images, size, seed).
        **kwargs: for mmseg's `NYUDataset`: `pipeline`, `indices`, `test_mode`, ...

    Raises:
        ValueError: unknown split; or `data_root` holds rooms of other settings.
    """

    def __init__(self, data_root: str, split: str, *, settings: dict | None = None, **kwargs: object) -> None:
        if split not in SPLITS:
            raise ValueError(f'split must be one of {list(SPLITS)}, got {split!r}')
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in (settings or {}).items()}
        write_rooms(Path(data_root), RoomImages(**given))
        prefix = dict(img_path=f'images/{split}', depth_map_path=f'depth/{split}')
        super().__init__(data_root=data_root, data_prefix=prefix, **kwargs)


@TRANSFORMS.register_module()
class SampleDepthPoints(BaseTransform):
    """Pixels of the truth that a correction may look at, as a sparse sensor or triangulated points would give them.

    Adds `depth_points`, float32 (N, 3): row, column and depth. Place it before a resize, and name the key among
    `PackSegInputs`' meta_keys.

    Args:
        count: of the points, fewer where fewer pixels are measured.
        seed: of the draw, which depends on the image's path besides.
    """

    def __init__(self, count: int = 100, seed: int = 0) -> None:
        if count < 2:
            raise ValueError(f'count must be at least 2, got {count}')
        self.count, self.seed = count, seed

    def transform(self, results: dict) -> dict:
        """See the class."""
        depth = results['gt_depth_map']
        rows, columns = np.nonzero(depth > 0)
        random = np.random.default_rng([self.seed, *Path(results['img_path']).name.encode()])
        chosen = random.permutation(len(rows))[:self.count]
        results['depth_points'] = np.stack((rows[chosen], columns[chosen], depth[rows[chosen], columns[chosen]]),
                                           1).astype(np.float32)
        return results
