"""What a stranger sees: photographs, sensible words and the demonstration model, on one sheet to look at.

    python benchmarks/photo_sheet.py --sheet sheet.jpg               # 24 photographs, drawn; names and scores as text
    python benchmarks/photo_sheet.py --val                           # few words on coco_mini's val pictures, judged
    python benchmarks/photo_sheet.py --model open-vocabulary-mini    # another model

The photographs come from what is installed (scikit-image, matplotlib; scikit-learn in `--packages`) and from the
validation set of coco_mini. None was used to choose a threshold or to train.

`--val` asks for the classes that cover 1 % of a picture or more, and for two that are not there. A segment is right if
half of its pixels with a label carry its name. The main object is the largest class of things of 5 % or more that
ImageNet has a name for; it is found if what carries its name overlaps it with an IoU above 0.25. The table says
how many of the segments of each score are right.
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from branch_comparison import machine, write_json  # noqa: E402

from frozenmm.apis import inferencer  # noqa: E402
from frozenmm.apis.found import MIN_SCORE  # noqa: E402
from frozenmm.datasets.panoptic_files import read_panoptic_map  # noqa: E402
from frozenmm.foundation.named_classes import imagenet_classes  # noqa: E402
from frozenmm.foundation.vocabulary import Vocabulary, VocabularyClass  # noqa: E402

PACKAGED = {
    'skimage/data/chelsea.png': 'cat, carpet', 'skimage/data/coffee.png': 'cup, spoon, table',
    'skimage/data/rocket.jpg': 'rocket, sky', 'skimage/data/motorcycle_left.png': 'motorcycle, floor, wall',
    'skimage/data/astronaut.png': 'person, flag, space shuttle', 'skimage/data/camera.png': 'person, grass, sky',
    'sklearn/datasets/images/china.jpg': 'temple, sky, tree', 'sklearn/datasets/images/flower.jpg': 'flower, leaf',
    'matplotlib/mpl-data/sample_data/grace_hopper.jpg': 'woman, flag, cat'}
VALIDATION = {
    '000000000285': 'bear, grass', '000000001818': 'zebra, grass', '000000001675': 'cat, keyboard, dog',
    '000000002006': 'bus, road, tree', '000000008629': 'pizza, table', '000000003661': 'banana, cup, table',
    '000000005477': 'airplane, sky, pavement', '000000006040': 'train, sky, tree',
    '000000007816': 'motorcycle, grass, road',
    '000000009448': 'umbrella, person, pavement', '000000000724': 'street sign, road, sky',
    '000000001503': 'laptop, keyboard, wall', '000000000776': 'teddy bear, bed', '000000005992': 'sheep, grass, wall',
    '000000009769': 'truck, snow, house'}
HEIGHT = 300


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'coco_mini')
    parser.add_argument('--packages', type=Path, nargs='*', default=[], help='folders with further packages')
    parser.add_argument('--model', default='open-vocabulary')
    parser.add_argument('--weights', type=Path, help='of a config as model')
    parser.add_argument('--min-score', type=float, default=MIN_SCORE)
    parser.add_argument('--sheet', type=Path)
    parser.add_argument('--val', action='store_true')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'photo_sheet.json')
    return parser.parse_args(arguments)


def photographs(args: argparse.Namespace) -> Iterator[tuple[Path, str]]:
    """Files that are there, and their words."""
    for inside, words in PACKAGED.items():
        spec = importlib.util.find_spec(inside.split('/')[0])
        folders = [*args.packages, *([Path(str(spec.origin)).parents[1]] if spec and spec.origin else [])]
        path = next((folder / inside for folder in folders if (folder / inside).is_file()), None)
        if path is not None:
            yield path, words
    for name, words in VALIDATION.items():
        yield args.data_root / 'images' / 'val' / f'{name}.jpg', words


def sheet(args: argparse.Namespace) -> list[dict[str, Any]]:
    import cv2
    model: Any = inferencer(args.model, ['cat'], weights=args.weights, task='panoptic')
    rows, tiles = [], []
    for path, words in photographs(args):
        model.set_vocabulary([word.strip() for word in words.split(',')])
        sample, = model(str(path))
        names = [(sample.classes[info['category_id']], round(info['score'], 2)) for info in sample.segments_info]
        rows.append(dict(picture=path.name, words=words, found=[found for found in names if found[1] >= args.min_score],
                         below=[found for found in names if found[1] < args.min_score]))
        print(rows[-1], flush=True)
        drawn = sample.drawing(min_score=args.min_score)
        title = np.full((18, drawn.shape[1] * HEIGHT // drawn.shape[0], 3), 255, np.uint8)
        cv2.putText(title, f'{path.stem[-8:]}: {words}', (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0))
        tiles.append(np.vstack([title, cv2.resize(drawn, (title.shape[1], HEIGHT), interpolation=cv2.INTER_AREA)]))
    if args.sheet:
        cv2.imwrite(str(args.sheet), packed(tiles)[..., ::-1])
    return rows


def packed(tiles: list[np.ndarray], width: int = 1900) -> np.ndarray:
    """Tiles of one height in rows of this width."""
    rows: list[list[np.ndarray]] = [[]]
    for tile in tiles:
        if sum(one.shape[1] for one in rows[-1]) + tile.shape[1] > width:
            rows.append([])
        rows[-1].append(tile)
    lines = [np.hstack(row) for row in rows]
    return np.vstack([np.pad(line[:, :width], ((0, 0), (0, max(0, width - line.shape[1])), (0, 0))) for line in lines])


@dataclass
class Truth:
    """A validation picture: (H, W) index of the class, -1 without label; share of the picture by index."""

    path: Path
    labels: np.ndarray
    shares: dict[int, float]


def truths(root: Path, split: str, words: Vocabulary) -> Iterator[Truth]:
    content = json.loads((root / 'annotations' / f'panoptic_{split}.json').read_text())
    pictures = {entry['id']: entry['file_name'] for entry in content['images']}
    for entry in content['annotations']:
        ids = read_panoptic_map(root / f'panoptic_{split}' / entry['file_name'])
        labels = np.full(ids.shape, -1)
        for segment in entry['segments_info']:
            labels[ids == segment['id']] = words.ids.index(segment['category_id'])
        present, counts = np.unique(labels[labels >= 0], return_counts=True)
        yield Truth(root / 'images' / split / pictures[entry['image_id']], labels,
                    {int(index): float(count) / labels.size for index, count in zip(present, counts)})


def few_words(truth: Truth, words: Vocabulary) -> list[int]:
    """What is asked: the classes that are there, and two that are not."""
    absent = [index for index in range(len(words)) if index not in truth.shares]
    return [*(index for index, share in truth.shares.items() if share > 0.01),
            *random.Random(truth.path.name).sample(absent, 2)]


def asked_for(asked: list[int], words: Vocabulary) -> Vocabulary:
    """The classes at these indices as a user types them, who does not say what is a thing."""
    classes = tuple(VocabularyClass(words[index].name, words[index].synonyms) for index in asked)
    return Vocabulary(classes, 'asked', True)


def judged(truth: Truth, asked: list[int], sample: Any) -> list[tuple[float, bool, int, np.ndarray]]:
    """(score, right, class, mask) of every segment."""
    found = []
    values = sample.pred_panoptic_seg.sem_seg[0].numpy()
    for info in sample.segments_info:
        mask, index = values == info['value'], asked[info['category_id']]
        labels = truth.labels[mask]
        known = labels[labels >= 0]
        found.append((info['score'], bool(len(known)) and float((known == index).mean()) >= 0.5, index, mask))
    return found


def main_object(truth: Truth, words: Vocabulary, known: set[int]) -> int | None:
    large = [index for index, share in truth.shares.items() if share > 0.05 and words[index].isthing and index in known]
    return max(large, key=truth.shares.__getitem__, default=None)


def overlap(mask: np.ndarray, other: np.ndarray) -> float:
    return float((mask & other).sum() / max(1, (mask | other).sum()))


def few_words_table(args: argparse.Namespace, split: str = 'val') -> dict[str, Any]:
    words = Vocabulary.read('coco_panoptic_133')
    known = {index for index, entry in enumerate(words) if imagenet_classes().meant(entry.words)}
    model: Any = inferencer(args.model, ['cat'], weights=args.weights, task='panoptic')
    segments, mains, pictures = [], [], 0
    for truth in truths(args.data_root, split, words):
        asked = few_words(truth, words)
        model.set_vocabulary(asked_for(asked, words))
        sample, = model(str(truth.path))
        found = judged(truth, asked, sample)
        segments += [entry[:2] for entry in found]
        pictures += 1
        index = main_object(truth, words, known)
        if index is not None:
            masks = [(score, mask) for score, _, name, mask in found if name == index]
            union = np.any([mask for _, mask in masks], 0) if masks else np.zeros(truth.labels.shape, bool)
            mains.append(max((score for score, _ in masks), default=0.0) if overlap(union, truth.labels == index) > 0.25
                         else 0.0)
    scores, right = np.array([score for score, _ in segments]), np.array([entry for _, entry in segments])
    rows = []
    for least in (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        shown, here = scores >= least, (scores >= least) & (scores < least + 0.1)
        rows.append(dict(at_least=least, main=sum(score >= max(least, 1e-6) for score in mains), of=len(mains),
                         right=int(right[shown].sum()), wrong=int((~right[shown]).sum()),
                         wrong_per_picture=round(float((~right[shown]).sum()) / pictures, 2),
                         in_bin=int(here.sum()),
                         right_in_bin=round(float(right[here].mean()), 2) if here.any() else None))
        print(rows[-1], flush=True)
    return dict(model=args.model, pictures=pictures, rows=rows)


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    stored = json.loads(args.out.read_text()) if args.out.is_file() else {}
    result = few_words_table(args) if args.val else dict(min_score=args.min_score, rows=sheet(args))
    stored.setdefault(args.model, {})['few words' if args.val else 'sheet'] = result
    write_json(args.out, dict(stored, machine=machine()))


if __name__ == '__main__':
    main()
