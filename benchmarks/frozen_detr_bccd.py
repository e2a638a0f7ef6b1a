"""Blood cells: a small DINO from scratch, enhanced, and on a frozen backbone alone, after equal work of one thread.

    python benchmarks/frozen_detr_bccd.py --data-root path/to/bccd                  # all rows and seeds, then the table
    python benchmarks/frozen_detr_bccd.py --data-root path/to/bccd --only frozen 0  # one run: row and seed
    python benchmarks/frozen_detr_bccd.py --report                                  # the table of the runs there are

Work is processor time of the training process, so that runs on a machine that does other things too are comparable;
what a row computes once (features of its frozen network) counts. Each run is tested with the non-maximum suppression of
its config and without.
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
from frozenmm.engine.launch import load_config, train

ROWS = ('scratch', 'enhanced', 'frozen')
MEASURES = ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75', 'bbox_mAP_s', 'bbox_mAP_m', 'bbox_mAP_l')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', help='the folder with BCCD in VOC or COCO layout')
    parser.add_argument('--minutes', type=float, default=6, help='processor time of every run')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--only', nargs=2, metavar=('ROW', 'SEED'), help='make this run and nothing else')
    parser.add_argument('--report', action='store_true', help='train nothing')
    parser.add_argument('--work-dir', default=str(ROOT / 'work_dirs' / 'benchmark_bccd'))
    parser.add_argument('--out', default=str(ROOT / 'benchmarks' / 'results' / 'frozen_detr_bccd.json'))
    return parser.parse_args()


def run(row: str, seed: int, args: argparse.Namespace) -> None:
    """Train and test; the result lies beside the run's logs and is not made again."""
    folder = Path(args.work_dir, f'{row}-seed{seed}')
    if (folder / 'run.json').is_file():
        return
    torch.set_num_threads(1)
    cfg = load_config(ROOT / 'configs' / 'bccd' / f'dino_{row}_bccd.py', [
        f'data_root={args.data_root}', f'randomness.seed={seed}', 'custom_hooks.1.iterations=None',
        f'+custom_hooks.1.minutes={args.minutes}'], work_dir=folder)
    # the budget counts processor time
    time_budget.time = SimpleNamespace(perf_counter=time.process_time)
    runner = train(cfg, overwrite=True)
    result = dict(row=row, seed=seed, minutes=args.minutes, iterations=runner.iter, with_nms=measured(runner))
    runner.model.bbox_head.test_cfg.pop('nms')
    result['without_nms'] = measured(runner)
    (folder / 'run.json').write_text(json.dumps(result))


def measured(runner: object) -> dict[str, float]:
    """COCO's measures of the model as it is, in percent, and the seconds of processor time for a picture."""
    start = time.process_time()
    found = runner.val_loop.run()
    seconds = (time.process_time() - start) / len(runner.val_loop.dataloader.dataset)
    return {key: round(100 * found[f'coco/{key}'], 1) for key in MEASURES} | {'seconds_per_picture': round(seconds, 3)}


def table(args: argparse.Namespace) -> dict:
    """All runs that are there, and the mean and deviation of every row."""
    runs = [json.loads(path.read_text()) for path in sorted(Path(args.work_dir).glob('*/run.json'))]
    rows = []
    for row in ROWS:
        chosen = [entry for entry in runs if entry['row'] == row]
        if chosen:
            rows.append(dict(row=row, seeds=len(chosen), iterations=statistics.mean(e['iterations'] for e in chosen)))
            for kind in 'with_nms', 'without_nms':
                for key in 'bbox_mAP', 'bbox_mAP_50':
                    values = [entry[kind][key] for entry in chosen]
                    rows[-1][f'{kind}_{key}'] = round(statistics.mean(values), 2)
                    rows[-1][f'{kind}_{key}_sd'] = round(statistics.stdev(values), 2) if len(values) > 1 else None
    return dict(machine=describe_machine(), rows=rows, runs=runs)


def main() -> None:
    args = parse_args()
    if args.only:
        run(args.only[0], int(args.only[1]), args)
        return
    if not args.report:
        for seed in args.seeds:
            for row in ROWS:
                run(row, seed, args)
    found = table(args)
    print(f'{"row":<10}{"seeds":>6}{"iterations":>12}{"AP":>8}{"AP50":>8}{"AP, no NMS":>12}{"AP50, no NMS":>14}')
    for row in found['rows']:
        print(f'{row["row"]:<10}{row["seeds"]:>6}{row["iterations"]:>12.0f}{row["with_nms_bbox_mAP"]:>8.1f}'
              f'{row["with_nms_bbox_mAP_50"]:>8.1f}{row["without_nms_bbox_mAP"]:>12.1f}'
              f'{row["without_nms_bbox_mAP_50"]:>14.1f}')
    write_whole(args.out, json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
    main()
