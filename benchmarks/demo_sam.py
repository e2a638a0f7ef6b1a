"""The demonstration model that stands in for SAM: masks for points and boxes, and automatic masks, on unseen images.

    python benchmarks/demo_sam.py --data-root data/coco_mini [--draw FOLDER]

Two sets: generated scenes whose grounds, fillings and lights never occur in training, and the validation images of
coco_mini, of which training saw nothing. Per image 8 random points and 8 jittered boxes ask for annotated regions.
Automatic masks: the 100 of the highest predicted IoU from a grid of 16 x 16 points.
"""
from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from branch_comparison import machine, write_json  # noqa: E402

from frozenmm.compat.image_files import read_image_file  # noqa: E402
from frozenmm.datasets.panoptic_files import read_panoptic_file, read_panoptic_map  # noqa: E402
from frozenmm.demo.prompt_scenes import PromptScenes  # noqa: E402
from frozenmm.demo.sam.prompts import BOX, POINT, draw_prompts, mask_iou, region_masks  # noqa: E402
from frozenmm.demo.sam.tower import DemoSAMPrompter  # noqa: E402
from frozenmm.evaluation.average_recall import OVERLAPS, best_overlaps  # noqa: E402
from frozenmm.foundation.mask_prompters import MaskPrompter  # noqa: E402
from frozenmm.segmentation.frozen_seg.automatic_masks import AutomaticMasks  # noqa: E402

MASKS = dict(points_per_side=16, iou_threshold=0.0, stability_threshold=0.3, choice='best', count=100)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', help='file of the trained part; by default the shipped one')
    parser.add_argument('--images', type=int, default=60, help='per set')
    parser.add_argument('--size', type=int, default=256, help='side of the model\'s input in pixels')
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'coco_mini')
    parser.add_argument('--draw', type=Path, help='folder for pictures of the first six images of each set')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'demo_sam.json')
    return parser.parse_args(arguments)


def scenes(count: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Pictures (H, W, 3) and regions (H, W) of generated scenes."""
    data = PromptScenes('val', count, size=256)
    for index in range(count):
        item = data[index]
        yield item['inputs'].permute(1, 2, 0).numpy(), item['regions'].long()


def photographs(root: Path, count: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Pictures and annotated segments of coco_mini; void is no region that is asked for."""
    for image in read_panoptic_file(str(root / 'annotations/panoptic_val.json')).images[:count]:
        ids = read_panoptic_map(root / 'panoptic_val' / image.map_name).astype(np.int64)
        regions = np.searchsorted([segment.id for segment in sorted(image.segments, key=lambda one: one.id)], ids)
        yield read_image_file(root / 'images/val' / image.file_name), torch.from_numpy(np.where(ids == 0, 255, regions))


@torch.no_grad()
def measure(prompter: MaskPrompter, images: Iterator[tuple[np.ndarray, Tensor]], draw: Path | None) -> dict[str, float]:
    """IoU of prompted masks, and recall of automatic ones, in percent; seconds per image."""
    maker = AutomaticMasks(prompter, **MASKS)
    point_best, point_chosen, box, overlaps, counts, seconds = [], [], [], [], [], []
    for number, (picture, regions) in enumerate(images):
        shown, size = regions.clone(), (regions.shape[0], regions.shape[1])
        generator = torch.Generator().manual_seed(number)
        prompts = draw_prompts(shown, 16, shares=(0.5, 0.5, 0.0), generator=generator)
        features = prompter.embed(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float())
        pixels = prompts.points * torch.tensor([size[1], size[0]])
        targets = region_masks(regions, prompts, size)[:, None]
        wanted = prompts.regions != 255
        for kind, single in (POINT, False), (BOX, True):
            chosen = (prompts.kinds == kind) & wanted
            if chosen.any():
                logits, guess = prompter.ask(features, pixels[chosen], prompts.labels[chosen], single=single)
                found = mask_iou(prompter.over_image(logits, features, size) > 0, targets[chosen])
                if single:
                    box.append(found[:, 0])
                else:
                    point_best.append(found.amax(1))
                    point_chosen.append(found.gather(1, guess.argmax(1, keepdim=True))[:, 0])
        start = time.process_time()
        masks = maker(picture)
        seconds.append(time.process_time() - start)
        counts.append(len(masks.logits))
        segments = [value for value in regions.unique().tolist() if value != 255]
        overlaps.append(best_overlaps(regions, segments, masks.full() > 0))
        if draw is not None and number < 6:
            picture_of(picture, masks.full() > 0, draw / f'{number}.png')
    every = torch.cat(overlaps)
    recall = [100 * float((every >= overlap - 1e-9).double().mean()) for overlap in OVERLAPS]
    joined = {name: 100 * float(torch.cat(values).mean()) for name, values in
              (('point_best', point_best), ('point_chosen', point_chosen), ('box', box))}
    return {key: round(value, 2) for key, value in dict(
        **joined, AR=sum(recall) / len(recall), R50=recall[0], R75=recall[5], masks=float(np.mean(counts)),
        cpu_seconds=float(np.mean(seconds)), regions=float(len(every))).items()}


def picture_of(picture: np.ndarray, masks: Tensor, path: Path) -> None:
    """The picture beside its automatic masks, small ones over large ones."""
    canvas = picture.astype(np.float32)
    rng = np.random.default_rng(0)
    for mask in masks[masks.sum((1, 2)).argsort(descending=True)].numpy():
        canvas[mask] = 0.45 * canvas[mask] + 0.55 * rng.uniform(30, 255, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.hstack([picture, canvas.astype(np.uint8)])[..., ::-1])


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    args = parse_args(arguments)
    prompter = DemoSAMPrompter(args.weights, size=args.size)
    sets = {'scenes': scenes(args.images), 'coco_mini': photographs(args.data_root, args.images)}
    results = {name: measure(prompter, images, args.draw and args.draw / name) for name, images in sets.items()}
    write_json(args.out, dict(model=prompter.name, size=args.size, images=args.images, masks=MASKS, machine=machine(),
                              results=results))
    for name, row in results.items():
        print(f'{name:10}' + '  '.join(f'{key} {value:g}' for key, value in row.items()))
    return results


if __name__ == '__main__':
    main()
