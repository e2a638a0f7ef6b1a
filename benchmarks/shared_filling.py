"""Filling one feature cache from several processes of which some are killed; what 16 and 8 bits lose; random reading.

    OMP_NUM_THREADS=1 python benchmarks/shared_filling.py --images 100000 --kills 20 --pictures path/to/pictures

Pictures of 32 x 32 pixels are made from their number, and EfficientNet-Lite0 at random looks at them. Two processes
share the units; at moments spread over the job one of them gets SIGKILL and another one starts. Every computed
picture is counted when it is computed, so what is computed twice shows. Scaling compares one and two processes on the
first part of the job, in wall time. The losses are those of ImageNet's weights on real pictures.
"""
from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from machine import ROOT, describe_machine
from torch import Tensor

sys.path.insert(0, str(ROOT))

import frozenmm  # noqa: F401  (fills the holes of the installation)
from frozenmm.compat.files import write_whole
from frozenmm.foundation.feature_cache import CachedTower, verify_cache
from frozenmm.foundation.feature_cache.shards import from_tensors, num_bytes, to_tensors
from frozenmm.foundation.feature_cache.work import SharedWork
from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower

SIDE, BATCH, UNIT = 32, 64, 256
FORK = multiprocessing.get_context('fork')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=100_000)
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--scaling-images', type=int, default=8_192)
    parser.add_argument('--pictures', type=Path, help='folder of pictures for the losses; without it they are left out')
    parser.add_argument('--out', default=str(ROOT / 'benchmarks' / 'results' / 'shared_filling.json'))
    return parser.parse_args()


def tower_in(folder: Path, mode: str = 'fill') -> CachedTower:
    inner = EfficientNetLiteTower(weights='random', resize_mode='none', out_maps=['res3', 'res4', 'res5'])
    return CachedTower(inner, folder, store='bf16', mode=mode)


def pictures(numbers: Sequence[int]) -> Tensor:
    return torch.stack([torch.randint(0, 256, (3, SIDE, SIDE), generator=torch.Generator().manual_seed(number))
                        for number in numbers]).float()


def worker(folder: Path, images: int) -> None:
    """Fill until all units are done, by whomever; a line for every computed batch."""
    tower = tower_in(folder / 'cache')
    work = SharedWork(folder / 'cache' / 'work')
    log = os.open(folder / f'computed-{os.getpid()}', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for unit in work.units('pictures', images, UNIT):
        for start in range(unit.start, unit.stop, BATCH):
            before = tower.misses
            tower(pictures(range(start, min(start + BATCH, unit.stop))))
            os.write(log, f'{tower.misses - before}\n'.encode())
        tower.cache.flush()
    tower.cache.close()
    os._exit(0)  # a forked process has nothing of its parent's to tidy up


def launch(folder: Path, images: int) -> multiprocessing.Process:
    process = FORK.Process(target=worker, args=(folder, images))
    process.start()
    return process


def fill(folder: Path, images: int, processes: int, kills: int = 0) -> dict[str, float]:
    """Seconds and counts of a job in which processes are killed at even steps of its progress."""
    start, work, killed, chance = time.perf_counter(), child_seconds(), 0, random.Random(0)
    folder.mkdir()
    workers = [launch(folder, images) for _ in range(processes)]
    while any(process.is_alive() for process in workers):
        time.sleep(0.05)
        if killed < kills and computed(folder) > images * (killed + 1) / (kills + 2):
            victim = chance.randrange(processes)
            os.kill(workers[victim].pid, signal.SIGKILL)
            workers[victim].join()
            workers[victim] = launch(folder, images)
            killed += 1
    seconds = time.perf_counter() - start
    work = child_seconds() - work
    bad = sum(process.exitcode != 0 for process in workers)
    return dict(images=images, processes=processes, killed=killed, failed=bad, seconds=round(seconds, 1),
                images_per_second=round(images / seconds, 1), images_per_cpu_second=round(images / work, 1),
                computed_twice=computed(folder) - images)


def child_seconds() -> float:
    """Processor seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def computed(folder: Path) -> int:
    return sum(int(line) for path in folder.glob('computed-*') for line in path.read_text().splitlines())


def check(folder: Path, images: int, sample: int = 5_000) -> dict[str, object]:
    """Whether every picture is there and no byte is wrong, and pictures read a second in random order."""
    tower = tower_in(folder / 'cache', 'read')
    cache = tower.cache
    numbers = random.Random(1).sample(range(images), min(sample, images))
    keys = [tower.keys(pictures([number]), [(SIDE, SIDE)], None, 0)[0] for number in numbers]
    start = time.perf_counter()
    missing = sum(cache.get(key) is None for key in keys)
    seconds = time.perf_counter() - start
    return dict(entries=len(cache), shards=len(cache.shards), megabytes=round(cache.size / 1e6, 1),
                missing_of_sample=missing, damaged=len(verify_cache(cache)),
                random_reads_per_second=round(len(keys) / seconds))


def losses(folder: Path, count: int = 16) -> list[dict[str, object]]:
    """Root mean square error of every map, relative to the map's own, in percent, and bytes for an exact byte."""
    tower = EfficientNetLiteTower(resize_mode='none', out_maps=['res2', 'res3', 'res4', 'res5'])
    rows: list[dict[str, object]] = []
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in sorted(folder.iterdir())[:count]]
    found = [tower(torch.from_numpy(image).permute(2, 0, 1)[None].float()) for image in images]
    for store in 'bf16', 'fp16', 'int8':
        stored = [to_tensors(features, store) for features in found]
        row: dict[str, object] = dict(store=store, share_of_bytes=round(
            sum(map(num_bytes, stored)) / sum(num_bytes(to_tensors(features, 'fp32')) for features in found), 3))
        for name in tower.channels:
            exact = torch.cat([features.maps[name].flatten() for features in found])
            rounded = torch.cat([from_tensors(entry, tower.channels).maps[name].flatten() for entry in stored])
            row[name] = round(float(100 * (rounded - exact).pow(2).mean().sqrt() / exact.pow(2).mean().sqrt()), 3)
        rows.append(row)
    return rows


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    result: dict[str, object] = dict(machine=describe_machine(), side=SIDE, unit=UNIT)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        result['scaling'] = [fill(folder / f'scaling-{count}', args.scaling_images, count) for count in (1, 2)]
        print(result['scaling'], flush=True)
        result['killed'] = fill(folder / 'killed', args.images, 2, args.kills)
        result['check'] = check(folder / 'killed', args.images)
    if args.pictures:
        result['loss_percent'] = losses(args.pictures)
    print(json.dumps(result, indent=1))
    write_whole(args.out, json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
