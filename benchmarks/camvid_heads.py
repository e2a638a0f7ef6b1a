"""Does a frozen language block, or attention over frames, help a light head on frozen maps? CamVid, equal steps.

    python benchmarks/camvid_heads.py llm      # none, frozen MiniLM block, frozen random block, trained block
    python benchmarks/camvid_heads.py time     # single frames against clips of four, with flicker

The maps of EfficientNet-Lite0 (240 x 320 pixels) are computed once. A head resizes maps to stride 8, projects and
classifies every cell; the part on trial stands behind the coarsest map. Every arm has the same steps and batches, so
`trained` has many more trained weights than the others. Flicker: the prediction of the frame before is moved by optical
flow (Farneback) onto the present one; its mean IoU with the prediction there, over neighbours of one video. CamVid's
labelled frames lie a second apart, so it is low for everything; only differences count.
"""
from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from machine import describe_machine  # noqa: E402

from frozenmm.compat.files import write_whole  # noqa: E402
from frozenmm.evaluation.semantic_iou import label_counts  # noqa: E402
from frozenmm.foundation.frozen_llm_block import FrozenLLMNeck  # noqa: E402
from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower  # noqa: E402
from frozenmm.foundation.space_time import SpaceTimeNeck  # noqa: E402

CLASSES, SIZE, WIDTHS = 11, (240, 320), [40, 112, 320]
BERT = dict(layout='bert', width=384, heads=12, hidden=1536)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', choices=['llm', 'time'])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'camvid')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'camvid_heads.json')
    return parser.parse_args(arguments)


@torch.no_grad()
def read(root: Path, split: str) -> dict:
    tower = EfficientNetLiteTower(resize_mode='none', out_maps=['res3', 'res4', 'res5'])
    names = sorted(path.stem for path in (root / 'images' / split).iterdir())
    found: dict = dict(names=names, maps=[], labels=[], pictures=[])
    for name in names:
        picture = cv2.cvtColor(cv2.imread(str(root / 'images' / split / f'{name}.jpg')), cv2.COLOR_BGR2RGB)
        picture = cv2.resize(picture, SIZE[::-1], interpolation=cv2.INTER_AREA)
        label = cv2.imread(str(root / 'labels' / split / f'{name}.png'), cv2.IMREAD_UNCHANGED)
        maps = tower(torch.from_numpy(picture).permute(2, 0, 1)[None].float()).maps
        found['maps'].append([value.half() for value in maps.values()])
        found['labels'].append(torch.from_numpy(cv2.resize(label, SIZE[::-1], interpolation=cv2.INTER_NEAREST)).long())
        found['pictures'].append(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    return found


class Head(nn.Module):
    """Maps at stride 8, projected, added, classified; `part` stands behind the coarsest."""

    def __init__(self, part: nn.Module | None) -> None:
        super().__init__()
        self.part = part
        self.project = nn.ModuleList(nn.Sequential(nn.Conv2d(width, 64, 1, bias=False), nn.BatchNorm2d(64))
                                     for width in WIDTHS)
        self.classify = nn.Conv2d(64, CLASSES, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Logits at stride 8 of the three maps."""
        maps = list(maps) if self.part is None else list(self.part(maps))
        x = sum(F.interpolate(project(value), maps[0].shape[-2:], mode='bilinear')
                for project, value in zip(self.project, maps))
        return self.classify(F.relu(x))


def part_of(arm: str, frames: int) -> nn.Module | None:
    if arm in ('none', 'single frames'):
        return None
    if arm == 'clips':
        return SpaceTimeNeck(WIDTHS, frames)
    pretrained = arm == 'frozen MiniLM'
    options = dict(options=dict(residual=True), **({} if pretrained else dict(weights='random', sizes=BERT)))
    neck = FrozenLLMNeck(WIDTHS, block=options)
    if arm == 'trained':
        from copy import deepcopy
        block = neck.block
        trained = deepcopy(block.layer.network).requires_grad_(True)
        block.trained = trained
        block._layer = lambda tokens, valid: tokens + block.leave(trained(block.enter(tokens), valid))
    return neck


def batch_of(data: dict, places: list[int]) -> tuple[list[Tensor], Tensor]:
    maps = [torch.cat([data['maps'][place][level] for place in places]).float() for level in range(len(WIDTHS))]
    return maps, torch.stack([data['labels'][place] for place in places])


def clips(names: list[str], frames: int) -> list[list[int]]:
    """Places of neighbours of one video."""
    return [list(range(first, first + frames)) for first in range(len(names) - frames + 1)
            if len({name.split('_')[0] for name in names[first:first + frames]}) == 1]


def train(arm: str, seed: int, data: dict, steps: int, frames: int) -> tuple[Head, float]:
    torch.manual_seed(seed)
    head, random = Head(part_of(arm, frames)), np.random.default_rng(seed)
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    whole, start = clips(data['names'], frames), time.process_time()
    for _ in range(steps):
        chosen = [place for pick in random.integers(0, len(whole), 8 // frames) for place in whole[pick]]
        maps, labels = batch_of(data, chosen)
        logits = F.interpolate(head(maps), (SIZE[0] // 2, SIZE[1] // 2), mode='bilinear')
        optimizer.zero_grad()
        F.cross_entropy(logits, labels[:, ::2, ::2], ignore_index=11).backward()
        optimizer.step()
        schedule.step()
    return head.eval(), time.process_time() - start


@torch.no_grad()
def evaluate(head: Head, data: dict, frames: int) -> dict[str, float]:
    counts, predictions, first = [torch.zeros(CLASSES, dtype=torch.long)] * 2, [], 0
    names = data['names']
    while first < len(names):  # clip after clip, none over the end of a video
        last = first + 1
        while last < min(first + frames, len(names)) and names[last].split('_')[0] == names[first].split('_')[0]:
            last += 1
        maps, labels = batch_of(data, list(range(first, last)))
        found = F.interpolate(head(maps), SIZE, mode='bilinear').argmax(1)
        for predicted, truth in zip(found, labels):
            both, union, _ = label_counts(predicted, truth, CLASSES)
            counts = [counts[0] + both, counts[1] + union]
            predictions.append(predicted)
        first = last
    iou = counts[0][counts[1] > 0] / counts[1][counts[1] > 0]
    return dict(mIoU=round(100 * float(iou.mean()), 2), steadiness=round(steadiness(predictions, data), 2))


def steadiness(predictions: list[Tensor], data: dict) -> float:
    """Mean IoU in percent of a prediction with its predecessor's, moved by optical flow; higher flickers less."""
    scores = []
    rows, columns = np.mgrid[:SIZE[0], :SIZE[1]].astype(np.float32)
    for before, after in clips(data['names'], 2):
        flow = cv2.calcOpticalFlowFarneback(data['pictures'][after], data['pictures'][before], None, 0.5, 4, 21, 3, 7,
                                            1.5, 0)
        moved = cv2.remap(predictions[before].numpy().astype(np.uint8), columns + flow[..., 0], rows + flow[..., 1],
                          cv2.INTER_NEAREST, borderValue=255)
        both, union, _ = label_counts(predictions[after], torch.from_numpy(moved), CLASSES)
        scores.append(float((both[union > 0] / union[union > 0]).mean()))
    return 100 * statistics.mean(scores)


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    arms = ['none', 'frozen MiniLM', 'frozen random', 'trained'] if args.study == 'llm' else ['single frames', 'clips']
    frames = 4 if args.study == 'time' else 1
    data = {split: read(args.data_root, split) for split in ('train', 'val')}
    runs = []
    for seed in args.seeds:
        for arm in arms:
            head, seconds = train(arm, seed, data['train'], args.steps, frames)
            trained = sum(value.numel() for value in head.parameters() if value.requires_grad)
            runs.append(dict(arm=arm, seed=seed, train_seconds=round(seconds, 1), trained=trained,
                             **evaluate(head, data['val'], frames)))
            print(runs[-1], flush=True)
            stored = json.loads(args.out.read_text()) if args.out.is_file() else {}
            stored[args.study] = dict(machine=describe_machine(), steps=args.steps, runs=runs)
            write_whole(args.out, json.dumps(stored, indent=1) + '\n')
    for arm in arms:
        for key in ('mIoU', 'steadiness'):
            values = [run[key] for run in runs if run['arm'] == arm]
            print(f'{arm:15} {key:10} {statistics.mean(values):.2f} +- {statistics.pstdev(values):.2f}')


if __name__ == '__main__':
    main()
