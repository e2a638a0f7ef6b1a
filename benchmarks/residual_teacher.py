"""Does a residual teacher keep the unseen classes? Fusioner on coco_mini folds: frozen, adapter, adapter with teacher.

    python benchmarks/residual_teacher.py                      # fold 0, seeds 0 to 2
    python benchmarks/residual_teacher.py --fold 1 --seeds 0
    python benchmarks/residual_teacher.py --report

`frozen` is the config of Fusioner itself; `adapter` puts a trained adapter on the map in the space of the names;
`taught` adds the teacher's loss. The test asks for one class that the image shows. Runs that are there stay.
"""
from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from fusioner_coco_mini import CONFIG, asking  # noqa: E402
from fusioner_episodes import data_below, measure, spread, table, train  # noqa: E402
from machine import describe_machine  # noqa: E402

from frozenmm.compat.files import write_whole  # noqa: E402
from frozenmm.datasets.few_shot import fold_table, unseen_classes  # noqa: E402
from frozenmm.engine.launch import load_config  # noqa: E402

TAUGHT = ROOT / 'configs' / 'further' / 'residual-teacher_fusioner_coco-mini-fold0.py'
ARMS = {'frozen': CONFIG, 'adapter': TAUGHT, 'taught': TAUGHT}


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--fold', type=int, default=0, choices=range(4))
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'coco_mini')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'benchmark_residual_teacher')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'residual_teacher.json')
    parser.add_argument('--report', action='store_true', help='train nothing')
    return parser.parse_args(arguments)


def config_of(arm: str, seed: int, args: argparse.Namespace) -> Config:
    cfg = load_config(ARMS[arm], [], work_dir=args.work_dir / f'{arm}-fold{args.fold}-seed{seed}')
    if arm == 'adapter':
        cfg.model.auxiliary_head.loss_weight = 0.0
    data_below(cfg.model, args.work_dir / 'features')
    cfg.randomness = dict(seed=seed)
    for split, loader in ('train', cfg.train_dataloader), ('val', cfg.val_dataloader):
        loader.dataset.data_root = str(args.data_root.absolute())
        loader.dataset.data_prefix.seg_map_path = str((args.work_dir / f'semantic_{split}').absolute())
        loader.dataset.fold = args.fold
    cfg.val_evaluator.unseen = unseen_classes('coco20i', args.fold)
    cfg.default_hooks.checkpoint.interval = 10**9
    return cfg


def run(arm: str, seed: int, args: argparse.Namespace) -> None:
    path = args.work_dir / f'{arm}-fold{args.fold}-seed{seed}.json'
    if path.is_file():
        return
    cfg = config_of(arm, seed, args)
    model, seconds = train(cfg)
    names = fold_table('coco20i')['names']
    found, = measure(model, asking(cfg, 'single'), [names], mode='joint', fusion=True)
    write_whole(path, json.dumps(dict(arm=arm, fold=args.fold, seed=seed, train_seconds=seconds,
                                      machine=describe_machine(), **found)))
    print(arm, seed, found, flush=True)


def main(arguments: list[str] | None = None) -> str:
    args = parse_args(arguments)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    for seed in () if args.report else args.seeds:
        for arm in ARMS:
            run(arm, seed, args)
    runs = [json.loads(path.read_text()) for path in sorted(args.work_dir.glob('*-seed*.json'))]
    rows = []
    for fold in sorted({entry['fold'] for entry in runs}):
        for arm in ARMS:
            group = [entry for entry in runs if (entry['fold'], entry['arm']) == (fold, arm)]
            if group:
                rows.append([f'{fold} {arm}', str(len(group)), *(
                    spread([entry[f'{part}/mIoU'] for entry in group]) for part in ('unseen', 'seen')),
                    f'{statistics.mean(entry["train_seconds"] for entry in group):.0f}'])
    text = table(['fold, arm', 'seeds', 'unseen mIoU', 'seen mIoU', 'seconds'], rows)
    write_whole(args.out, json.dumps(dict(machine=describe_machine(), runs=runs), indent=1) + '\n')
    print(text)
    return text


if __name__ == '__main__':
    main()
