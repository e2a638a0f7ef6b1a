"""Convert an official checkpoint to ours.

    frozenmm convert frozen_detr IN.pth OUT.safetensors [--classes 80|91]
    frozenmm convert fc_clip fcclip_cocopan.pth OUT.safetensors [--tower CLIP_FILE]
    frozenmm convert frozen_seg IN.pth OUT.safetensors [--tower CLIP_FILE]
    frozenmm convert fusioner IN.pth OUT.safetensors
    frozenmm convert clip ViT-L-14-336px.pt OUT.safetensors
    frozenmm convert dinov2 dinov2_vitl14_pretrain.pth OUT.safetensors

Every key is accounted for; a file of another system is refused by name.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from frozenmm_command import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('system', help='one of the above')
    parser.add_argument('source', type=Path, metavar='IN', help='official file')
    parser.add_argument('target', type=Path, metavar='OUT', help='file to write')
    parser.add_argument('--classes', type=int, choices=(80, 91),
                        help='frozen_detr: 80 COCO categories (default) or the official 91 rows')
    parser.add_argument('--tower', type=Path, metavar='CLIP_FILE',
                        help='fc_clip, frozen_seg: the CLIP weights that the result will be used with, to be compared')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.convert.command import convert_file
    from frozenmm.errors import UserError
    for name, systems in (('classes', ('frozen_detr', )), ('tower', ('fc_clip', 'frozen_seg'))):
        if getattr(args, name) is not None and args.system not in systems:
            raise UserError(f'--{name} goes with {" and ".join(systems)} only, not with {args.system}')
    print(convert_file(args.system, args.source, args.target, **options.given(args, 'classes', 'tower')))
    print(f'wrote {args.target}')
