"""Does the frozen branch carry FC-CLIP to classes that training never showed? Collages of COCO things, three seeds.

    python benchmarks/fc_clip_transfer.py                        # all seeds, then the table
    python benchmarks/fc_clip_transfer.py --seeds 1              # one run: trained, evaluated, stored
    python benchmarks/fc_clip_transfer.py --report               # the table of the runs that are there

Training sees collages of 20 things on clutter, the test 30 things: 10 of them never seen. The seed decides pictures,
initial weights and the order of training. The same masks are named by the model (`both`), by its in-vocabulary
branch alone (`trained`: the model without the frozen branch), by the frozen branch alone (`frozen`), and by the model
with all names exchanged at random (`exchanged`: chance, mean of ten exchanges). A gain counts as shown when it exceeds
twice the standard deviation over seeds of the paired difference.
"""
from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from branch_comparison import branches, machine, measure, without_validation, write_json  # noqa: E402

from frozenmm.compat.files import whole_file  # noqa: E402
from frozenmm.engine.launch import build_runner, load_config, run_training  # noqa: E402

CONFIG = ROOT / 'configs' / 'fc_clip' / 'fc_clip_conse-lite0_collages.py'
RULES = ('both', 'trained', 'frozen', 'exchanged')
COLUMNS = {'unseen': 'semantic/mIoU_unseen', 'seen': 'semantic/mIoU_seen', 'all': 'semantic/mIoU'}
EXCHANGES = 10


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--source', type=Path, default=ROOT / 'data' / 'coco_mini')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'benchmark_fc_clip_transfer')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'fc_clip_transfer.json')
    parser.add_argument('--report', action='store_true', help='train nothing')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args(arguments)


def config_of(seed: int, args: argparse.Namespace) -> Config:
    cfg = load_config(CONFIG, args.cfg_options, work_dir=args.work_dir / f'seed{seed}')
    for loader in cfg.train_dataloader, cfg.val_dataloader:
        loader.dataset.source = str(args.source.absolute())
        loader.dataset.seed = seed
    cfg.randomness = dict(seed=seed)
    cfg.default_hooks.checkpoint.interval = 10**9
    cfg.visualizer.vis_backends = []
    return cfg


def run(seed: int, args: argparse.Namespace) -> dict:
    """Train unless the model is there, evaluate unless the result is there."""
    folder = args.work_dir / f'seed{seed}'
    result, state = folder / 'run.json', folder / 'model.pth'
    if result.is_file():
        return json.loads(result.read_text())
    print(f'seed {seed}', flush=True)
    cfg = config_of(seed, args)
    runner = build_runner(without_validation(cfg))
    if not state.is_file():
        cpu = time.process_time()
        run_training(runner)
        trained = dict(iterations=runner.iter, train_cpu_seconds=time.process_time() - cpu,
                       train_commit=machine()['commit'])
        with whole_file(state) as part:
            torch.save(dict(state_dict=runner.model.state_dict(), trained=trained), part)
    content = torch.load(state, weights_only=True)
    runner.model.load_state_dict(content['state_dict'])
    entry = dict(seed=seed, **content['trained'],
                 metrics=measure(runner.model, cfg, branches(runner.model.eval(), exchanged=EXCHANGES)))
    write_json(result, entry)
    return entry


def value(entry: dict, rule: str, column: str) -> float:
    """A metric in percent; the mean over the exchanges for `exchanged`."""
    rows = [metrics for name, metrics in entry['metrics'].items() if name.split(' ')[0] == rule]
    return statistics.mean(row[COLUMNS[column]] for row in rows)


def spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else float('nan')


def verdicts(entries: list[dict]) -> list[dict]:
    """The gain of the model in unseen mIoU over chance and over itself without the frozen branch."""
    found = []
    for other in ('exchanged', 'trained'):
        gains = [value(entry, 'both', 'unseen') - value(entry, other, 'unseen') for entry in entries]
        gain, deviation = statistics.mean(gains), spread(gains)
        found.append(dict(against=other, gain=round(gain, 3), deviation=round(deviation, 3),
                          shown=bool(gain > 2 * deviation)))
    return found


def table(entries: list[dict]) -> str:
    lines = [f'mIoU in percent, mean and standard deviation over {len(entries)} seeds',
             f'{"named by":12}' + ''.join(f'{column:>16}' for column in COLUMNS)]
    for rule in RULES:
        cells = []
        for column in COLUMNS:
            values = [value(entry, rule, column) for entry in entries]
            cells.append(f'{statistics.mean(values):.1f} +- {spread(values):.1f}')
        lines.append(f'{rule:12}' + ''.join(f'{cell:>16}' for cell in cells))
    lines += [f'unseen, both against {row["against"]}: {row["gain"]:+.2f}, deviation {row["deviation"]:.2f}, '
              f'{"shown" if row["shown"] else "not shown"}' for row in verdicts(entries)]
    return '\n'.join(lines)


def main(arguments: list[str] | None = None) -> str:
    args = parse_args(arguments)
    seeds = [seed for seed in args.seeds
             if not args.report or (args.work_dir / f'seed{seed}' / 'run.json').is_file()]
    if not seeds:
        raise SystemExit(f'no finished runs in {args.work_dir}; run without --report')
    entries = [run(seed, args) for seed in seeds]
    write_json(args.out, dict(data='collages of coco_mini: 20 seen and 10 unseen things, 150 test pictures',
                              machine=machine(), verdicts=verdicts(entries), runs=entries))
    text = table(entries)
    print(text)
    return text


if __name__ == '__main__':
    main()
