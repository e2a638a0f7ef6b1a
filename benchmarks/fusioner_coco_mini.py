"""Does Fusioner read the names? Unseen classes of coco_mini (COCO-20i) with right and with exchanged names.

    python benchmarks/fusioner_coco_mini.py                     # fold 0: all seeds and both arms, then the table
    python benchmarks/fusioner_coco_mini.py --recipe unjoined --seeds 0
    python benchmarks/fusioner_coco_mini.py --fold 1 --seeds 0
    python benchmarks/fusioner_coco_mini.py --costs             # multiplications and seconds of the two decoders
    python benchmarks/fusioner_coco_mini.py --report            # the table of the runs that are there

Two arms are trained per seed: `true` with the classes' own names, `exchanged` with the seen names exchanged without
fixed point. The first is tested with its own names and, as a control, with those of the unseen classes exchanged
without fixed point; the second with the true names. Beside them stands what an answer scores that looks at no image
(`blind`). Tests: `single` asks for one class that the image shows (the paper's), `together` for all that it shows and
two that it does not, in one pass (joint); `together, per class` with a pass for each name; `single, fusion off` leaves
the answer to the frozen pair, with the two numbers that it learned.
Recipes: `config` is the config; `unjoined` takes the pair as the paper does, without the map in the space of the names;
`linear` has neither fusion nor convolution; `official` the official decoder (at the same width) in place of the light
one; `per class` trains with a pass for each name.
Every run is stored when it ends and is not repeated. Features are cached on disk.
"""
from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from fusioner_episodes import LINEAR, blind, data_below, exchanged, measure, spread, table, train  # noqa: E402
from machine import describe_machine  # noqa: E402

from frozenmm.apis.model_sources import build_model  # noqa: E402
from frozenmm.compat.files import write_whole  # noqa: E402
from frozenmm.datasets.few_shot import fold_table, unseen_classes  # noqa: E402
from frozenmm.engine.launch import load_config  # noqa: E402

CONFIG = ROOT / 'configs' / 'fusioner' / 'fusioner_lite0_minilm_coco-mini-fold0.py'
ARMS = ('true', 'exchanged')
RECIPES: dict[str, dict] = {
    'config': {},
    'unjoined': {'model.decode_head.in_channels': [320], 'model.decode_head.masks.shared_map': None},
    'linear': LINEAR,
    'official': {'model.decode_head.decoder.type': 'frozenmm.FusionerDecoder'},
    'per class': {'model.decode_head.masks.mode': 'per_class'},
}
TESTS: dict[str, dict] = {
    'single': dict(mode='joint', fusion=True, asked=1, absent=0),
    'single, fusion off': dict(mode='joint', fusion=False, asked=1, absent=0),
    'together': dict(mode='joint', fusion=True, asked=None, absent=2),
    'together, per class': dict(mode='per_class', fusion=True, asked=None, absent=2),
}


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--arms', nargs='+', default=list(ARMS), choices=ARMS, help='train these only')
    parser.add_argument('--recipe', default='config', choices=list(RECIPES))
    parser.add_argument('--fold', type=int, default=0, choices=range(4))
    parser.add_argument('--permutations', type=int, default=5)
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'coco_mini')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'benchmark_fusioner_coco_mini')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'fusioner_coco_mini.json')
    parser.add_argument('--costs', action='store_true', help='train nothing; measure the decoders')
    parser.add_argument('--report', action='store_true', help='train nothing')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args(arguments)


def config_of(arm: str, seed: int, args: argparse.Namespace) -> Config:
    cfg = load_config(CONFIG, args.cfg_options, work_dir=args.work_dir / stem(arm, seed, args))
    cfg.merge_from_dict(RECIPES[args.recipe])
    data_below(cfg.model, args.work_dir / 'features')
    cfg.randomness = dict(seed=seed)
    names, unseen = fold_table('coco20i')['names'], unseen_classes('coco20i', args.fold)
    for split, loader in ('train', cfg.train_dataloader), ('val', cfg.val_dataloader):
        loader.dataset.data_root = str(args.data_root.absolute())
        loader.dataset.data_prefix.seg_map_path = str((args.work_dir / f'semantic_{split}').absolute())
        loader.dataset.fold = args.fold
    cfg.val_evaluator.unseen = unseen
    seen = [number for number in range(1, 81) if number not in unseen]
    cfg.train_dataloader.dataset.classes = names if arm == 'true' else exchanged(names, seen, 1000 + seed)
    cfg.default_hooks.checkpoint.interval = 10**9
    return cfg


def stem(arm: str, seed: int, args: argparse.Namespace) -> str:
    return f'{args.recipe.replace(" ", "-")}-{arm}-fold{args.fold}-seed{seed}'


def asking(cfg: Config, test: str) -> Config:
    """A copy of the config whose validation asks as a test says."""
    cfg = copy.deepcopy(cfg)
    cfg.val_dataloader.dataset.asking.update(classes_per_episode=TESTS[test]['asked'], negatives=TESTS[test]['absent'])
    return cfg


def run(arm: str, seed: int, args: argparse.Namespace) -> None:
    path = args.work_dir / f'{stem(arm, seed, args)}.json'
    if path.is_file():
        return
    print(f'recipe {args.recipe}, {arm} names, fold {args.fold}, seed {seed}', flush=True)
    cfg = config_of(arm, seed, args)
    model, seconds = train(cfg)
    start = time.perf_counter()
    names, unseen = fold_table('coco20i')['names'], unseen_classes('coco20i', args.fold)
    similarity = model.decode_head.network.similarity
    result: dict = dict(recipe=args.recipe, arm=arm, fold=args.fold, seed=seed, machine=describe_machine(),
                        train_seconds=seconds, iterations=cfg.train_cfg.max_iters, tests={}, exchanged={}, blind={})
    if similarity is not None:
        result.update(factor=similarity.factor_gain * float(similarity.factor.detach()),
                      offset=similarity.first_offset + similarity.offset_gain * float(similarity.offset.detach()))
    for test, how in TESTS.items():
        if similarity is None and not how['fusion']:
            continue
        controls = range(args.permutations if arm == 'true' else 0)
        own, *others = measure(model, asking(cfg, test), [names, *(exchanged(names, unseen, i) for i in controls)],
                               mode=how['mode'], fusion=how['fusion'])
        result['tests'][test] = own
        if others:
            result['exchanged'][test] = others
        result['blind'][test] = blind(asking(cfg, test))
    result['test_seconds'] = time.perf_counter() - start
    write_whole(path, json.dumps(result, indent=1))


def report(results: list[dict], costs: dict, args: argparse.Namespace) -> str:
    rows = []
    for fold, recipe in sorted({(run['fold'], run['recipe']) for run in results},
                               key=lambda pair: (pair[0], list(RECIPES).index(pair[1]))):
        group = [run for run in results if (run['fold'], run['recipe']) == (fold, recipe)]
        true, other = ([run for run in group if run['arm'] == arm] for arm in ARMS)
        for test in TESTS:
            if not any(test in run['tests'] for run in group):
                continue
            own, seen = ([run['tests'][test][f'{part}/mIoU'] for run in true] for part in ('unseen', 'seen'))
            controls = [statistics.mean(row['unseen/mIoU'] for row in run['exchanged'][test]) for run in true]
            trained = [run['tests'][test]['unseen/mIoU'] for run in other]
            rows.append([f'{fold} {recipe}', test, str(len(true)), spread(own), spread(controls), spread(trained),
                         f'{group[0]["blind"][test]["unseen/mIoU"]:.1f}', spread(seen),
                         f'{group[0]["blind"][test]["seen/mIoU"]:.1f}'])
    lines = ['mIoU of unseen classes in percent, mean and standard deviation over seeds; on the right of seen ones',
             table(['fold, recipe', 'test', 'seeds', 'true names', 'exchanged at test', 'trained exchanged', 'blind',
                    'seen', 'blind'], rows)]
    if results:
        slowest = max(run['train_seconds'] + run['test_seconds'] for run in results)
        lines.append(f'a run, training and tests: {slowest:.0f} s at most')
    lines += [f'decoder of recipe {recipe!r}: {cost["parameters"] / 1e6:.2f} M parameters, {cost["gflop"]:.2f} GFLOP '
              f'an image (head, forward), {cost["step_seconds"]:.3f} s per training step of {cost["batch"]}'
              for recipe, cost in costs.items()]
    write_whole(args.out, json.dumps(dict(machine=describe_machine(), costs=costs, runs=results), indent=1) + '\n')
    return '\n'.join(lines)


def measure_costs(args: argparse.Namespace, *, batch: int = 8, steps: int = 10) -> dict:
    """Size, multiply-adds (two FLOP each) and seconds of the head with either decoder, features being at hand."""
    costs, heads = {}, {}
    for recipe in 'config', 'official':
        cfg = config_of('true', 0, argparse.Namespace(**{**vars(args), 'recipe': recipe}))
        cfg.model.backbone.tower.mode = 'off'
        heads[recipe] = build_model(cfg).decode_head.train()
    names = [fold_table('coco20i')['names'][:4]] * batch
    times: dict[str, list[float]] = {recipe: [] for recipe in heads}
    side = cfg.model.data_preprocessor.size[0]
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(batch, channels, side // 32, side // 32, generator=generator)
            for channels in cfg.model.decode_head.in_channels]
    for recipe, head in heads.items():
        head.texts(names[0])  # encoded once, whatever the decoder
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            head([value[:1] for value in maps], names[:1], (side, side))
        costs[recipe] = dict(parameters=sum(value.numel() for value in head.parameters() if value.requires_grad),
                             gflop=counter.get_total_flops() / 1e9, batch=batch, threads=torch.get_num_threads())
    for _ in range(steps):  # in turn
        for recipe, head in heads.items():
            times[recipe].append(_step(head, maps, names, (side, side)))
    for recipe, values in times.items():
        costs[recipe]['step_seconds'] = min(values)
    return costs


def _step(head: nn.Module, maps: list[Tensor], names: list[list[str]], size: tuple[int, int]) -> float:
    start = time.perf_counter()
    logits = head(maps, names, size)
    head.loss_decode(logits, logits > 0).backward()
    return time.perf_counter() - start


def main(arguments: list[str] | None = None) -> str:
    args = parse_args(arguments)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    costs_path = args.work_dir / 'costs.json'
    if args.costs:
        write_whole(costs_path, json.dumps(measure_costs(args)))
    for seed in () if args.report or args.costs else args.seeds:
        for arm in args.arms:
            run(arm, seed, args)
    results = [json.loads(path.read_text()) for path in args.work_dir.glob('*-seed*.json')]
    results.sort(key=lambda run: (run['fold'], list(RECIPES).index(run['recipe']), run['seed'],
                                  ARMS.index(run['arm'])))
    costs = json.loads(costs_path.read_text()) if costs_path.is_file() else {}
    if not results and not costs:
        raise SystemExit(f'no finished runs in {args.work_dir}; run without --report')
    text = report(results, costs, args)
    print(text)
    return text


if __name__ == '__main__':
    main()
