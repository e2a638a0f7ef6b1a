"""Collages: real things cut from a panoptic data set, pasted on clutter made of its stuff, with some classes held out.

Meant for experiments on transfer to unseen classes: the pixels are those of photographs, places and surroundings are
random, and no cut-out occurs in both splits.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from frozenmm.datasets.panoptic_files import Category, PanopticImage, read_panoptic_file, read_panoptic_map
from frozenmm.demo.scenes.cutouts import Cutout
from frozenmm.demo.scenes.painter import leaves_all_visible, place, turn
from frozenmm.demo.scenes.photographs import Image
from frozenmm.errors import MissingFile, UserError

LONG_SIDE = (0.3, 0.6)
"""Longer side of a pasted thing as a share of the picture's side."""


@dataclass(frozen=True)
class CollageSource:
    """A data set in COCO's panoptic layout.

    It holds `annotations/panoptic_{split}.json`, `panoptic_{split}/*.png` and `images/{split}/*.jpg`.

    Attributes:
        folder: where it lies.
        least_area: smaller things are not used, in pixels.
        least_side: nor are those whose box has a shorter side, in pixels.
    """

    folder: Path
    least_area: int = 1500
    least_side: int = 32

    def things(self, split: str, names: Sequence[str]) -> dict[str, list[Cutout]]:
        """The cut-outs of some thing classes; crowds are left out.

        Raises:
            MissingFile, UserError: the data set is not there, not in this layout, or lacks a class.
        """
        content = read_panoptic_file(self.folder / 'annotations' / f'panoptic_{split}.json')
        by_name = {category.name: category for category in content.categories}
        unknown = [name for name in names if name not in by_name or not by_name[name].isthing]
        if unknown:
            raise UserError(f'{self.folder} has no thing classes {unknown}')
        name_of = {by_name[name].id: name for name in names}
        found: dict[str, list[Cutout]] = {name: [] for name in names}
        for image in content.images:
            chosen = [segment for segment in image.segments if segment.category_id in name_of and not segment.is_crowd
                      and segment.area >= self.least_area and min(segment.bbox[2:]) >= self.least_side]
            if not chosen:
                continue
            pixels, ids = self._read(split, image)
            for segment in chosen:
                found[name_of[segment.category_id]].append(cut_out(pixels, ids == segment.id))
        return found

    def stuff(self, split: str, count: int = 60, least_share: float = 0.05) -> list[Cutout]:
        """The largest stuff regions of a split, for grounds and clutter; none below a share of its image.

        Raises: as `things`, and UserError where no region is large enough.
        """
        content = read_panoptic_file(self.folder / 'annotations' / f'panoptic_{split}.json')
        stuff = {category.id for category in content.categories if not category.isthing}
        regions = sorted(((segment.area / (image.height * image.width), number, segment.id)
                          for number, image in enumerate(content.images) for segment in image.segments
                          if segment.category_id in stuff), reverse=True)
        regions = [region for region in regions if region[0] >= least_share][:count]
        if not regions:
            raise UserError(f'{self.folder} has no stuff regions of at least {least_share:.0%} of an image')
        found = []
        for _, number, segment_id in regions:
            pixels, ids = self._read(split, content.images[number])
            found.append(cut_out(pixels, ids == segment_id))
        return found

    def categories(self, split: str = 'train') -> tuple[Category, ...]:
        """The classes of the data set."""
        return read_panoptic_file(self.folder / 'annotations' / f'panoptic_{split}.json').categories

    def _read(self, split: str, image: PanopticImage) -> tuple[Image, np.ndarray]:
        path = self.folder / 'images' / split / image.file_name
        pixels = cv2.imread(str(path))
        if pixels is None:
            raise MissingFile(f'no readable image {path}')
        return pixels, read_panoptic_map(self.folder / f'panoptic_{split}' / image.map_name)


@dataclass
class Collage:
    """A picture.

    Attributes:
        image: (S, S, 3) uint8 BGR.
        segments: (S, S) uint8, 0 for the ground, i + 1 for visible pixels of thing i.
        labels: class names of the things, in the order of pasting.
    """

    image: Image
    segments: np.ndarray
    labels: list[str]


def cut_out(pixels: Image, mask: np.ndarray) -> Cutout:
    """The region under a mask (H, W) bool, cropped, soft at its border."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    box = slice(y, y + height), slice(x, x + width)
    inside = np.pad(mask[box], 2).astype(np.float32)
    alpha = cv2.GaussianBlur(inside, (3, 3), 0)
    return Cutout(np.pad(pixels[box], ((2, 2), (2, 2), (0, 0)), mode='edge'), alpha)


def clutter(stuff: Sequence[Cutout], size: int, rng: np.random.Generator, *, fragments: int = 10) -> Image:
    """A ground (size, size, 3) uint8 BGR: one region stretched over everything, under fragments of others."""
    ground = stuff[int(rng.integers(len(stuff)))]
    canvas: np.ndarray = _filled(ground, size, rng).astype(np.float32)
    for _ in range(fragments):
        piece = _filled(stuff[int(rng.integers(len(stuff)))], size, rng)
        centre, radius = rng.uniform(0, size, 2), rng.uniform(0.08, 0.25) * size
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(4, 8))))
        lengths = radius * rng.uniform(0.5, 1, (len(angles), 1))
        corners = centre + lengths * np.stack([np.cos(angles), np.sin(angles)], 1)
        mask = np.zeros((size, size), np.uint8)
        cv2.fillPoly(mask, [corners.round().astype(np.int32)], 1)
        alpha = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0)[..., None]
        canvas = canvas * (1 - alpha) + piece * alpha
    return canvas.round().astype(np.uint8)


def _filled(region: Cutout, size: int, rng: np.random.Generator) -> Image:
    """(size, size, 3) of a region's pixels alone: its best covered window, holes filled from inside."""
    height, width = region.alpha.shape
    side = max(8, int(min(height, width) * rng.uniform(0.4, 0.9)))
    inside = (region.alpha > 0.9).astype(np.float32)
    best, found = -1.0, (0, 0)
    for _ in range(6):
        top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
        share = float(inside[top:top + side, left:left + side].mean())
        if share > best:
            best, found = share, (top, left)
    box = slice(found[0], found[0] + side), slice(found[1], found[1] + side)
    piece, mask = region.pixels[box], inside[box] > 0
    if not mask.all():
        # the nearest pixel of the region stands in
        source = np.where(mask, 0, 255).astype(np.uint8)
        _, labels = cv2.distanceTransformWithLabels(source, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
        table = np.zeros((int(labels.max()) + 1, 3), np.uint8)
        table[labels[mask]] = piece[mask]
        piece = np.where(mask[..., None], piece, table[labels]) if mask.any() else piece
    piece = cv2.resize(np.ascontiguousarray(piece), (size, size), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(piece[:, ::-1]) if rng.random() < 0.5 else piece


def compose(things: dict[str, list[Cutout]], stuff: Sequence[Cutout], size: int, objects: tuple[int, int],
            rng: np.random.Generator) -> Collage:
    """A random collage; every thing keeps some of its pixels in sight.

    Args:
        things: cut-outs by class name; classes are drawn evenly, whatever the number of their cut-outs.
        stuff: regions for the ground.
        size: side of the picture in pixels.
        objects: smallest and largest number of things; fewer where no more fit.
        rng: source of all randomness.
    """
    names = sorted(name for name, cutouts in things.items() if cutouts)
    canvas = clutter(stuff, size, rng).astype(np.float32)
    segments = np.zeros((size, size), np.uint8)
    areas: list[int] = []
    labels: list[str] = []
    for _ in range(int(rng.integers(objects[0], objects[1] + 1))):
        name = names[int(rng.integers(len(names)))]
        cutout = _varied(things[name][int(rng.integers(len(things[name])))], size, rng)
        for _attempt in range(12):
            pixels, alpha = place(cutout, size, rng)
            mask = alpha > 0.5
            if mask.any() and leaves_all_visible(segments, mask, areas, cutout):
                canvas = canvas * (1 - alpha[..., None]) + pixels * alpha[..., None]
                labels.append(name)
                segments[mask] = len(labels)
                areas.append(int((cutout.alpha > 0.5).sum()))
                break
    return Collage(canvas.round().astype(np.uint8), segments, labels)


def _varied(cutout: Cutout, size: int, rng: np.random.Generator) -> Cutout:
    """At a random size, side, slight angle, brightness and contrast."""
    height, width = cutout.alpha.shape
    scale = size * rng.uniform(*LONG_SIDE) / max(height, width)
    shape = (max(round(width * scale), 4), max(round(height * scale), 4))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    alpha = cv2.resize(cutout.alpha, shape, interpolation=interpolation)
    pixels = cv2.resize(cutout.pixels, shape, interpolation=interpolation).astype(np.float32)
    pixels = np.clip((pixels - 128) * rng.uniform(0.85, 1.15) + 128 * rng.uniform(0.85, 1.15), 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        pixels, alpha = pixels[:, ::-1], alpha[:, ::-1]
    return turn(np.ascontiguousarray(pixels), np.ascontiguousarray(alpha), rng.uniform(-15, 15))
