"""Segment, detect or measure depth on images: frozenmm infer IMG [--model NAME] [--vocab "red mug, keyboard"].

NAME is a checkpoint of the zoo (`frozenmm zoo list checkpoints`), a task (open-vocabulary, semantic, detection, depth),
a config file, or the name of a config of ours, then with --weights; a model of your own: --weights RUN is enough.
"""
from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from frozenmm_command import options

if TYPE_CHECKING:
    from frozenmm.apis.base import Inferencer
    from frozenmm.compat.image_sources import NamedImage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('images', nargs='+', help='images, folders or videos')
    parser.add_argument('--model', help='checkpoint of the zoo, task, or config; default: the config that --weights '
                        'brings, else for words the best model that is there, else open-vocabulary')
    parser.add_argument('--weights', help='trained part, where the model brings none: the folder of a training run, a '
                        'checkpoint, or a file of `frozenmm export`')
    parser.add_argument('--trust', action='store_true', help='open a checkpoint that holds pickled objects')
    parser.add_argument('--vocab', help='classes, separated by commas, synonyms by |: "red mug|mug, keyboard"; or a '
                                        '.txt or .json file; or a packaged vocabulary such as ade20k_150')
    parser.add_argument('--memory', metavar='FILE', help='examples of classes, which count beside the words; see '
                        '`frozenmm memory --help`')
    parser.add_argument('--stuff', help='classes of --vocab without instances: "sky, grass"; default: what the '
                        'vocabulary says, else every class has instances')
    parser.add_argument('--task', help='open-vocabulary models: panoptic, instance, semantic or all')
    parser.add_argument('--out', default='results', help='folder for pictures and files')
    options.add_device(parser)
    parser.add_argument('--batch-size', type=int, default=1, help='images at a time; default: 1')
    parser.add_argument('--min-score', type=float, help='what scores below it is neither drawn nor in the files; '
                        'default: 0.3 for boxes and instance masks')
    parser.add_argument('--several-labels', action='store_true', help='keep every label of a box, not the best alone; '
                        'with --min-score 0 the files hold what a test counts')
    parser.add_argument('--every', type=int, default=1, metavar='N', help='of videos, take every n-th frame')
    parser.add_argument('--track', action='store_true', help='number the objects of videos from frame to frame (needs '
                        'supervision)')
    parser.add_argument('--ann', metavar='FILE', help='COCO annotation file whose ids the result files use')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.apis import inferencer
    from frozenmm.apis.base import RunOptions
    from frozenmm.apis.vocabulary_text import parse_vocabulary
    from frozenmm.datasets.progress import Progress
    from frozenmm.errors import UserError
    if args.stuff is not None and args.vocab is None:
        raise UserError('--stuff names classes of --vocab; give --vocab too')
    words = None if args.vocab is None else parse_vocabulary(args.vocab, args.stuff)
    if words is not None or args.memory is not None:
        choose_word_model(args, task=args.task, memory=args.memory is not None)
    chosen = inferencer(args.model, words, weights=args.weights, device=args.device, trust_weights=args.trust,
                        task=args.task, memory=args.memory)
    unreadable: list[str] = []
    score = options.given(args, 'min_score')
    results = chosen.stream(args.images, batch_size=args.batch_size, out_dir=args.out, unreadable=unreadable, **score,
                            options=RunOptions(args.several_labels, args.ann, args.every, args.track))
    progress = Progress(0)
    for image, result in results:
        if not image.frames_per_second:
            print(_remark(chosen, image, result, score), flush=True)
            continue
        if image.frame == 0:
            progress = Progress(-(-image.frames // args.every), unit='frames')
        progress.add(1, partial(_remark, chosen, image, result, score))
    print(f'results are in {args.out}')
    if unreadable:
        sys.exit(f'{len(unreadable)} image{"s" * (len(unreadable) > 1)} could not be read:\n' + '\n'.join(unreadable))


def choose_word_model(args: argparse.Namespace, *, task: str | None, memory: bool) -> None:
    """Where the arguments name no model, the best one for words that there is; says which."""
    if args.model is not None or args.weights is not None:
        return
    from frozenmm.apis.word_models import best_word_model
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    best = best_word_model(task=task, memory=memory, ask=_yes if terminal else None)
    print(best.remark, flush=True)
    args.model, args.weights = best.model, best.weights


def _yes(question: str) -> bool:
    return input(f'{question} [y/N] ').strip().lower() in ('y', 'yes')


def _remark(chosen: Inferencer, image: NamedImage, result: Any, score: dict[str, float]) -> str:
    return f'{image.name}: {chosen.summary(result, **score)}'
