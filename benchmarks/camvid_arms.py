"""Four ways to label CamVid after equal work of one thread: three heads on one frozen network, and one from scratch.

    OMP_NUM_THREADS=1 python benchmarks/camvid_arms.py --data-root path/to/camvid --seeds 0 --arms plain_mask fcn
    python benchmarks/camvid_arms.py --report       # the table of the runs there are

Work is processor time of the training process. The frozen features are computed once for all heads, before the first
run; the time that this takes is off the budget of every run that uses them. The learning rate of a run ends with it.
"""
from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from machine import ROOT, describe_machine

sys.path.insert(0, str(ROOT))

from frozenmm.compat.files import write_whole
from frozenmm.engine import time_budget
from frozenmm.engine.cache_filling import build_cached_model, fill_caches
from frozenmm.engine.launch import load_config, train

ARMS = dict(plain_mask='plain_mask/plain_mask_lite0_camvid.py', fcn='generic/fcn_frozen-lite0_camvid.py',
            uper='generic/upernet_frozen-lite0_camvid.py', scratch='generic/fast-scnn_scratch_camvid.py')
PUBLISHED = dict(note='fine-tuned or trained whole, on the 233 test pictures, as commonly tabulated', mIoU={
    'ENet': 51.3, 'SegNet': '46.4 to 60.1', 'Dilation8': 65.3, 'FC-DenseNet103': 66.9})


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', default='data/camvid')
    parser.add_argument('--minutes', type=float, default=10, help='processor time of every run')
    parser.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--report', action='store_true', help='train nothing')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'benchmark_camvid')
    parser.add_argument('--out', default=str(ROOT / 'benchmarks' / 'results' / 'camvid_arms.json'))
    return parser.parse_args()


def options(arm: str, args: argparse.Namespace) -> list[str]:
    place = 'model.model.tower' if arm == 'plain_mask' else 'model.backbone.tower'
    folder = [] if arm == 'scratch' else [f'{place}.folder={args.work_dir / "cache"}']
    return [*folder, *(f'{split}_dataloader.dataset.data_root={args.data_root}' for split in ('train', 'val'))]


def features(arms: list[str], args: argparse.Namespace) -> float:
    """Processor seconds for the features of the training pictures, computed for the first arm that needs them.

    Padded pictures count as others where the network is told what is padding, so an arm may add some; it is charged the
    same.
    """
    note = args.work_dir / 'features.json'
    for arm in arms:
        cfg = load_config(ROOT / 'configs' / ARMS[arm], options(arm, args), work_dir=args.work_dir / 'filling')
        model, start = build_cached_model(cfg), time.process_time()
        done = fill_caches(cfg, model, ('train', ))
        seconds = time.process_time() - start
        if not note.is_file():
            note.write_text(json.dumps(dict(done, cpu_seconds=round(seconds, 1))))
    return float(json.loads(note.read_text())['cpu_seconds'])


def run(arm: str, seed: int, spent: float, args: argparse.Namespace) -> None:
    """Train and validate; the result lies beside the run's logs and is not made again."""
    folder = args.work_dir / f'{arm}-seed{seed}'
    if (folder / 'run.json').is_file():
        return
    budget = args.minutes - spent / 60
    cfg = load_config(ROOT / 'configs' / ARMS[arm], [
        *options(arm, args), f'randomness.seed={seed}', 'custom_hooks.1.iterations=None',
        f'+custom_hooks.1.minutes={budget}'], work_dir=folder)
    time_budget.time = SimpleNamespace(perf_counter=time.process_time)  # the budget counts processor time
    start = time.process_time()
    runner = train(cfg, overwrite=True)
    trained = sum(value.numel() for value in runner.model.parameters() if value.requires_grad)
    miou = float(runner.message_hub.get_scalar('val/mIoU').current())
    (folder / 'run.json').write_text(json.dumps(dict(
        arm=arm, seed=seed, mIoU=round(miou, 2), iterations=runner.iter, trained=trained,
        training_cpu_seconds=round(60 * budget), features_cpu_seconds=round(spent),
        with_validation_cpu_seconds=round(time.process_time() - start))))


def table(args: argparse.Namespace) -> dict:
    """All runs that are there, and mean and deviation of every arm."""
    runs = [json.loads(path.read_text()) for path in sorted(args.work_dir.glob('*/run.json'))]
    rows = []
    for arm in ARMS:
        values = [entry['mIoU'] for entry in runs if entry['arm'] == arm]
        if values:
            rows.append(dict(arm=arm, seeds=len(values), mIoU=round(statistics.mean(values), 2),
                             deviation=round(statistics.stdev(values), 2) if len(values) > 1 else None))
    return dict(machine=describe_machine(), minutes=args.minutes, rows=rows, runs=runs, published=PUBLISHED)


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    if not args.report:
        cached = [arm for arm in args.arms if arm != 'scratch']
        spent = features(cached, args) if cached else 0.0
        for seed in args.seeds:
            for arm in args.arms:
                run(arm, seed, 0.0 if arm == 'scratch' else spent, args)
                write_whole(args.out, json.dumps(table(args), indent=1) + '\n')
    found = table(args)
    for row in found['rows']:
        print(f'{row["arm"]:<12}{row["seeds"]} seeds, mIoU {row["mIoU"]:.2f}, deviation {row["deviation"]}')
    write_whole(args.out, json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
    main()
