"""FC-CLIP on embedded networks: panoptic, semantic and instance results on coco_mini, seen and unseen classes.

    python benchmarks/fc_clip_coco_mini.py                       # both arms, then the table
    python benchmarks/fc_clip_coco_mini.py --arms unseen17       # one arm: trained, evaluated, stored
    python benchmarks/fc_clip_coco_mini.py --report              # the table of the runs that are there

Two arms: `all` trains with the 133 classes, `unseen17` with 116 of them; both are evaluated with all 133, and for both
the 17 that only one of them trains with are reported apart, as `unseen`. The same masks and the same decision between
object and void are named in four ways: `both` is the model; `trained` its in-vocabulary branch alone; `frozen` the
out-of-vocabulary branch alone (ConSE on pooled frozen features, nothing of it trained); `untrained` an in-vocabulary
classifier with fresh random weights (mean of three), the baseline. A run is stored when it ends and not repeated; a
trained model is kept beside it, so that evaluation alone can be repeated. The result file keeps the arm that is not
asked for.
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

CONFIGS = {'all': 'fc_clip_conse-lite0_coco-mini.py', 'unseen17': 'fc_clip_conse-lite0_coco-mini_unseen17.py'}
RULES = ('both', 'trained', 'frozen', 'untrained')
KEYS = {'PQ': 'panoptic/PQ', 'PQ seen': 'panoptic/PQ_seen',
        'PQ unseen': 'panoptic/PQ_unseen', 'mIoU': 'semantic/mIoU', 'mIoU seen': 'semantic/mIoU_seen',
        'mIoU unseen': 'semantic/mIoU_unseen', 'AP': 'coco/segm_mAP',
        'AP seen': 'coco/segm_mAP_seen', 'AP unseen': 'coco/segm_mAP_unseen'}
UNTRAINED = 3


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--arms', nargs='+', choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'coco_mini')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'benchmark_fc_clip_coco_mini')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'fc_clip_coco_mini.json')
    parser.add_argument('--report', action='store_true', help='train nothing')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args(arguments)


def config_of(arm: str, args: argparse.Namespace) -> Config:
    cfg = load_config(ROOT / 'configs' / 'fc_clip' / CONFIGS[arm], args.cfg_options, work_dir=folder_of(arm, args))
    root = args.data_root.absolute()
    for loader in cfg.train_dataloader, cfg.val_dataloader:
        loader.dataset.data_root = str(root)
    held_out = Config.fromfile(ROOT / 'configs' / 'fc_clip' / CONFIGS['unseen17']).train_vocabulary
    for metric in cfg.val_evaluator:
        metric.train_vocabulary = held_out
        for key in 'ann_file', 'seg_prefix':
            if key in metric:
                metric[key] = str(root / Path(metric[key]).relative_to(cfg.data_root))
    cfg.randomness = dict(seed=args.seed)
    cfg.default_hooks.checkpoint.interval = 10**9
    cfg.visualizer.vis_backends = []
    return cfg


def folder_of(arm: str, args: argparse.Namespace) -> Path:
    return args.work_dir / f'{arm}-seed{args.seed}'


def run(arm: str, args: argparse.Namespace) -> dict:
    """Train unless the model is there, evaluate unless the result is there."""
    folder = folder_of(arm, args)
    result = folder / 'run.json'
    if result.is_file():
        return json.loads(result.read_text())
    print(f'{arm}, seed {args.seed}', flush=True)
    cfg = config_of(arm, args)
    runner = build_runner(without_validation(cfg))
    state = folder / 'model.pth'
    if not state.is_file():
        start, cpu = time.perf_counter(), time.process_time()
        run_training(runner)
        trained = dict(iterations=runner.iter, train_seconds=time.perf_counter() - start,
                       train_cpu_seconds=time.process_time() - cpu, train_commit=machine()['commit'])
        with whole_file(state) as part:
            torch.save(dict(state_dict=runner.model.state_dict(), trained=trained), part)
    content = torch.load(state, weights_only=True)
    runner.model.load_state_dict(content['state_dict'])
    rules = branches(runner.model.eval(), untrained=UNTRAINED)
    entry = dict(arm=arm, seed=args.seed, **content['trained'], trained_parameters=sum(
        parameter.numel() for parameter in runner.model.parameters() if parameter.requires_grad),
        metrics=measure(runner.model, cfg, rules))
    write_json(result, entry)
    return entry


def stored(path: Path) -> list[dict]:
    """The runs of an earlier result file, if there is one."""
    return json.loads(path.read_text())['runs'] if path.is_file() else []


def value(entry: dict, rule: str, column: str) -> float:
    """A metric in percent; the mean over the random classifiers for `untrained`."""
    rows = [metrics for name, metrics in entry['metrics'].items() if name.split(' ')[0] == rule]
    scale = 100 if column.startswith('AP') else 1
    return scale * statistics.mean(row.get(KEYS[column], float('nan')) for row in rows)


def table(entries: list[dict]) -> str:
    lines = []
    for entry in entries:
        lines.append(f'{entry["arm"]}: {entry["iterations"]} iterations, {entry["train_cpu_seconds"] / 60:.1f} minutes '
                     f'of one core, {entry["trained_parameters"] / 1e6:.2f} M trained parameters')
        lines.append(f'{"named by":12}' + ''.join(f'{column:>12}' for column in KEYS))
        lines += [f'{rule:12}' + ''.join(f'{value(entry, rule, column):12.2f}' for column in KEYS)
                  for rule in RULES]
    return '\n'.join(lines)


def main(arguments: list[str] | None = None) -> str:
    args = parse_args(arguments)
    arms = [arm for arm in args.arms if not args.report or (folder_of(arm, args) / 'run.json').is_file()]
    if not arms:
        raise SystemExit(f'no finished runs in {args.work_dir}; run without --report')
    known = {entry['arm']: entry for entry in stored(args.out)} | {arm: run(arm, args) for arm in arms}
    entries = [known[arm] for arm in CONFIGS if arm in known]
    write_json(args.out, dict(data='coco_mini: 70 training and 68 validation images', machine=machine(), runs=entries))
    text = table(entries)
    print(text)
    return text


if __name__ == '__main__':
    main()
