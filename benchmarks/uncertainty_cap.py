"""How well does a cap know where the demonstration depth network is wrong? Trained on rooms, tested also on photos.

    python benchmarks/uncertainty_cap.py --kitchen path/to/rgbd_kitchen

Seeds train the cap of the config on rooms; scores on test rooms, on the kitchen (another domain), with what a random
order would score beside them; AUROC of the mean relative deviation of a picture, test rooms against the same blurred,
noisy and darkened, and against the kitchen. `product` is the residual of the official code.
"""
from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.structures import PixelData
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from machine import describe_machine  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from frozenmm.apis.model_sources import build_model  # noqa: E402
from frozenmm.compat.files import write_whole  # noqa: E402
from frozenmm.engine.launch import load_config  # noqa: E402
from frozenmm.evaluation.uncertainty import UncertaintyMetric, auroc  # noqa: E402

CONFIG = ROOT / 'configs' / 'further' / 'uncertainty-cap_light-depth_rooms.py'


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--rooms', type=int, nargs=2, metavar=('TRAIN', 'VAL'),
                        help='how many the folder holds; default: the 320 and 40 of `frozenmm rooms`')
    parser.add_argument('--pictures', type=int, default=200, help='of training')
    parser.add_argument('--seconds', type=float, default=45.0, help='CPU seconds of training')
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'rooms')
    parser.add_argument('--kitchen', type=Path, help='a folder with color/ and depth/ (16 bit, millimetres)')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'uncertainty_cap.json')
    return parser.parse_args(arguments)


def batches(cfg, split: str, limit: int, args: argparse.Namespace) -> list[tuple[Tensor, Tensor]]:
    loader = cfg[f'{split}_dataloader']
    loader.dataset.data_root = str(args.data_root)
    if args.rooms:
        loader.dataset.settings = dict(zip(('train', 'val'), args.rooms))
    loader.batch_size = 1
    loader.sampler = dict(type='DefaultSampler', shuffle=False)
    with DefaultScope.overwrite_default_scope('mmseg'):
        found = Runner.build_dataloader(loader)
    pairs = []
    for data in found:
        pairs.append((data['inputs'][0], data['data_samples'][0].gt_depth_map.data))
        if len(pairs) == limit:
            break
    return pairs


def kitchen(folder: Path, count: int = 20) -> list[tuple[Tensor, Tensor]]:
    names = sorted(path.stem for path in (folder / 'color').iterdir())
    pairs = []
    for name in names[::max(1, len(names) // count)][:count]:
        picture = cv2.imread(str(next((folder / 'color').glob(f'{name}.*'))))
        depth = cv2.imread(str(next((folder / 'depth').glob(f'{name}.*'))), cv2.IMREAD_UNCHANGED)
        picture = cv2.resize(picture, (256, 192), interpolation=cv2.INTER_AREA)
        depth = cv2.resize(depth, (256, 192), interpolation=cv2.INTER_NEAREST)
        pairs.append((torch.from_numpy(picture).permute(2, 0, 1),
                      torch.from_numpy(depth.astype(np.float32) / 1000)[None]))
    return pairs


def sample(model, picture: Tensor, truth: Tensor | None = None):
    from mmseg.structures import SegDataSample
    given = SegDataSample(metainfo=dict(img_shape=tuple(picture.shape[-2:]), ori_shape=tuple(picture.shape[-2:])))
    if truth is not None:
        given.gt_depth_map = PixelData(data=truth)
    return dict(inputs=[picture], data_samples=[given])


@torch.no_grad()
def scores(model, pairs) -> dict[str, float]:
    metric = UncertaintyMetric()
    for picture, truth in pairs:
        metric.process({}, [part.to_dict() for part in model.test_step(sample(model, picture, truth))])
    return {key: round(value, 4) for key, value in metric.compute_metrics(metric.results).items()}


@torch.no_grad()
def alignment(model, pairs, points: int = 100) -> dict[str, float]:
    """AbsRel after scale and shift from few measured points, all alike or weighted by 1 / deviation^2."""
    found: dict[str, list[float]] = {'alike': [], 'weighted': []}
    random = np.random.default_rng(0)
    for picture, truth in pairs:
        result, = model.test_step(sample(model, picture))
        depth, sigma = result.pred_depth_map.data[0], result.pred_depth_sigma.data[0]
        known = (truth[0] > 0).nonzero()
        if len(known) < points:
            continue
        rows, columns = known[random.choice(len(known), points, replace=False)].T
        ones = torch.ones_like(depth[rows, columns])
        for name, weight in ('alike', ones), ('weighted', 1 / sigma[rows, columns]):
            system = torch.stack([depth[rows, columns] * weight, weight], 1)
            scale, shift = torch.linalg.lstsq(system, (truth[0, rows, columns] * weight)[:, None]).solution[:, 0]
            inside = truth[0] > 0
            error = (scale * depth + shift - truth[0]).abs()[inside] / truth[0][inside]
            found[name].append(float(error.mean()))
    return {name: round(statistics.mean(values), 4) for name, values in found.items()}


@torch.no_grad()
def doubt(model, pictures) -> Tensor:
    """Mean deviation over depth of every picture."""
    found = []
    for picture in pictures:
        result, = model.test_step(sample(model, picture))
        found.append((result.pred_depth_sigma.data / result.pred_depth_map.data.clamp(min=1e-6)).median())
    return torch.stack(found)


def corrupted(picture: Tensor, kind: str) -> Tensor:
    array = picture.permute(1, 2, 0).numpy()
    if kind == 'blur':
        array = cv2.GaussianBlur(array, (0, 0), 3)
    elif kind == 'noise':
        array = np.clip(array + np.random.default_rng(0).normal(0, 40, array.shape), 0, 255).astype(np.uint8)
    else:
        array = (array // 5).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)


def trained(cfg, residual: str, seed: int, pairs, seconds: float):
    torch.manual_seed(seed)
    cfg.model.loss.residual = residual
    model = build_model(cfg)
    start = time.process_time()
    with torch.no_grad():
        data = [(model.extract_feat(model.data_preprocessor(sample(model, picture), False)['inputs']), truth[None])
                for picture, truth in pairs]
    prepared = time.process_time() - start
    optimizer = torch.optim.Adam(model.cap.parameters(), 1e-3)
    random, steps = np.random.default_rng(seed), 0
    model.train()
    while time.process_time() - start < seconds:
        chosen = random.integers(0, len(data), 8)
        values, truth = (torch.cat([data[index][part] for index in chosen]) for part in (0, 1))
        optimizer.zero_grad()
        sum(model.fit(values, truth, truth > 0).values()).backward()
        optimizer.step()
        steps += 1
    return model.eval(), dict(steps=steps, base_seconds=round(prepared, 1),
                              seconds=round(time.process_time() - start, 1))


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    cfg = load_config(CONFIG, [])
    train, test = batches(cfg, 'train', args.pictures, args), batches(cfg, 'val', 60, args)
    photos = kitchen(args.kitchen) if args.kitchen else []
    runs = []
    for residual in ('power', 'product'):
        for seed in args.seeds:
            model, cost = trained(cfg, residual, seed, train, args.seconds)
            base = model.base.network
            same = all(torch.equal(model.test_step(sample(model, picture))[0].pred_depth_map.data,
                                   base.test_step(sample(model, picture))[0].pred_depth_map.data)
                       for picture, _ in test[:10])
            inside = doubt(model, [picture for picture, _ in test])
            row = dict(residual=residual, seed=seed, mean_unchanged_bit_for_bit=same, **cost, rooms=scores(model, test))
            worse = {kind: [corrupted(picture, kind) for picture, _ in test] for kind in ('blur', 'noise', 'dark')}
            row['auroc'] = {kind: round(auroc(inside, doubt(model, pictures)), 3) for kind, pictures in worse.items()}
            row['abs_rel_rooms'] = alignment(model, test)
            if photos:
                row['kitchen'], row['abs_rel_kitchen'] = scores(model, photos), alignment(model, photos)
                row['auroc']['kitchen'] = round(auroc(inside, doubt(model, [picture for picture, _ in photos])), 3)
            runs.append(row)
            print(row, flush=True)
            write_whole(args.out, json.dumps(dict(machine=describe_machine(), runs=runs), indent=1) + '\n')
    for residual in ('power', 'product'):
        group = [run['rooms'] for run in runs if run['residual'] == residual]
        print(residual, {key: (round(statistics.mean(run[key] for run in group), 4),
                               round(statistics.pstdev(run[key] for run in group), 4)) for key in group[0]})


if __name__ == '__main__':
    main()
