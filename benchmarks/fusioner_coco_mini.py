"""Does Fusioner read the names? Unseen classes of coco_mini (COCO-20i fold 0) with right and with permuted names.

    python benchmarks/fusioner_coco_mini.py                     # all seeds and arms, then the table
    python benchmarks/fusioner_coco_mini.py --recipe paper --seeds 0
    python benchmarks/fusioner_coco_mini.py --report            # the table of the runs that are there

Two arms are trained per seed: `true` with the classes' own names, `permuted` with the seen names exchanged without
fixed point. The first is tested with its own names and, as a control, with those of the unseen classes exchanged
without fixed point; the second with the true names. Two tests: `single` asks for one class that the image shows (the
paper's), `together` for all that it shows and two that it does not, in one pass (`joint`) and with a pass for each name
(`per_class`).
Recipes: `config` is the config; `paper` leaves out the cosine in the shared space and the Dice term, which the paper
does not have; `decoder` has the official decoder (at the same width) in place of the light one.
Every run is stored when it ends and is not repeated. Features are cached on disk.
"""
from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from frozenmm.compat.files import write_whole  # noqa: E402
from frozenmm.datasets.few_shot import fold_table, unseen_classes  # noqa: E402
from frozenmm.engine.launch import build_runner, load_config, run_training  # noqa: E402

CONFIG = ROOT / 'configs' / 'fusioner' / 'fusioner_lite0_minilm_coco-mini-fold0.py'
ARMS = ('true', 'permuted')
RECIPES: dict[str, dict] = {
    'config': {},
    'paper': {'model.decode_head.shared_map': None, 'model.decode_head.loss_decode.dice_weight': 0.0},
    'decoder': {'model.decode_head.decoder.type': 'frozenmm.FusionerDecoder'},
}
TESTS = {'single': ('joint', 1, 0), 'together': ('joint', None, 2), 'together, per class': ('per_class', None, 2)}


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--arms', nargs='+', default=list(ARMS), choices=ARMS, help='train these only')
    parser.add_argument('--recipe', default='config', choices=list(RECIPES))
    parser.add_argument('--permutations', type=int, default=5)
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'coco_mini')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'benchmark_fusioner_coco_mini')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'fusioner_coco_mini.json')
    parser.add_argument('--report', action='store_true', help='train nothing')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args(arguments)


def exchanged(names: list[str], places: list[int], seed: int) -> list[str]:
    """The names with those at the given places (from 1) exchanged so that none keeps its own."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(places))
        if all(order != np.arange(len(places))):
            break
    result = list(names)
    for place, source in zip(places, order):
        result[place - 1] = names[places[source] - 1]
    return result


def config_of(arm: str, seed: int, args: argparse.Namespace) -> Config:
    cfg = load_config(CONFIG, args.cfg_options, work_dir=args.work_dir / f'{args.recipe}-{arm}-seed{seed}')
    cfg.merge_from_dict(RECIPES[args.recipe])
    cfg.model.backbone.model.folder = str(args.work_dir / 'features')
    cfg.randomness = dict(seed=seed)
    names, unseen = fold_table('coco20i')['names'], unseen_classes('coco20i', 0)
    for split, loader in ('train', cfg.train_dataloader), ('val', cfg.val_dataloader):
        loader.dataset.data_root = str(args.data_root.absolute())
        loader.dataset.data_prefix.seg_map_path = str((args.work_dir / f'semantic_{split}').absolute())
    seen = [number for number in range(1, 81) if number not in unseen]
    cfg.train_dataloader.dataset.classes = names if arm == 'true' else exchanged(names, seen, 1000 + seed)
    cfg.train_cfg.val_interval = 10**9  # tested here
    cfg.default_hooks.checkpoint.interval = 10**9
    cfg.visualizer.vis_backends = []
    return cfg


def measure(model: torch.nn.Module, cfg: Config, vocabularies: list[list[str]], test: str) -> list[dict[str, float]]:
    """Scores of a test with each of several vocabularies, from one pass over the data."""
    mode, count, negatives = TESTS[test]
    settings = copy.deepcopy(cfg.val_dataloader)
    settings.dataset.update(classes_per_episode=count, negatives=negatives)
    loader = Runner.build_dataloader(settings)
    evaluators = [Evaluator(copy.deepcopy(cfg.val_evaluator)) for _ in vocabularies]
    trained_mode, model.decode_head.mode = model.decode_head.mode, mode
    model.eval()
    with torch.no_grad():
        for data in loader:
            for names, evaluator in zip(vocabularies, evaluators):
                for sample in data['data_samples']:
                    sample.set_metainfo(dict(class_names=[names[number - 1] for number in sample.class_ids]))
                evaluator.process(model.test_step(data), data)
    model.decode_head.mode = trained_mode
    return [evaluator.evaluate(len(loader.dataset)) for evaluator in evaluators]


def run(arm: str, seed: int, args: argparse.Namespace) -> dict:
    path = args.work_dir / f'{args.recipe}-{arm}-seed{seed}.json'
    if path.is_file():
        return json.loads(path.read_text())
    print(f'recipe {args.recipe}, {arm} names, seed {seed}', flush=True)
    cfg = config_of(arm, seed, args)
    start = time.perf_counter()
    runner = build_runner(cfg)
    run_training(runner)
    seconds = time.perf_counter() - start
    names, unseen = fold_table('coco20i')['names'], unseen_classes('coco20i', 0)
    result: dict = dict(recipe=args.recipe, arm=arm, seed=seed, commit=revision(),
                        train_seconds=seconds, iterations=runner.iter, tests={}, permuted={})
    for test in TESTS:
        controls = range(args.permutations if arm == 'true' else 0)
        own, *others = measure(runner.model, cfg, [names, *(exchanged(names, unseen, number) for number in controls)],
                               test)
        result['tests'][test] = own
        if others:
            result['permuted'][test] = others
    result['test_seconds'] = time.perf_counter() - start - seconds
    write_whole(path, json.dumps(result, indent=1).encode())
    return result


def report(results: list[dict], args: argparse.Namespace) -> str:
    def spread(values: list[float]) -> str:
        return f'{statistics.mean(values):5.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:3.1f}'

    lines = ['unseen-class mIoU in percent, mean and standard deviation over seeds',
             f'{"recipe":10}{"test":22}{"seeds":>6}{"true names":>14}{"names exchanged":>17}{"trained exchanged":>19}'
             f'{"seen classes":>14}']
    for recipe in RECIPES:
        own_runs, other_runs = ([result for result in results if (result['recipe'], result['arm']) == (recipe, arm)]
                                for arm in ARMS)
        for test in TESTS if own_runs else ():
            own = [result['tests'][test]['unseen/mIoU'] for result in own_runs]
            control = [statistics.mean(row['unseen/mIoU'] for row in result['permuted'][test]) for result in own_runs]
            other = [result['tests'][test]['unseen/mIoU'] for result in other_runs]
            seen = [result['tests'][test]['seen/mIoU'] for result in own_runs]
            lines.append(f'{recipe:10}{test:22}{len(own):6}{spread(own):>14}{spread(control):>17}'
                         f'{spread(other) if other else "-":>19}{spread(seen):>14}')
    slowest = max(result["train_seconds"] + result["test_seconds"] for result in results)
    lines.append(f'a run, training and tests: {slowest:.0f} s at most')
    write_whole(args.out, json.dumps(dict(machine=platform.processor() or platform.machine(), cores=os.cpu_count(),
                                          torch=torch.__version__, runs=results), indent=1).encode())
    return '\n'.join(lines)


def revision() -> str:
    """The commit that is checked out."""
    return subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def main(arguments: list[str] | None = None) -> str:
    args = parse_args(arguments)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds if not args.report else ():
        for arm in args.arms:
            run(arm, seed, args)
    results = [json.loads(path.read_text()) for path in args.work_dir.glob('*-seed*.json')]
    results.sort(key=lambda result: (list(RECIPES).index(result['recipe']), result['seed'], ARMS.index(result['arm'])))
    if not results:
        raise SystemExit(f'no finished runs in {args.work_dir}; run without --report')
    text = report(results, args)
    print(text)
    return text


if __name__ == '__main__':
    main()
