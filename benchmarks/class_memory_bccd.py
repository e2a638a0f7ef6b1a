"""Blood cells from a few boxes a class, which no word here knows: proposals without classes, named by a `ClassMemory`.

    python benchmarks/class_memory_bccd.py --data-root path/to/bccd --draws 3

Proposals are regions of one look (felzenszwalb at three scales) and parts of what is darker than the field, cut apart
where they touch (watershed of the distance from the border), as boxes. A region is the mean of EfficientNet-Lite0's
maps at strides 8, 16 and 32 in its box, and its side; every number standardised over the example pictures. Of each
example picture, boxes of proposals that no annotated box touches are examples of `background`. What is not `background`
is a detection, scored by the softmax of `RegionMemory`'s logits. Shown: AP50 of each class on the validation pictures,
for proposals named by chance (their class drawn, their score 1), by a memory of boxes without their side, and with it;
and the share of annotated cells that a proposal meets (IoU 0.5), which no naming can exceed.
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
from frozenmm.compat.image_files import read_image_file  # noqa: E402
from frozenmm.foundation import ImageTower  # noqa: E402
from frozenmm.foundation.class_memory import ClassMemory  # noqa: E402
from frozenmm.foundation.tower_building import build_tower  # noqa: E402
from frozenmm.foundation.vocabulary import Vocabulary  # noqa: E402
from frozenmm.segmentation.class_memory import RegionMemory  # noqa: E402
from frozenmm.segmentation.word_cells.evidence import MAPS, cells_of  # noqa: E402
from frozenmm.structures import ImageStats  # noqa: E402

CLASSES = ('Platelets', 'RBC', 'WBC')
WORDS = Vocabulary.read([*CLASSES, 'background'])
SIDE_WEIGHT = 8.0  # of the standardised side beside 472 features
SCALES = (50, 200, 800)
BACKGROUND = 4  # examples of it for every one of a class


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
        """(M, C) of the annotated boxes and (P, C) of the proposals, before `Standard`."""
        maps = cells(self.pixels)
        return tuple(in_boxes(maps, boxes, self.pixels.shape[:2]) for boxes in (self.boxes, self.proposals))


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
    maps = [segmentation.felzenszwalb(small, scale=scale / 255, sigma=0.8, min_size=30) + 1 for scale in SCALES]
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
def tower() -> ImageTower:
    return build_tower(dict(type='frozenmm.EfficientNetLiteTower', out_maps=list(MAPS)), part='boxes',
                       resize_mode='none')


@torch.no_grad()
def cells(pixels: np.ndarray) -> Tensor:
    """(C, h, w) of a picture."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    return cells_of(tower()(image, [(image.shape[-2], image.shape[-1])], ImageStats()))[0]


def in_boxes(maps: Tensor, boxes: np.ndarray, size: tuple[int, ...]) -> Tensor:
    """(P, C + 1): means of maps (C, h, w) in boxes (P, 4) of a picture (H, W), and the logarithm of the side."""
    spans = [shares(boxes[:, [axis, axis + 2]] / side * count, count)
             for axis, side, count in ((1, size[0], maps.shape[1]), (0, size[1], maps.shape[2]))]
    means = torch.einsum('ph,pw,chw->pc', *spans, maps)
    side = torch.from_numpy(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))).float().log()
    return torch.cat([means, side[:, None]], 1)


def shares(spans: np.ndarray, count: int) -> Tensor:
    """(P, count): which share of each span (P, 2) in cells lies in each cell."""
    spans, cells = torch.from_numpy(spans).float(), torch.arange(count)
    inside = (torch.minimum(spans[:, 1:], cells + 1) - torch.maximum(spans[:, :1], cells)).clamp(min=0)
    return inside / inside.sum(1, keepdim=True).clamp(min=1e-6)


class Standard:
    """Vectors (P, C) standardised over those of some pictures, with a weight of the side. An encoder of a memory."""

    def __init__(self, vectors: Tensor, weight: float) -> None:
        self.mean, self.std, self.weight = vectors.mean(0), vectors.std(0), weight
        self.signature: dict[str, str | int] = dict(tower=tower().name, channels=vectors.shape[1])

    def __call__(self, vectors: Tensor) -> Tensor:
        """See the class."""
        found = (vectors - self.mean) / self.std
        found[:, -1] *= self.weight
        return found


def examples(pictures: list[Picture], count: int, seed: int) -> tuple[list[str], Tensor, Tensor]:
    """Names and vectors of `count` boxes a class and as many of background, and all proposals' in their pictures."""
    drawn, names, rows = random.Random(seed), [], []
    used: dict[int, Picture] = {}
    for label, name in enumerate(CLASSES):
        places = [(index, row) for index, picture in enumerate(pictures)
                  for row in np.flatnonzero(picture.labels == label)]
        for index, row in drawn.sample(places, count):
            used[index] = pictures[index]
            names.append(name)
            rows.append(pictures[index].vectors[0][row])
    free = [row for picture in used.values()
            for row in picture.vectors[1][torch.from_numpy(bbox_overlaps(picture.proposals, picture.boxes, mode='iof')
                                                           .max(1) < 0.1)]]
    chosen = drawn.sample(free, min(len(free), BACKGROUND * count))
    return ([*names, *['background'] * len(chosen)], torch.stack([*rows, *chosen]),
            torch.cat([picture.vectors[1] for picture in used.values()]))


def detections(boxes: np.ndarray, scores: Tensor) -> list[np.ndarray]:
    """(N, 5) of each class, for boxes (P, 4) with scores (P, 4), background last."""
    found = []
    for label in range(len(CLASSES)):
        chosen = torch.where(scores.argmax(1) == label)[0]
        kept, _ = nms(torch.from_numpy(boxes[chosen.numpy()]).float().view(-1, 4), scores[chosen, label].contiguous(),
                      0.4)
        found.append(kept.numpy())
    return found


def average_precision(found: list[list[np.ndarray]], pictures: list[Picture]) -> dict[str, float]:
    truth = [dict(bboxes=picture.boxes, labels=picture.labels) for picture in pictures]
    mean, rows = eval_map(found, truth, iou_thr=0.5, logger='silent')
    return {'mean': round(100 * float(mean), 2),
            **{name: round(100 * float(np.ravel(row['ap'])[0]), 2) for name, row in zip(CLASSES, rows)}}


def by_memory(chosen: tuple[list[str], Tensor, Tensor], weight: float, pictures: list[Picture]) -> dict[str, float]:
    names, rows, everything = chosen
    encoder = Standard(everything, weight)
    with tempfile.TemporaryDirectory() as folder:
        memory = ClassMemory(Path(folder) / 'memory.sqlite', encoder)
        memory.add_vectors(names, encoder(rows))
        scorer = RegionMemory(memory, lambda vectors: torch.zeros(len(vectors), len(WORDS)).log_softmax(-1))
        found = []
        for picture in pictures:
            logits = scorer.logits(encoder(picture.vectors[1])[None], WORDS)[0]
            logits[:, -1] += 1e-3  # what is like no example is background
            found.append(detections(picture.proposals, logits.softmax(-1)))
    return average_precision(found, pictures)


def by_chance(pictures: list[Picture], seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for picture in pictures:
        drawn = torch.randint(0, len(WORDS), (len(picture.proposals), ), generator=generator)
        found.append(detections(picture.proposals, F.one_hot(drawn, len(WORDS)).float()))
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
    rows = [dict(naming='chance', examples=0, draw=0, **by_chance(val, 0))]
    print(result['recall'], result['proposals_a_picture'], rows[0], flush=True)
    for draw in range(args.draws):
        for count in args.counts:
            chosen = examples(train, count, draw)
            for name, weight in ('memory', 0.0), ('memory with side', SIDE_WEIGHT):
                rows.append(dict(naming=name, examples=count, draw=draw, **by_memory(chosen, weight, val)))
                print(rows[-1], flush=True)
    write_json(args.out, dict(result, rows=rows))


if __name__ == '__main__':
    main()
