"""Segment images by words: python tools/infer.py IMG --model CONFIG --weights FILE --vocab "red mug, keyboard"."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm.engine.command_line import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('images', nargs='+', help='images, folders or videos')
    parser.add_argument('--model', required=True, help='config file, or the name of one of ours')
    parser.add_argument('--weights', help='checkpoint of the trained part')
    parser.add_argument('--trust', action='store_true', help='open a checkpoint that holds pickled objects')
    parser.add_argument('--vocab', help='classes, separated by commas, synonyms by |: "red mug|mug, keyboard"; or a '
                                        '.txt or .json file; or a packaged vocabulary such as ade20k_150')
    parser.add_argument('--task', default='all', help='panoptic, instance, semantic or all')
    parser.add_argument('--out', default='results', help='folder for pictures and files')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--min-score', type=float, default=0.0, help='segments below it are not drawn')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from frozenmm.apis.open_vocabulary_inferencer import OpenVocabularyInferencer
    from frozenmm.apis.vocabulary_text import parse_vocabulary
    inferencer = OpenVocabularyInferencer(
        args.model, None if args.vocab is None else parse_vocabulary(args.vocab), weights=args.weights,
        device=args.device, task=args.task, trust_weights=args.trust)
    for image, sample in inferencer.stream(args.images, batch_size=args.batch_size, out_dir=args.out,
                                           min_score=args.min_score):
        found = sample.get('segments_info', ())
        print(f'{image.name}: ' + (', '.join(f'{sample.classes[info["category_id"]]} {info["score"]:.2f}'
                                             for info in found) if found else 'done'), flush=True)
    print(f'results are in {args.out}')


if __name__ == '__main__':
    run_tool(main)
