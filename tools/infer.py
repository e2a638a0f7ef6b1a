"""Segment, detect or measure depth on images: python tools/infer.py IMG [--model NAME] [--vocab "red mug, keyboard"].

NAME is a checkpoint of the zoo (`python -m frozenmm.zoo list checkpoints`), a task (open-vocabulary, semantic,
detection, depth), a config file, or the name of a config of ours, then with --weights.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm.engine.command_line import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', nargs='+', help='images, folders or videos')
    parser.add_argument('--model', default='open-vocabulary', help='checkpoint of the zoo, task, or config')
    parser.add_argument('--weights', help='checkpoint of the trained part, where the model does not bring its own')
    parser.add_argument('--trust', action='store_true', help='open a checkpoint that holds pickled objects')
    parser.add_argument('--vocab', help='classes, separated by commas, synonyms by |: "red mug|mug, keyboard"; or a '
                                        '.txt or .json file; or a packaged vocabulary such as ade20k_150')
    parser.add_argument('--task', help='open-vocabulary models: panoptic, instance, semantic or all')
    parser.add_argument('--out', default='results', help='folder for pictures and files')
    parser.add_argument('--device', default='auto',
                        help='cpu, cuda, cuda:1, mps, or auto (default): the best one of this machine')
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--min-score', type=float, default=0.0, help='what scores below it is not drawn')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from frozenmm.apis import inferencer
    from frozenmm.apis.vocabulary_text import parse_vocabulary
    chosen = inferencer(args.model, None if args.vocab is None else parse_vocabulary(args.vocab), weights=args.weights,
                        device=args.device, trust_weights=args.trust, task=args.task)
    unreadable: list[str] = []
    for image, result in chosen.stream(args.images, batch_size=args.batch_size, out_dir=args.out,
                                       min_score=args.min_score, unreadable=unreadable):
        print(f'{image.name}: {chosen.summary(result, min_score=args.min_score)}', flush=True)
    print(f'results are in {args.out}')
    if unreadable:
        sys.exit(f'{len(unreadable)} image{"s" * (len(unreadable) > 1)} could not be read:\n' + '\n'.join(unreadable))


if __name__ == '__main__':
    run_tool(main)
