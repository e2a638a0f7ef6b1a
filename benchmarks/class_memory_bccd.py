"""Blood cells from a few boxes a class, which no word here knows: proposals without classes, named by a `ClassMemory`.

    python benchmarks/class_memory_bccd.py --data-root path/to/bccd --draws 3

Proposals are regions of one look (felzenszwalb at three scales) and parts of what is darker than the field, cut apart
where they touch (watershed of the distance from the border), as boxes; boxes are to `words-lite0` what regions are.
Surroundings of an example are proposals that touch no annotated box of its picture, and those that meet the example
badly. A proposal scores by the gap of `CellMemory`, and with the sides of the examples. Shown: AP50 of each class on
the validation pictures, by examples, by chance (the class of a proposal drawn, or none) and by the annotation, which
no naming can exceed; and the share of annotated cells that a proposal meets (IoU 0.5).
"""
from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from skimage import color, feature, filters, measure, segmentation, transform
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from branch_comparison import write_json  # noqa: E402
from machine import describe_machine  # noqa: E402
from mmcv.ops import nms  # noqa: E402
from mmdet.evaluation.functional import bbox_overlaps, eval_map  # noqa: E402

import frozenmm  # noqa: E402, F401  (fills the holes of the installation)
from frozenmm.apis import inferencer  # noqa: E402
from frozenmm.apis.image_pipeline import batch_of  # noqa: E402
from frozenmm.apis.region_encoder import CellRegions  # noqa: E402
from frozenmm.compat.image_files import read_image_file  # noqa: E402
from frozenmm.compat.image_sources import read_images  # noqa: E402
from frozenmm.foundation.class_memory import ClassMemory  # noqa: E402

CLASSES = ('Platelets', 'RBC', 'WBC')
SCALES = (50, 200, 800)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'bccd')
    parser.add_argument('--counts', type=int, nargs='+', default=[1, 5])
    parser.add_argument('--draws', type=int, default=3)
    parser.add_argument('--pictures', type=int, help='of validation; all by default')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'class_memory_bccd.json')
    return parser.parse_args(arguments)


@dataclass
class Picture:
    """A picture with boxes (M, 4) x1, y1, x2, y2 of annotated cells and their labels (M,)."""

    path: Path
    boxes: np.ndarray
    labels: np.ndarray

    @cached_property
    def pixels(self) -> np.ndarray:
        """(H, W, 3) RGB."""
        return read_image_file(self.path)

    @cached_property
    def proposals(self) -> np.ndarray:
        """(P, 4)."""
        return proposals(self.pixels)

    @cached_property
    def vectors(self) -> tuple[Tensor, Tensor]:
        """(M, C) of the annotated boxes and (P, C) of the proposals."""
        return vectors(self.pixels, self.boxes), vectors(self.pixels, self.proposals)


def read(root: Path, name: str) -> Picture:
    tree = ElementTree.parse(root / 'Annotations' / f'{name}.xml')
    width, height = (float(tree.findtext(f'size/{side}', '')) for side in ('width', 'height'))
    boxes, labels = [], []
    for entry in tree.iter('object'):
        box = [float(entry.findtext(f'bndbox/{side}', '')) for side in ('xmin', 'ymin', 'xmax', 'ymax')]
        box = np.clip(box, 0, [width, height, width, height])
        if (box[2:] > box[:2] + 1).all():
            boxes.append(box)
            labels.append(CLASSES.index(entry.findtext('name', '')))
    return Picture(root / 'JPEGImages' / f'{name}.jpg', np.array(boxes).reshape(-1, 4), np.array(labels, int))


def proposals(pixels: np.ndarray) -> np.ndarray:
    """Boxes (P, 4) of regions, each once, at half the resolution."""
    small = transform.resize(pixels, (pixels.shape[0] // 2, pixels.shape[1] // 2), anti_aliasing=True)
    maps = [segmentation.felzenszwalb(small, scale=scale, sigma=0.8, min_size=30) + 1 for scale in SCALES]
    darkness = 1 - color.rgb2gray(small)
    inside = darkness > filters.threshold_otsu(darkness)
    whole = measure.label(inside)
    distance = distance_transform_edt(inside)
    for between in 5, 12:
        peaks = feature.peak_local_max(distance, min_distance=between, labels=whole, exclude_border=False)
        seeds = np.zeros(inside.shape, int)
        seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        maps.append(segmentation.watershed(-distance, seeds, mask=inside))
    found = {tuple(2 * side for side in (region.bbox[1], region.bbox[0], region.bbox[3], region.bbox[2]))
             for numbers in (*maps, whole) for region in measure.regionprops(numbers)}
    boxes = np.array(sorted(found), float)
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes[(sides.min(1) >= 12) & (sides.max(1) <= 320)]


@cache
def model() -> Any:
    return inferencer('words-lite0', list(CLASSES))


@torch.no_grad()
def vectors(pixels: np.ndarray, boxes: np.ndarray) -> Tensor:
    """(P, C) of boxes (P, 4) of a picture."""
    image, = read_images(pixels)
    data = model().model.data_preprocessor(batch_of([model()._prepare(image)]), False)
    height, width = data['data_samples'][0].img_shape[:2]
    rows, columns = (torch.arange(count) + 0.5 for count in (height // 4, width // 4))
    scale = torch.tensor([columns.numel() / pixels.shape[1], rows.numel() / pixels.shape[0]]).repeat(2)
    left, top, right, bottom = (torch.from_numpy(boxes).float() * scale)[..., None].unbind(1)
    masks = (((rows > top) & (rows < bottom))[:, :, None] & ((columns > left) & (columns < right))[:, None]).float()
    views = model().model.views(data['inputs'][..., :height, :width])
    return model().model.region_vectors(views, masks)


def remember(memory: ClassMemory, pictures: list[Picture], count: int, seed: int) -> Tensor:
    """Add `count` boxes of each class with their surroundings; (3 * count, 2) their sides, see `log_sides`."""
    drawn, sides = random.Random(seed), []
    for label, name in enumerate(CLASSES):
        places = [(picture, row) for picture in pictures for row in np.flatnonzero(picture.labels == label)]
        for picture, row in drawn.sample(places, count):
            chosen, proposals = picture.boxes[row:row + 1], picture.proposals
            background = bbox_overlaps(proposals, picture.boxes, mode='iof').max(1) < 0.1
            mine, any_cell = bbox_overlaps(proposals, chosen)[:, 0], bbox_overlaps(proposals, picture.boxes).max(1)
            around = background | ((mine > 0.05) & (mine < 0.35) & (any_cell < 0.5))
            memory.add_vectors([name], picture.vectors[0][row:row + 1],
                               surroundings=picture.vectors[1][torch.from_numpy(around)])
            sides.append(log_sides(chosen))
    return torch.cat(sides)


def log_sides(boxes: np.ndarray) -> Tensor:
    """(P, 2): logarithms of width and height of boxes (P, 4)."""
    return torch.from_numpy(np.log(boxes[:, 2:] - boxes[:, :2])).float()


def detections(boxes: np.ndarray, scores: Tensor) -> list[np.ndarray]:
    """(N, 5) of each class, for boxes (P, 4) with scores (3, P)."""
    best, corners = scores.argmax(0), torch.from_numpy(boxes).float().view(-1, 4)
    return [nms(corners[best == label], scores[label, best == label], 0.4)[0].numpy() for label in range(len(CLASSES))]


def average_precision(found: list[list[np.ndarray]], pictures: list[Picture]) -> dict[str, float]:
    truth = [dict(bboxes=picture.boxes, labels=picture.labels) for picture in pictures]
    mean, rows = eval_map(found, truth, iou_thr=0.5, logger='silent')
    return {'mean': round(100 * float(mean), 2),
            **{name: round(100 * float(np.ravel(row['ap'])[0]), 2) for name, row in zip(CLASSES, rows)}}


def by_memory(memory: ClassMemory, sides: Tensor, weight: float, pictures: list[Picture]) -> dict[str, float]:
    """`sides` of the examples count with this weight: the squared distance is taken off the similarity."""
    stored, around = memory.examples(), memory.surroundings()
    rows, found = [stored.of_words([name]) for name in CLASSES], []
    for picture in pictures:
        seen = picture.vectors[1]
        apart = (log_sides(picture.proposals)[:, None] - sides).square().sum(-1)
        similarity = seen @ stored.vectors.T - weight * apart
        gaps = torch.stack([similarity[:, mine].amax(1) for mine in rows]) - (seen @ around.T).topk(3).values.mean(1)
        found.append(detections(picture.proposals, gaps))
    return average_precision(found, pictures)


def by_chance(pictures: list[Picture], seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for picture in pictures:
        drawn = torch.randint(0, len(CLASSES) + 1, (len(picture.proposals), ), generator=generator)
        found.append(detections(picture.proposals, F.one_hot(drawn, len(CLASSES) + 1).T[:-1].float()))
    return average_precision(found, pictures)


def by_annotation(pictures: list[Picture]) -> dict[str, float]:
    found = []
    for picture in pictures:
        overlaps = torch.from_numpy(bbox_overlaps(picture.boxes, picture.proposals))
        rows = F.one_hot(torch.from_numpy(picture.labels), len(CLASSES)).T[..., None] * overlaps
        found.append(detections(picture.proposals, rows.amax(1).float()))
    return average_precision(found, pictures)


def recall(pictures: list[Picture]) -> dict[str, float]:
    met: dict[int, list[bool]] = defaultdict(list)
    for picture in pictures:
        best = bbox_overlaps(picture.boxes, picture.proposals).max(1)
        for label, overlap in zip(picture.labels, best):
            met[int(label)].append(bool(overlap >= 0.5))
    return {name: round(100 * statistics.mean(met[label]), 1) for label, name in enumerate(CLASSES)}


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    train, val = ([read(args.data_root, name) for name in
                   (args.data_root / 'ImageSets' / 'Main' / f'{split}.txt').read_text().split()]
                  for split in ('train', 'val'))
    val = val[:args.pictures]
    result = dict(machine=describe_machine(), pictures=len(val), recall=recall(val),
                  proposals_a_picture=round(statistics.mean(len(picture.proposals) for picture in val), 1))
    rows = [dict(naming='chance', examples=0, draw=0, **by_chance(val, 0)),
            dict(naming='annotation', examples=0, draw=0, **by_annotation(val))]
    print(result['recall'], result['proposals_a_picture'], *rows, flush=True)
    for draw in range(args.draws):
        for count in args.counts:
            with tempfile.TemporaryDirectory() as folder:
                memory = ClassMemory(Path(folder) / 'memory.sqlite', CellRegions(model().model, model()._prepare))
                sides = remember(memory, train, count, draw)
                for name, weight in ('memory', 0.0), ('memory and sides', 1.0):
                    rows.append(dict(naming=name, examples=count, draw=draw, **by_memory(memory, sides, weight, val)))
                    print(rows[-1], flush=True)
    write_json(args.out, dict(result, rows=rows))


if __name__ == '__main__':
    main()
