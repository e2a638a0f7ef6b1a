"""PASCAL VOC 2012 with 20 classes and background: label maps with void borders."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from frozenmm.datasets.annotation_pictures import read_picture
from frozenmm.datasets.prepare.annotations import AnnotatedImage, write_label_maps
from frozenmm.datasets.prepare.sources import SourceFile
from frozenmm.errors import UserError, reading

NUM_CLASSES = 21
BORDER = (224, 224, 192)
FILES = (
    SourceFile('VOCtrainval_11-May-2012.tar', '1.9 GB', 'http://host.robots.ox.ac.uk/pascal/VOC/voc2012/',
               ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation/{split}.txt'),
               'http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar',
               'md5:6cd6e144f989b92b3379bac3b3de84fd', '../..'), )


def convert(folder: Path, split: str) -> None:
    """Write `labels_21/*.png`: 0 for background, 1..20 for the classes, 255 for borders and difficult objects.

    Without background (20 classes) the same maps are read with `reduce_zero_label=True`.

    Raises:
        MissingFile: no list of the split.
        UserError: a map with values or colours that are no class.
    """
    images = [AnnotatedImage(stem, folder / 'JPEGImages' / f'{stem}.jpg', f'{stem}.jpg',
                             (folder / 'SegmentationClass' / f'{stem}.png', ))
              for stem in listed(folder / 'ImageSets' / 'Segmentation' / f'{split}.txt')]
    write_label_maps(images, labels, folder / 'labels_21', num_classes=NUM_CLASSES)


def listed(path: Path) -> list[str]:
    """The image names of a split's list.

    Raises:
        MissingFile: no such list.
    """
    with reading(path, 'the list of what belongs to the split', 'is the archive unpacked completely?'):
        return path.read_text(encoding='utf-8').split()


def labels(image: AnnotatedImage) -> np.ndarray:
    """Labels of a map that holds palette indices, or of a copy of it that holds the palette's colours.

    Raises:
        UserError: values or colours that are no class.
    """
    stored = read_picture(image.annotations[0])
    if stored.ndim == 3:
        table = {colour: index for index, colour in enumerate(palette(NUM_CLASSES))} | {BORDER: 255}
        keys = {red << 16 | green << 8 | blue: index for (red, green, blue), index in table.items()}
        red, green, blue = np.moveaxis(stored[..., :3].astype(np.int64), -1, 0)
        colours, places = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
        strange = [f'#{colour:06x}' for colour in colours.tolist() if colour not in keys]
        if strange:
            raise UserError(f'{image.annotations[0]} has the colours {strange[:3]}, which no class of PASCAL VOC has')
        stored = np.array([keys[colour] for colour in colours.tolist()])[places.reshape(stored.shape[:2])]
    strange = sorted(set(np.unique(stored).tolist()) - {*range(NUM_CLASSES), 255})
    if strange:
        raise UserError(f'{image.annotations[0]} has the values {strange[:3]}; 0..20 and 255 were expected')
    return stored


def palette(count: int) -> list[tuple[int, int, int]]:
    """VOC's colours: the bits of the index, dealt to red, green and blue in turn, from the highest bit down."""
    colours = []
    for index in range(count):
        channels = [0, 0, 0]
        for bit in range(24):
            channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colours.append((channels[0], channels[1], channels[2]))
    return colours
