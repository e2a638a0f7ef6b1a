"""Mosaic-4: four images of four classes on one canvas, all four names asked for at once."""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from PIL import Image

from frozenmm.compat.files import whole_file, write_whole
from frozenmm.datasets.episodes import IGNORE, EpisodicSegDataset, read_label_map
from frozenmm.datasets.semantic_maps import is_made_from
from frozenmm.errors import UserError
from frozenmm.registry import DATASETS

TILES = 4
VERSION = 2
"""Raised whenever the same source, seed and number would give other mosaics."""


def mosaic4(images: Sequence[np.ndarray], masks: Sequence[np.ndarray], side: int) -> tuple[np.ndarray, np.ndarray]:
    """A canvas of four tiles: top left, top right, bottom left, bottom right.

    Args:
        images: four (H, W, 3) uint8, resized bilinearly.
        masks: four (H, W) bool, where the class of the tile is; or uint8 with q + 1 where the class of tile q is, for
            images that show classes of other tiles too. Resized by nearest neighbour.
        side: of a tile in pixels.

    Returns:
        (2 side, 2 side, 3) uint8, and (2 side, 2 side) uint8 with q + 1 where the class of tile q is, else 0.

    Raises:
        ValueError: not four images and masks.
    """
    if len(images) != TILES or len(masks) != TILES:
        raise ValueError(f'a mosaic has {TILES} tiles, got {len(images)} images and {len(masks)} masks')
    canvas = np.zeros((2 * side, 2 * side, 3), np.uint8)
    labels = np.zeros((2 * side, 2 * side), np.uint8)
    for tile, (image, mask) in enumerate(zip(images, masks)):
        rows, columns = (slice(side * place, side * (place + 1)) for place in divmod(tile, 2))
        canvas[rows, columns] = mmcv.imresize(image, (side, side), interpolation='bilinear', backend='cv2')
        values = mask * np.uint8(tile + 1) if mask.dtype == bool else mask
        labels[rows, columns] = mmcv.imresize(values, (side, side), interpolation='nearest', backend='cv2')
    return canvas, labels


def write_mosaics(source: EpisodicSegDataset, folder: str | Path, *, count: int, seed: int = 0,
                  side: int = 224) -> Path:
    """Mosaics of a data set on disk: the same source, seed and number give the same mosaic.

    Every mosaic draws four distinct classes of the source, each class with the same chance, and one of its images each.
    Where an image shows a class of another tile too, as images of scenes do, that counts as well: the four names are
    asked of the whole canvas. Ignored pixels stay ignored.

    Args:
        source: any episodic data set with one class per episode; only the classes that it asks for are used.
        folder: gets `images/*.png`, `labels/*.png` and, last, `mosaics.json`; a folder that has the right one is
            complete.
        count: number of mosaics.
        seed: everything random follows from it and the number of the mosaic.
        side: of a tile in pixels.

    Returns:
        The folder.

    Raises:
        UserError: fewer than four classes, episodes of several classes, or `folder` holds other mosaics.

    Source: our definition (`mosaic4`); the paper names the benchmark, its construction was not published.
    """
    folder, groups = Path(folder), _by_class(source)
    drawn = [_draw(groups, np.random.default_rng((seed, number))) for number in range(count)]
    content = dict(version=VERSION, seed=seed, side=side, mosaics=[
        [dict(image=Path(episode['img_path']).name, class_id=number) for number, episode in tiles] for tiles in drawn])
    if is_made_from(content, folder / 'mosaics.json', 'mosaics of another source, seed, number or size'):
        return folder
    print_log(f'writing {count} mosaics to {folder}', logger='current')
    for number, tiles in enumerate(drawn):
        class_ids = [one for one, _ in tiles]
        images, masks = zip(*(_load(episode, class_ids, tile) for tile, (_, episode) in enumerate(tiles)))
        canvas, labels = mosaic4(images, masks, side)
        _save(folder / 'images' / f'{number:05d}.png', canvas[..., ::-1])
        _save(folder / 'labels' / f'{number:05d}.png', labels)
    write_whole(folder / 'mosaics.json', json.dumps(content))
    return folder


@DATASETS.register_module()
class Mosaic4Dataset(BaseDataset):
    """Episodes of four names over mosaics, which are written on first use.

    Args:
        source: config of an episodic data set with one class per episode, or a built one; its class numbers are kept.
        data_root: folder of the mosaics.
        count: see `write_mosaics`; likewise seed and side.
        **kwargs: for mmengine's `BaseDataset`: `pipeline`, `test_mode`, `indices`, ...
    """

    def __init__(self, source: dict | EpisodicSegDataset, data_root: str, *, count: int = 1000, seed: int = 0,
                 side: int = 224, **kwargs: object) -> None:
        self.source = DATASETS.build(dict(source)) if isinstance(source, dict) else source
        self.settings = dict(count=count, seed=seed, side=side)
        super().__init__(data_root=data_root, metainfo=dict(classes=self.source.classes), **kwargs)

    def load_data_list(self) -> list[dict]:
        """One dictionary per mosaic."""
        folder = write_mosaics(self.source, self.data_root, **self.settings)
        episodes = []
        for number, tiles in enumerate(json.loads((folder / 'mosaics.json').read_text())['mosaics']):
            class_ids = [tile['class_id'] for tile in tiles]
            episodes.append(dict(img_path=str(folder / 'images' / f'{number:05d}.png'),
                                 seg_map_path=str(folder / 'labels' / f'{number:05d}.png'), class_ids=class_ids,
                                 class_names=self.source.names(class_ids), label_values=list(range(1, TILES + 1)),
                                 seg_fields=[], reduce_zero_label=False))
        return episodes


def _by_class(source: EpisodicSegDataset) -> dict[int, list[dict]]:
    """Episodes of every class that the source asks for."""
    groups: dict[int, list[dict]] = {}
    for index in range(len(source)):
        episode = source.get_data_info(index)
        if len(episode['asked']) != 1:
            raise UserError('mosaics need a source with one class per episode (classes_per_episode=1)')
        groups.setdefault(episode['asked'][0], []).append(episode)
    if len(groups) < TILES:
        raise UserError(f'a mosaic shows {TILES} distinct classes, but the source shows {len(groups)} only: '
                        f'{source.names(sorted(groups))}')
    return groups


def _draw(groups: dict[int, list[dict]], rng: np.random.Generator) -> list[tuple[int, dict]]:
    numbers = rng.choice(sorted(groups), TILES, replace=False)
    return [(int(number), groups[int(number)][rng.integers(len(groups[int(number)]))]) for number in numbers]


def _load(episode: dict, class_ids: Sequence[int], tile: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and label map of a tile, in the values of the mosaic."""
    labels = read_label_map(episode['seg_map_path'], binary=episode['binary'])
    table = np.zeros(256, np.uint8)
    if episode['binary']:
        table[1] = tile + 1
    else:
        table[IGNORE] = IGNORE
        table[class_ids] = np.arange(1, TILES + 1)
    return mmcv.imread(episode['img_path']), table[labels]


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        Image.fromarray(pixels).save(part, format='PNG')
