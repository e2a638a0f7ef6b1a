"""Is frozen knowledge worth it? The quickstart's rows with several seeds, at equal cost and at equal iterations.

    python benchmarks/frozen_detr_quickstart.py                        # all runs, then the table (hours on a laptop)
    python benchmarks/frozen_detr_quickstart.py --only b 1 bought      # one run: row, seed, kind of budget
    python benchmarks/frozen_detr_quickstart.py --report               # the table of the runs that are there

Four kinds of budget: the `recipe` of `make train`, a number of iterations for each row; `minutes` of training on a
machine that does nothing else; `bought`, the iterations that these minutes bought each row in its first run (a number,
so these runs, and those of the recipe, may share the machine with others); `iterations`, the
same number for all rows. Every run is stored when it ends and is not repeated. A gain counts as shown when it exceeds
twice the pooled standard deviation of the two rows. `--rate` trains with another learning rate; the table lists such
runs apart, as the proof that a row is not held back by its rate.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from frozenmm.compat.files import write_whole  # noqa: E402
from frozenmm.demo.quickstart import ROWS, Budget, run_row  # noqa: E402
from frozenmm.demo.scenes import write_scenes  # noqa: E402

KINDS = ('recipe', 'minutes', 'bought', 'iterations')
PAIRS = (('c', 'a'), ('b', 'a'))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=5)
    parser.add_argument('--iterations', type=int, default=300)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=list(KINDS))
    parser.add_argument('--rate', type=float, help='with --only: this learning rate in the place of the config\'s')
    parser.add_argument('--only', nargs=3, metavar=('ROW', 'SEED', 'KIND'), help='make this run and nothing else')
    parser.add_argument('--report', action='store_true', help='train nothing')
    parser.add_argument('--data-root', default=str(ROOT / 'data' / 'scenes'))
    parser.add_argument('--work-dir', default=str(ROOT / 'work_dirs' / 'benchmark_quickstart'))
    parser.add_argument('--out', default=str(ROOT / 'benchmarks' / 'results' / 'frozen_detr_quickstart.json'))
    return parser.parse_args()


def budget_of(kind: str, letter: str, args: argparse.Namespace) -> Budget:
    if kind == 'recipe':
        return Budget()
    if kind == 'minutes':
        return Budget(minutes=args.minutes)
    if kind == 'iterations':
        return Budget(iterations=args.iterations)
    first = next(iter(runs_of('minutes', letter, args)), None)
    if first is None:
        raise SystemExit(f'what {args.minutes:g} minutes buy row ({letter}) is not known yet; first run '
                         f'--only {letter} 0 minutes on a machine that does nothing else')
    return Budget(iterations=first['iterations'])


def folder_of(kind: str, args: argparse.Namespace) -> Path:
    return Path(args.work_dir, {
        'recipe': 'recipe', 'minutes': f'{args.minutes:g}-min', 'bought': f'bought-by-{args.minutes:g}-min',
        'iterations': f'{args.iterations}-iterations'}[kind])


def runs_of(kind: str, letter: str, args: argparse.Namespace, rate: str = '') -> list[dict]:
    """The stored runs of a row: with the config's learning rate, or with the others (`rate='*'`).

    The runs on the clock are their seeds' runs of the kind `bought` too: they defined it.
    """
    pattern = f'{letter}-rate*-seed*' if rate else f'{letter}-seed*'
    runs = [json.loads(path.read_text()) for path in sorted(folder_of(kind, args).glob(f'{pattern}/run.json'))]
    if kind == 'bought' and not rate:
        seeds = {entry['seed'] for entry in runs}
        runs += [entry for entry in runs_of('minutes', letter, args) if entry['seed'] not in seeds]
    return runs


def run(letter: str, seed: int, kind: str, args: argparse.Namespace) -> None:
    """Make a run, or find that it is there; its result lies beside its logs."""
    row = next((row for row in ROWS if row.letter == letter), None)
    if row is None or kind not in KINDS:
        raise SystemExit(f'--only takes a row of {[row.letter for row in ROWS]}, a seed and one of {KINDS}, '
                         f'got {letter} {seed} {kind}')
    budget = budget_of(kind, letter, args)
    rate = '' if args.rate is None else f'-rate{args.rate:g}'
    folder = folder_of(kind, args) / f'{letter}{rate}-seed{seed}'
    print(f'row ({letter}), seed {seed}, {budget}', flush=True)
    options = [] if args.rate is None else [f'optim_wrapper.optimizer.lr={args.rate}']
    result = run_row(row, budget, folder, configs=ROOT / 'configs' / 'quickstart', data_root=args.data_root, seed=seed,
                     options=options, pictures=0)
    stored = {key: value for key, value in asdict(result).items() if key not in ('shown', 'meaning')}
    (folder / 'run.json').write_text(json.dumps({**stored, 'kind': kind, 'budget': str(budget), 'rate': args.rate}))
    print(f'row ({letter}), seed {seed}, {budget}: AP {result.ap:.3f}, AP50 {result.ap50:.3f}, {result.iterations} '
          f'iterations in {result.seconds:.0f} s', flush=True)


def summarise(args: argparse.Namespace) -> dict:
    """Mean and deviation per row, and the verdict on every pair, from the runs that are there."""
    report: dict = {'minutes': args.minutes, 'iterations': args.iterations, 'rows': [], 'comparisons': [], 'runs': [],
                    'other_rates': []}
    for kind in KINDS:
        found = {}
        for row in ROWS:
            runs = runs_of(kind, row.letter, args)
            report['runs'] += [entry for entry in runs if entry['kind'] == kind]
            report['other_rates'] += runs_of(kind, row.letter, args, rate='*')
            if runs:
                found[row.letter] = [entry['ap'] for entry in runs]
                report['rows'].append({
                    'kind': kind, 'row': row.letter, 'meaning': row.meaning, 'seeds': len(runs),
                    'ap': statistics.mean(found[row.letter]), 'ap_sd': deviation(found[row.letter]),
                    'ap50': statistics.mean(entry['ap50'] for entry in runs),
                    'iterations': statistics.mean(entry['iterations'] for entry in runs),
                    'seconds': statistics.mean(entry['seconds'] for entry in runs)})
        report['comparisons'] += [compare(kind, better, base, found) for better, base in PAIRS
                                  if better in found and base in found]
    return report


def deviation(values: list[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def compare(kind: str, better: str, base: str, found: dict[str, list[float]]) -> dict:
    gain = statistics.mean(found[better]) - statistics.mean(found[base])
    deviations = [deviation(found[letter]) for letter in (better, base)]
    pooled = None
    if None not in deviations:
        weights = [len(found[letter]) - 1 for letter in (better, base)]
        pooled = math.sqrt(sum(weight * sd**2 for weight, sd in zip(weights, deviations)) / sum(weights))
    return {'kind': kind, 'row': better, 'against': base, 'gain': gain,
            'ratio': statistics.mean(found[better]) / max(statistics.mean(found[base]), 1e-9), 'pooled_sd': pooled,
            'shown': None if pooled is None else gain > 2 * pooled}


def print_report(report: dict) -> None:
    print(f'\n{"at equal":<12}{"row":<5}{"seeds":>5}{"AP":>8}{"sd":>8}{"AP50":>8}{"iterations":>12}{"seconds":>9}')
    for row in report['rows']:
        sd = '-' if row['ap_sd'] is None else f'{row["ap_sd"]:.3f}'
        print(f'{row["kind"]:<12}({row["row"]})  {row["seeds"]:>5}{row["ap"]:>8.3f}{sd:>8}{row["ap50"]:>8.3f}'
              f'{row["iterations"]:>12.0f}{row["seconds"]:>9.0f}')
    for entry in report['comparisons']:
        verdict = {True: 'more than', False: 'NOT more than', None: 'one seed, no comparison with'}[entry['shown']]
        pooled = '' if entry['pooled_sd'] is None else f' of {entry["pooled_sd"]:.3f}'
        print(f'equal {entry["kind"]}: ({entry["row"]}) against ({entry["against"]}): {entry["gain"]:+.3f} AP '
              f'({entry["ratio"]:.2f} times), {verdict} twice the pooled sd{pooled}')
    for entry in report['other_rates']:
        print(f'row ({entry["letter"]}) with learning rate {entry["rate"]:g}: AP {entry["ap"]:.3f}, AP50 '
              f'{entry["ap50"]:.3f} ({entry["budget"]})')


def machine() -> dict[str, str]:
    import torch
    model = next((line.partition(':')[2].strip() for line in Path('/proc/cpuinfo').read_text().splitlines()
                  if line.startswith('model name')), platform.processor()) if Path('/proc/cpuinfo').is_file() else ''
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True)
    return {'cpu': model, 'cores': str(os.cpu_count()), 'threads': str(torch.get_num_threads()),
            'torch': torch.__version__, 'python': platform.python_version(), 'commit': commit.stdout.strip()}


def main() -> None:
    args = parse_args()
    write_scenes(args.data_root)
    if args.only:
        run(args.only[0], int(args.only[1]), args.only[2], args)
        return
    if not args.report:
        # seeds outermost, so that an early stop leaves whole comparisons; rows alternate against drift of the machine
        for seed in args.seeds:
            for kind in args.kinds:
                for row in ROWS:
                    run(row.letter, seed, kind, args)
    report = {**summarise(args), 'machine': machine()}
    print_report(report)
    out = Path(args.out)
    write_whole(out, json.dumps(report, indent=1) + '\n')
    print(f'\nwritten to {out}')


if __name__ == '__main__':
    main()
