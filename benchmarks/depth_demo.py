"""The demonstration depth network on test rooms and on real frames, beside a depth that knows nothing.

    python benchmarks/depth_demo.py --data DIR [--rooms 40] [--picture FILE.png] [--json FILE]

DIR holds rgbd_kitchen. AbsRel is the mean over images after alignment of each (one scale; scale and shift; lines fitted
locally to 100 measured pixels). The row `constant` predicts the same depth everywhere.
"""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch
from machine import describe_machine

from frozenmm.compat.files import write_whole
from frozenmm.datasets.rgbd import read_sequence
from frozenmm.demo.light_depth import LightDepth, shipped_file
from frozenmm.demo.rooms import RoomImages, paint_room
from frozenmm.evaluation.aligned_depth import AlignedDepthMetric
from frozenmm.evaluation.depth import align_depth

SHOWN = 4
Sample = tuple[np.ndarray, np.ndarray]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--data', type=Path, required=True, help='folder that holds rgbd_kitchen')
    parser.add_argument('--rooms', type=int, default=40, help='number of test rooms')
    parser.add_argument('--picture', type=Path, help='images, truth and aligned prediction, row by row')
    parser.add_argument('--json', type=Path, default=Path('benchmarks/results/depth_demo.json'))
    return parser.parse_args()


def rooms(count: int) -> Iterator[Sample]:
    """RGB images and depth of rooms that neither training nor its measurement saw."""
    for index in range(count):
        picture = paint_room('val', RoomImages().size, np.random.default_rng([1, index]))
        yield picture.image[..., ::-1].copy(), picture.depth


def kitchen(folder: Path) -> Iterator[Sample]:
    sequence = read_sequence(folder / 'rgbd_kitchen', 'folder')
    for index in range(len(sequence)):
        yield sequence.image(index), sequence.depth(index)


def strip(image: np.ndarray, truth: np.ndarray, found: torch.Tensor) -> np.ndarray:
    """Image, truth and aligned prediction side by side, BGR; one colour scale for both depths, black: unknown."""
    aligned = align_depth(found, torch.from_numpy(truth), method='lsq_scale_shift').numpy()
    low, high = np.percentile(truth[truth > 0], [1, 99])
    drawn = [cv2.applyColorMap(np.clip(255 * (depth - low) / (high - low), 0, 255).astype(np.uint8), cv2.COLORMAP_TURBO)
             for depth in (truth, aligned)]
    drawn[0][truth == 0] = 0
    return cv2.resize(np.concatenate((image[..., ::-1], *drawn), 1), (960, 240))


def main() -> None:
    args = parse_args()
    network, rows, strips = LightDepth(), {}, []
    for name, samples in (('test rooms', list(rooms(args.rooms))), ('rgbd_kitchen', list(kitchen(args.data)))):
        metrics = {key: AlignedDepthMetric(measures=['abs_rel', 'delta1']) for key in ('network', 'constant')}
        for index, (image, truth) in enumerate(samples):
            found = network.predict(torch.from_numpy(image).permute(2, 0, 1)[None]).values
            for key, values in (('network', found), ('constant', torch.ones_like(found))):
                metrics[key].process({}, [{'gt_depth_map': {'data': torch.from_numpy(truth)[None]},
                                           'pred_depth_map': {'data': values}}])
            if index % max(len(samples) // SHOWN, 1) == 0 and len(strips) < SHOWN * (1 + bool(rows)):
                strips.append(strip(image, truth, found[0]))
        rows[name] = {key: metric.compute_metrics(metric.results) for key, metric in metrics.items()}
        for key, row in rows[name].items():
            print(f'{name}, {key}: ' + ', '.join(f'{measure} {value:.3f}' for measure, value in row.items()))
    if args.picture:
        write_whole(args.picture, cv2.imencode('.png', np.concatenate(strips))[1].tobytes())
    write_whole(args.json, json.dumps({'file': shipped_file().name, 'rooms': args.rooms, 'rows': rows,
                                       'machine': describe_machine()}, indent=1))


if __name__ == '__main__':
    main()
