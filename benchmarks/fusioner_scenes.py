"""Fusioner on generated scenes and on Mosaic-4 of them: seen and unseen classes, beside a linear head.

    python benchmarks/fusioner_scenes.py            # all seeds and both heads, then the table
    python benchmarks/fusioner_scenes.py --report   # the table of the runs that are there

Both heads are trained on the same scenes with six of eight class names and see the same frozen features, the map in the
space of the names included; `linear` has neither fusion nor convolution. Tests: `scenes` asks for one class that the
image shows; `mosaic` for the four classes of a mosaic, in one pass. Beside them stand what an answer scores that looks
at no image (`blind`), what the frozen pair says without the head, with the two numbers that it learned (`pair`), and,
as a control, the two unseen classes with each other's name.
Scenes and mosaics are painted below the working folder. Every run is stored when it ends and is not repeated.
"""
from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from fusioner_episodes import LINEAR, blind, data_below, exchanged, measure, spread, table, train  # noqa: E402
from machine import describe_machine  # noqa: E402

from frozenmm.compat.files import write_whole  # noqa: E402
from frozenmm.demo.scenes import CLASSES  # noqa: E402
from frozenmm.engine.launch import load_config  # noqa: E402

CONFIGS = {'scenes': 'fusioner_lite0_minilm_scenes.py', 'mosaic': 'fusioner_lite0_minilm_scenes-mosaic4.py'}
HEADS: dict[str, dict] = {'fusioner': {}, 'linear': LINEAR}


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--heads', nargs='+', default=list(HEADS), choices=list(HEADS), help='train these only')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'benchmark_fusioner_scenes')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'fusioner_scenes.json')
    parser.add_argument('--report', action='store_true', help='train nothing')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args(arguments)


def config_of(test: str, head: str, seed: int, args: argparse.Namespace) -> Config:
    cfg = load_config(ROOT / 'configs' / 'fusioner' / CONFIGS[test], args.cfg_options,
                      work_dir=args.work_dir / f'{head}-seed{seed}')
    cfg.merge_from_dict(HEADS[head])
    data_below(cfg.model, args.work_dir / 'features')
    cfg.randomness = dict(seed=seed)
    scenes = str((args.work_dir / 'scenes').absolute())
    for dataset in cfg.train_dataloader.dataset, cfg.val_dataloader.dataset:
        if 'source' in dataset:
            dataset.data_root = str((args.work_dir / 'mosaics').absolute())
            dataset = dataset.source
        dataset.data_root = scenes
    return cfg


def run(head: str, seed: int, args: argparse.Namespace) -> None:
    path = args.work_dir / f'{head}-seed{seed}.json'
    if path.is_file():
        return
    print(f'{head} head, seed {seed}', flush=True)
    configs = {test: config_of(test, head, seed, args) for test in CONFIGS}
    model, seconds = train(configs['scenes'])
    start = time.perf_counter()
    parameters = sum(value.numel() for value in model.parameters() if value.requires_grad)
    result: dict = dict(head=head, seed=seed, machine=describe_machine(), parameters=parameters, train_seconds=seconds,
                        tests={}, exchanged={}, pair={}, blind={})
    for test, cfg in configs.items():
        unseen = list(cfg.val_evaluator.unseen)
        result['tests'][test], result['exchanged'][test] = measure(model, cfg,
                                                                   [CLASSES, exchanged(CLASSES, unseen, 0)])
        (result['pair'][test], ) = measure(model, cfg, [CLASSES], fusion=False)
        result['blind'][test] = blind(cfg)
    result['test_seconds'] = time.perf_counter() - start
    write_whole(path, json.dumps(result, indent=1))


def report(results: list[dict], args: argparse.Namespace) -> str:
    rows = []
    for test in CONFIGS:
        for head in HEADS:
            runs = [run for run in results if run['head'] == head]
            columns = [[run[kind][test][f'{part}/mIoU'] for run in runs]
                       for part, kind in (('unseen', 'tests'), ('unseen', 'exchanged'), ('unseen', 'pair'),
                                          ('seen', 'tests'), ('seen', 'pair'))]
            if runs:
                guess = runs[0]['blind'][test]
                texts = [spread(column) for column in columns]
                rows.append([test, head, str(len(runs)), *texts[:3], f'{guess["unseen/mIoU"]:.1f}', *texts[3:],
                             f'{guess["seen/mIoU"]:.1f}'])
    write_whole(args.out, json.dumps(dict(machine=describe_machine(), runs=results), indent=1) + '\n')
    slowest = max(run['train_seconds'] + run['test_seconds'] for run in results)
    return '\n'.join([
        'mIoU in percent, mean and standard deviation over seeds: unseen classes, then seen ones',
        table(['test', 'head', 'seeds', 'unseen', 'names exchanged', 'pair', 'blind', 'seen', 'pair',
               'blind'], rows),
        f'a run, training and tests: {slowest:.0f} s at most'])


def main(arguments: list[str] | None = None) -> str:
    args = parse_args(arguments)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    for seed in () if args.report else args.seeds:
        for head in args.heads:
            run(head, seed, args)
    results = [json.loads(path.read_text()) for path in args.work_dir.glob('*-seed*.json')]
    results.sort(key=lambda run: (list(HEADS).index(run['head']), run['seed']))
    if not results:
        raise SystemExit(f'no finished runs in {args.work_dir}; run without --report')
    text = report(results, args)
    print(text)
    return text


if __name__ == '__main__':
    main()
