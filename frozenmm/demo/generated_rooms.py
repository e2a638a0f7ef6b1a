"""The generated rooms as a depth data set of mmseg."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmseg.datasets.nyu import NYUDataset

from frozenmm.demo.painted_folder import check_split, settings_from
from frozenmm.demo.rooms import RoomImages, painted_rooms, write_rooms
from frozenmm.registry import DATASETS


@DATASETS.register_module()
class GeneratedRooms(NYUDataset):
    """Rooms with exact depth in millimetres.

    Args:
        data_root: folder of the rooms; `make_files`, which training and testing call, paints them (half a second per
            image).
        split: `'train'` or `'val'`; photographs on the surfaces of `val` never occur in `train`.
        settings: fields of `RoomImages` that differ from their defaults (number of images, size, seed).
        **kwargs: for mmseg's `NYUDataset`: `pipeline`, `indices`, `test_mode`, ...

    Raises:
        MissingFile: `data_root` holds no rooms; the text gives the command that paints them.
        UserError: unknown split; or `data_root` holds rooms of other settings.
    """

    def __init__(self, data_root: str, split: str, *, settings: Mapping[str, Any] | None = None,
                 **kwargs: object) -> None:
        check_split(split)
        painted_rooms(data_root, settings_from(RoomImages, settings)).require()
        prefix = dict(img_path=f'images/{split}', depth_map_path=f'depth/{split}')
        super().__init__(data_root=data_root, data_prefix=prefix, **kwargs)

    @staticmethod
    def make_files(data_root: str, settings: Mapping[str, Any] | None = None) -> None:
        """Paint the rooms that a folder lacks; arguments as above."""
        write_rooms(data_root, settings_from(RoomImages, settings))
