"""SAM's automatic masks of a data set or folder, for FrozenSeg's proposal ensemble; interrupt and repeat as you like.

    python tools/prepare_sam_masks.py IMAGES --model vit_h --out data/sam_masks/mine     # make what is missing
    python tools/prepare_sam_masks.py CONFIG --split val --model demo --out DIR          # images of a config
    python tools/prepare_sam_masks.py IMAGES --out DIR --verify                          # check; exit code 1 if wrong

A model then reads them with sam_masks=dict(folder='DIR'). `demo` is the demonstration model that comes with frozenmm.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm.engine.command_line import run_tool
from frozenmm.engine.options import parse_options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='CONFIG_OR_FOLDER', help='a config, or a folder of images')
    parser.add_argument('--out', required=True, help='folder of the masks')
    parser.add_argument('--model', default='vit_h', help='vit_h, vit_l, vit_b, vit_t (MobileSAM) or demo')
    parser.add_argument('--weights', help='the model\'s official file, if it is not in the cache folder')
    parser.add_argument('--split', default='test', help='data loader of a config: train, val or test')
    parser.add_argument('--device', default='auto',
                        help='cpu, cuda, cuda:1, mps, or auto (default): the best one of this machine')
    parser.add_argument('--verify', action='store_true', help='compute nothing, read everything')
    parser.add_argument('--options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='of the generator, e.g. points_per_side=16 iou_threshold=0.7 choice=best count=100')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from frozenmm.apis import sam_mask_preparation as preparation
    from frozenmm.segmentation.frozen_seg.automatic_masks import AutomaticMasks
    images = preparation.find_images(args.source, args.split)
    if args.verify:
        wrong = preparation.verify_sam_masks(images, args.out)
    else:
        options = {**(preparation.DEMO_OPTIONS if args.model == 'demo' else {}), **parse_options(args.options)}
        generator = AutomaticMasks(preparation.build_prompter(args.model, args.weights, args.device), **options)
        report = preparation.prepare_sam_masks(images, generator, args.out)
        print(f'{report.made} files made ({report.empty} without a mask), {report.found} were there')
        wrong = report.failed
    print('\n'.join(f'{image}: {text}' for image, text in wrong.items()) or f'masks of all {len(images)} images are in '
          f'{args.out}')
    sys.exit(1 if wrong else 0)


if __name__ == '__main__':
    run_tool(main)
