"""The numbers of `calibration` in the demonstration model's config, from training pictures that their head did not see.

    python benchmarks/word_cells.py            # five heads on four fifths of coco_mini's training images each

For every training image, the head that was not trained on it and ImageNet say how probable the words of
`photo_sheet.few_words` are. Logistic regressions make probabilities of both opinions, first for pixels, then for
segments; what is printed goes into the config. `photo_sheet.py --val` shows what comes of it.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from branch_comparison import machine, without_validation, write_json  # noqa: E402
from photo_sheet import Truth, asked_for, few_words, judged, truths  # noqa: E402

from frozenmm.apis import OpenVocabularyInferencer  # noqa: E402
from frozenmm.apis.image_pipeline import ImagePipeline, batch_of  # noqa: E402
from frozenmm.compat.image_sources import read_images  # noqa: E402
from frozenmm.engine.launch import build_runner, load_config, run_training  # noqa: E402
from frozenmm.foundation.vocabulary import Vocabulary  # noqa: E402
from frozenmm.segmentation.word_cells.evidence import Calibration, logit  # noqa: E402

CONFIG = ROOT / 'configs' / 'fc_clip' / 'word_cells_lite0_coco-mini.py'
EVERY = 37
"""Of the pixels of a grid, one in so many counts: neighbours say the same."""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'coco_mini')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'benchmark_word_cells')
    parser.add_argument('--folds', type=int, default=5)
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'word_cells.json')
    return parser.parse_args(arguments)


def fold_model(args: argparse.Namespace, fold: int, count: int) -> OpenVocabularyInferencer:
    """A model whose head did not see every so-manieth training image, trained unless it is there."""
    cfg = load_config(CONFIG, [], work_dir=args.work_dir / str(fold))
    data = cfg.train_dataloader.dataset
    data.data_root, data.indices = str(args.data_root.absolute()), [
        index for index in range(count) if index % args.folds != fold]
    cfg.default_hooks.checkpoint.interval = 10**9
    cfg.visualizer.vis_backends = []
    runner = build_runner(without_validation(cfg))
    state = args.work_dir / f'head{fold}.pth'
    if state.is_file():
        runner.model.load_state_dict(torch.load(state, weights_only=True))
    else:
        run_training(runner)
        torch.save(runner.model.state_dict(), state)
    chosen = OpenVocabularyInferencer(runner.model, device='cpu', task='panoptic')
    chosen.pipeline = ImagePipeline.of_config(cfg)
    runner.model.least_score = 0.0  # segments of every score are judged, as the regression needs them
    return chosen


@torch.no_grad()
def pixels(chosen: Any, truth: Truth, asked: list[int]) -> dict[str, Tensor]:
    """(N, 3) for the words that each knows: logits of both opinions, and whether the pixel is the word."""
    image, = read_images(str(truth.path))
    data = chosen.model.data_preprocessor(batch_of([chosen._prepare(image)]), False)
    height, width = data['data_samples'][0].img_shape
    taught, learned = chosen.model.opinions(data['inputs'][..., :height, :width])
    labels = torch.from_numpy(truth.labels)[None, None].float()
    labels = F.interpolate(labels, taught.shape[-2:], mode='nearest')[0, 0].long()
    found: dict[str, list[Tensor]] = {}
    for row, index in enumerate(asked):
        rows = torch.stack([logit(taught[row]), logit(learned[row]), (labels == index).float()], -1)
        for source in 'imagenet', 'trained':
            if getattr(chosen.model.words, source)[row]:
                found.setdefault(source, []).append(rows[labels >= 0][::EVERY])
    return {source: torch.cat(rows) for source, rows in found.items()}


def regression(rows: Tensor, columns: list[int]) -> tuple[float, ...]:
    """Weights of the columns and a constant, by the last column."""
    features = torch.cat([rows[:, columns], torch.ones(len(rows), 1)], 1)
    weights = torch.zeros(features.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=100)

    def cost() -> Tensor:
        solver.zero_grad()
        loss = F.binary_cross_entropy_with_logits(features @ weights, rows[:, -1])
        loss.backward()
        return loss

    solver.step(cost)  # type: ignore[arg-type]
    return tuple(round(float(value), 3) for value in weights.detach())


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    words = Vocabulary.read('coco_panoptic_133')
    pictures = list(truths(args.data_root, 'train', words))
    models = [fold_model(args, fold, len(pictures)) for fold in range(args.folds)]
    by_source: dict[str, list[Tensor]] = {}
    for number, truth in enumerate(pictures):
        chosen, asked = models[number % args.folds], few_words(truth, words)
        chosen.set_vocabulary(asked_for(asked, words))
        for source, rows in pixels(chosen, truth, asked).items():
            by_source.setdefault(source, []).append(rows)
    columns = dict(imagenet=[0], trained=[1])
    fitted: dict[str, Any] = {name: regression(torch.cat(by_source[name]), chosen) for name, chosen in columns.items()}
    segments: list[tuple[float, bool]] = []
    for number, truth in enumerate(pictures):
        chosen, asked = models[number % args.folds], few_words(truth, words)
        chosen.model.calibration = Calibration(**fitted)
        chosen.set_vocabulary(asked_for(asked, words))
        sample, = chosen(str(truth.path))
        # without weights of segments, the score is their mean probability
        segments += [entry[:2] for entry in judged(truth, asked, sample)]
    table = torch.tensor(segments, dtype=torch.float32)
    table[:, 0] = logit(table[:, 0])
    fitted['segment'] = regression(table, [0])
    print(fitted)
    write_json(args.out, dict(calibration=fitted, segments=len(segments),
                              right=round(float(np.mean([entry[-1] for entry in segments])), 3), machine=machine()))


if __name__ == '__main__':
    main()
