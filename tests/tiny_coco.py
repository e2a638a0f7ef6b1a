"""A folder in COCO layout with six small pictures of boxes and discs on noise: instances and panoptic maps."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ('box', 'disc')
SIDE = 64
COUNTS = {'train': 4, 'val': 2}


def write_tiny_coco(root: Path) -> Path:
    for split, count in COUNTS.items():
        _write_split(root, split, count)
    return root


def _write_split(root: Path, split: str, count: int) -> None:
    images, instances, panoptic = [], [], []
    for number in range(count):
        name, masks = f'{split}_{number:05d}', _masks(number)
        pixels = np.random.default_rng([number, len(split)]).integers(0, 80, (SIDE, SIDE, 3))
        colours = np.zeros((SIDE, SIDE, 3), np.uint8)
        colours[..., 0] = 1  # the ground is segment 1
        segments = [dict(id=1, category_id=3, area=SIDE**2, iscrowd=0, bbox=[0, 0, SIDE, SIDE])]
        for index, mask in enumerate(masks):
            pixels[mask] += (150, 60 * index, 20)
            colours[mask] = (index + 2, 0, 0)
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = [int(v) for v in (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)]
            shared = dict(category_id=index + 1, area=int(mask.sum()), iscrowd=0, bbox=box)
            segments.append(dict(shared, id=index + 2))
            x, y, w, h = box
            instances.append(dict(shared, id=len(instances) + 1, image_id=number,
                                  segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]))
        for folder, content, suffix in (f'images/{split}', pixels, 'jpg'), (f'panoptic_{split}', colours, 'png'):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content.clip(0, 255).astype(np.uint8)).save(root / folder / f'{name}.{suffix}')
        images.append(dict(id=number, file_name=f'{name}.jpg', width=SIDE, height=SIDE))
        panoptic.append(dict(image_id=number, file_name=f'{name}.png', segments_info=segments))
    things = [dict(id=index, name=name, isthing=1) for index, name in enumerate(CLASSES, 1)]
    ground = dict(id=3, name='ground', isthing=0)
    (root / 'annotations').mkdir(exist_ok=True)
    for kind, entries, categories in ('instances', instances, things), ('panoptic', panoptic, [*things, ground]):
        (root / 'annotations' / f'{kind}_{split}.json').write_text(
            json.dumps(dict(images=images, annotations=entries, categories=categories)))


def _masks(number: int) -> list[np.ndarray]:
    """A box and a disc, moving with the picture's number."""
    y, x = np.mgrid[:SIDE, :SIDE]
    box = (x >= 4 + 2 * number) & (x < 28 + 2 * number) & (y >= 6) & (y < 26)
    return [box, (x - 40)**2 + (y - 44 + number)**2 < 150]
