"""SAM's automatic masks of a data set or folder, for FrozenSeg's proposal ensemble; interrupt and repeat as you like.

    frozenmm sam-masks IMAGES --model vit_h --out data/sam_masks/mine     # make what is missing
    frozenmm sam-masks CONFIG --split val --model demo --out DIR          # images of a config
    frozenmm sam-masks IMAGES --out DIR --verify                          # check; exit code 1 if wrong

A model then reads them with sam_masks=dict(folder='DIR'). `demo` is the demonstration model that comes with frozenmm.
"""
from __future__ import annotations

import argparse
import sys

from frozenmm_command import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('source', metavar='CONFIG_OR_FOLDER', help='a config, or a folder of images')
    parser.add_argument('--out', required=True, help='folder of the masks')
    parser.add_argument('--model', default='vit_h', help='vit_h, vit_l, vit_b, vit_t (MobileSAM) or demo')
    parser.add_argument('--weights', help='the model\'s official file, if it is not in the cache folder')
    parser.add_argument('--split', default='test', help='data loader of a config: train, val or test')
    options.add_device(parser)
    parser.add_argument('--verify', action='store_true', help='compute nothing, read everything')
    parser.add_argument('--options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='of the generator, e.g. points_per_side=16 iou_threshold=0.7 choice=best count=100')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.apis import sam_mask_preparation as preparation
    from frozenmm.engine.options import parse_options
    from frozenmm.segmentation.frozen_seg.automatic_masks import AutomaticMasks
    images = preparation.find_images(args.source, args.split)
    if args.verify:
        wrong = preparation.verify_sam_masks(images, args.out)
    else:
        settings = {**(preparation.DEMO_OPTIONS if args.model == 'demo' else {}), **parse_options(args.options)}
        generator = AutomaticMasks(preparation.build_prompter(args.model, args.weights, args.device), **settings)
        report = preparation.prepare_sam_masks(images, generator, args.out)
        print(f'{report.made} files made ({report.empty} without a mask), {report.found} were there')
        wrong = report.failed
    print('\n'.join(f'{image}: {text}' for image, text in wrong.items()) or f'masks of all {len(images)} images are in '
          f'{args.out}')
    sys.exit(1 if wrong else 0)
