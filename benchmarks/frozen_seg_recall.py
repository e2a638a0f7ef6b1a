"""FrozenSeg against FC-CLIP: does a promptable model help to find masks? Recall and mIoU, seen and unseen classes.

    python benchmarks/frozen_seg_recall.py                      # all arms and seeds, then the table
    python benchmarks/frozen_seg_recall.py --data coco-mini --iterations 400 --images 68      # photographs
    python benchmarks/frozen_seg_recall.py --report             # the table of the runs that are there

Both arms train the same decoder (four layers) on the same data for the same number of steps: `fc_clip` without, and
`frozen_seg` with the injectors, fed by the demonstration model that stands in for SAM. Every trained model is measured
with at most 100 masks per image from three sources: all its 100 queries; its 50 queries with the highest object
probability together with the 50 automatic masks of the highest predicted IoU; and 100 automatic masks alone, which no
training of the arm concerns. Fewer automatic masks than that may pass the generator: `automatic_masks` in the results
says how many did. mIoU is measured without and with the votes of the 50 largest automatic masks.

Recall: `AR` averages over IoU 0.50..0.95, every annotated segment counts; `region` is FrozenSeg's metric, whole
regions of a class at IoU > 0.5. A run is stored when it ends and not repeated.
"""
from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import sys
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from branch_comparison import machine, without_validation, write_json  # noqa: E402

from frozenmm.engine.launch import build_runner, load_config, run_training  # noqa: E402
from frozenmm.ops.mask_ensemble import MaskGeometry  # noqa: E402
from frozenmm.segmentation.fc_clip.postprocess import all_masks  # noqa: E402
from frozenmm.segmentation.fc_clip.results import store  # noqa: E402
from frozenmm.segmentation.fc_clip.trunk import one_image  # noqa: E402
from frozenmm.segmentation.frozen_seg.sam_masks import SAMMasks  # noqa: E402
from frozenmm.segmentation.frozen_seg.segmentor import FrozenSeg  # noqa: E402

CONFIGS = {'scenes': 'frozen_seg_conse-lite0_demo-sam_scenes.py',
           'coco-mini': 'frozen_seg_conse-lite0_demo-sam_coco-mini_unseen17.py'}
RESULTS = {'scenes': 'frozen_seg_recall.json', 'coco-mini': 'frozen_seg_recall_coco-mini.json'}
ARMS = ('fc_clip', 'frozen_seg')
QUERIES = 100
SOURCES = ('100 queries', '50 queries + 50 masks', '100 masks')
VOTES = ('without votes', 'with votes')
COLUMNS = {'AR': 'proposals/AR', 'AR seen': 'proposals/AR_seen', 'AR unseen': 'proposals/AR_unseen',
           'R50': 'proposals/R50', 'R50 unseen': 'proposals/R50_unseen',
           'region seen': 'recall/S_Recall@IoU=0.50', 'region unseen': 'recall/U_Recall@IoU=0.50'}
IOU_COLUMNS = {'mIoU': 'semantic/mIoU', 'mIoU seen': 'semantic/mIoU_seen', 'mIoU unseen': 'semantic/mIoU_unseen'}
MASKS = dict(points_per_side=16, iou_threshold=0.0, stability_threshold=0.3, choice='best', count=QUERIES)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', choices=list(CONFIGS), default='scenes')
    parser.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--iterations', type=int, default=500)
    parser.add_argument('--side', type=int, help='side of the images in training and test, in pixels; by default as '
                        'the config has it')
    parser.add_argument('--images', type=int, default=60, help='test images')
    parser.add_argument('--data-root', type=Path, help='folder of the data; by default the one that the config names')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'benchmark_frozen_seg_recall')
    parser.add_argument('--out', type=Path, help='result file; by default one per data in benchmarks/results')
    parser.add_argument('--report', action='store_true', help='train nothing')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args(arguments)


def folder_of(arm: str, seed: int, args: argparse.Namespace) -> Path:
    return args.work_dir / f'{args.data}-{arm}-seed{seed}'


def config_of(arm: str, seed: int, args: argparse.Namespace) -> Config:
    cfg = load_config(ROOT / 'configs' / 'frozen_seg' / CONFIGS[args.data], args.cfg_options,
                      work_dir=folder_of(arm, seed, args))
    root = (args.data_root or ROOT / cfg.data_root).absolute()
    cfg.val_dataloader.dataset.indices = args.images
    for loader in cfg.train_dataloader, cfg.val_dataloader:
        loader.dataset.data_root = str(root)
        if args.side is not None:
            resize(loader.dataset.pipeline, (args.side, args.side))
    if args.side is not None:
        for augment in cfg.model.data_preprocessor.batch_augments:
            augment.size = (args.side, args.side)
    truth = dict(ann_file=str(root / 'annotations/panoptic_val.json'), seg_prefix=str(root / 'panoptic_val'))
    words = dict(vocabulary=cfg.model.classifier.vocabulary, train_vocabulary=cfg.model.classifier.train_vocabulary)
    cfg.val_evaluator = [dict(type='frozenmm.AverageMaskRecall', limit=QUERIES, **truth, **words),
                         dict(type='frozenmm.MaskRecallMetric', **words), dict(type='frozenmm.SemanticIoU', **words)]
    cfg.model.mask_generator.decoder.num_queries = QUERIES
    cfg.model.sam_masks.automatic.update(MASKS)
    cfg.model.postprocess.tasks = ('semantic', )
    cfg.custom_hooks = [dict(type='frozenmm.AccelerateHook'),
                        dict(type='frozenmm.TimeBudgetHook', iterations=args.iterations)]
    if arm == 'fc_clip':
        cfg.model.sam_tower = None
        cfg.model.mask_generator.pop('sam_branch')
        cfg.model.mask_generator.decoder.pop('query_residue')
    cfg.randomness = dict(seed=seed)
    cfg.default_hooks.checkpoint.interval = 10**9
    cfg.visualizer.vis_backends = []
    return cfg


def resize(transforms: list, size: tuple[int, int]) -> None:
    """Give the transforms of a pipeline, nested ones too, another size."""
    for transform in transforms:
        resize(transform.get('transforms', []), size)
        if transform.type in ('Resize', 'RandomResize'):
            transform.scale = size
        elif transform.type == 'RandomCrop':
            transform.crop_size = size


def run(arm: str, seed: int, args: argparse.Namespace) -> dict:
    """Train and measure, unless the result is there."""
    path = folder_of(arm, seed, args) / 'run.json'
    if path.is_file():
        return json.loads(path.read_text())
    print(f'{arm}, seed {seed}', flush=True)
    cfg = config_of(arm, seed, args)
    runner = build_runner(without_validation(cfg))
    start = time.process_time()
    run_training(runner)
    seconds = time.process_time() - start
    trained = sum(parameter.numel() for parameter in runner.model.parameters() if parameter.requires_grad)
    entry = dict(arm=arm, seed=seed, iterations=runner.iter, train_cpu_seconds=round(seconds, 1),
                 trained_parameters=trained, **measure(runner.model.eval(), cfg))
    write_json(path, entry)
    return entry


@torch.no_grad()
def measure(model: FrozenSeg, cfg: Config) -> dict[str, dict]:
    """Recall by source of the masks and mIoU by votes, from one forward pass per image."""
    loader = Runner.build_dataloader(copy.deepcopy(cfg.val_dataloader))
    evaluators = {name: Evaluator(copy.deepcopy(cfg.val_evaluator[:2])) for name in SOURCES}
    evaluators |= {name: Evaluator(copy.deepcopy(cfg.val_evaluator[2:])) for name in VOTES}
    for evaluator in evaluators.values():
        evaluator.dataset_meta = loader.dataset.metainfo
    counts = []
    for data in loader:
        batch = model.data_preprocessor(data, False)
        images, samples = batch['inputs'], batch['data_samples']
        model.add_masks(images, samples)
        proposals, features = model.generate(images, samples, all_layers=False)
        log_probs = model.trunk.classify(proposals[-1], features)
        for index, (sample, geometry) in enumerate(zip(samples, model.trunk.geometries(images, samples))):
            logits, automatic = proposals[-1].mask_logits[index].float(), sample.sam_masks
            counts.append(len(automatic.logits))
            for name, masks in sources(log_probs[index], logits, automatic, geometry).items():
                sample.pred_proposals = InstanceData(masks=masks)
                evaluators[name].process([sample], data)
            for name in VOTES:
                sample.sam_masks = automatic.largest() if name == 'with votes' else no_masks(automatic)
                store(sample, model.finish(log_probs[index], logits, geometry, sample, one_image(features, index)),
                      model.classifier.rows.num_classes)
                evaluators[name].process([sample], data)
    results = {name: {key: round(value, 3) for key, value in evaluator.evaluate(len(loader.dataset)).items()
                      if isinstance(value, float) and math.isfinite(value)} for name, evaluator in evaluators.items()}
    return dict(recall={name: results[name] for name in SOURCES}, semantic={name: results[name] for name in VOTES},
                automatic_masks=round(statistics.mean(counts), 1))


def sources(log_probs: Tensor, logits: Tensor, automatic: SAMMasks, geometry: MaskGeometry) -> dict[str, Tensor]:
    """(N, H, W) bool masks at output size from each source, at most 100."""
    queries = all_masks(logits, geometry)
    certain = log_probs.softmax(-1)[:, -1].argsort(stable=True)[:QUERIES // 2]
    masks = automatic.best(QUERIES).full() > 0
    return dict(zip(SOURCES, (queries, torch.cat([queries[certain], masks[:QUERIES // 2]]), masks)))


def no_masks(masks: SAMMasks) -> SAMMasks:
    return SAMMasks(masks.logits[:0], masks.size)


def spread(values: list[float]) -> str:
    return f'{statistics.mean(values):5.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:3.1f}'


def report(entries: list[dict], data: str) -> str:
    """The table: mean and standard deviation over seeds."""
    lines = [f'{data}: {entries[0]["iterations"]} steps, seeds {sorted({entry["seed"] for entry in entries})}, '
             f'{statistics.mean(entry["automatic_masks"] for entry in entries):.0f} automatic masks per image']
    for part, names, columns in ('recall', SOURCES, COLUMNS), ('semantic', VOTES, IOU_COLUMNS):
        lines.append(f'{"arm":12}{part:24}' + ''.join(f'{column:>15}' for column in columns))
        for arm in ARMS:
            rows = [entry[part] for entry in entries if entry['arm'] == arm]
            lines += [f'{arm:12}{name:24}' + ''.join(
                f'{spread([row[name].get(key, math.nan) for row in rows]):>15}' for key in columns.values())
                for name in names if rows]
    for arm in ARMS:
        rows = [entry for entry in entries if entry['arm'] == arm]
        if rows:
            lines.append(f'{arm}: {rows[0]["trained_parameters"] / 1e6:.2f} M trained parameters, '
                         f'{statistics.mean(row["train_cpu_seconds"] for row in rows):.0f} s of one core per training')
    return '\n'.join(lines)


def main(arguments: list[str] | None = None) -> str:
    args = parse_args(arguments)
    jobs = [(arm, seed) for seed in args.seeds for arm in args.arms]
    if args.report:
        jobs = [(arm, seed) for arm, seed in jobs if (folder_of(arm, seed, args) / 'run.json').is_file()]
    if not jobs:
        raise SystemExit(f'no finished runs in {args.work_dir}; run without --report')
    entries = [run(arm, seed, args) for arm, seed in jobs]
    out = args.out or ROOT / 'benchmarks' / 'results' / RESULTS[args.data]
    write_json(out, dict(data=args.data, iterations=args.iterations, side=args.side, images=args.images,
                         masks=MASKS, machine=machine(), runs=entries))
    text = report(entries, args.data)
    print(text)
    return text


if __name__ == '__main__':
    main()
