"""The generated rooms as a depth data set of mmseg."""
from __future__ import annotations

from pathlib import Path

from mmseg.datasets.nyu import NYUDataset

from frozenmm.demo.rooms import RoomImages, write_rooms
from frozenmm.demo.rooms.writer import SPLITS
from frozenmm.registry import DATASETS


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
