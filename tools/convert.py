"""Convert an official checkpoint to ours.

    python tools/convert.py frozen_detr IN.pth OUT.safetensors [--classes 80|91]
    python tools/convert.py fc_clip fcclip_cocopan.pth OUT.safetensors [--tower CLIP_FILE]
    python tools/convert.py frozen_seg IN.pth OUT.safetensors [--tower CLIP_FILE]
    python tools/convert.py fusioner IN.pth OUT.safetensors
    python tools/convert.py clip ViT-L-14-336px.pt OUT.safetensors
    python tools/convert.py dinov2 dinov2_vitl14_pretrain.pth OUT.safetensors

Every key is accounted for; a file of another system is refused by name.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm.engine.command_line import run_tool


def main(arguments: list[str] | None = None) -> None:
    from frozenmm.convert.command import CONVERTERS, convert_file
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('system', choices=CONVERTERS)
    parser.add_argument('source', type=Path, metavar='IN')
    parser.add_argument('target', type=Path, metavar='OUT')
    parser.add_argument('--classes', type=int, choices=(80, 91),
                        help='frozen_detr: 80 COCO categories (default) or the official 91 rows')
    parser.add_argument('--tower', type=Path, metavar='CLIP_FILE',
                        help='fc_clip, frozen_seg: the CLIP weights that the result will be used with, to be compared')
    arguments = parser.parse_args(arguments)
    for name, systems in (('classes', ('frozen_detr',)), ('tower', ('fc_clip', 'frozen_seg'))):
        if getattr(arguments, name) is not None and arguments.system not in systems:
            parser.error(f'--{name} goes with {" and ".join(systems)} only')
    options = {name: value for name, value in (('classes', arguments.classes), ('tower', arguments.tower))
               if value is not None}
    print(convert_file(arguments.system, arguments.source, arguments.target, **options))
    print(f'wrote {arguments.target}')


if __name__ == '__main__':
    run_tool(main)
