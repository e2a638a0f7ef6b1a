"""Fusioner at test on many classes: our two modes against a loop that encodes text and image anew for every class.

    OMP_NUM_THREADS=2 python benchmarks/fusioner_speed.py            # official sizes, 60 classes; several minutes

Official sizes: CLIP ViT-L/14 at 224, 12 fusion layers of width 512, random weights, one image. Rows, in one run:
`loop` encodes the image and 32 prompts, in all 77 positions of CLIP's context, for every class, as the released code
does; `loop, short texts` the prompts only as far as they reach, as our tower does; `loop, text cached` the image only;
`per_class` gives the same masks (checked) with one pass of the image tower and classes in batches; `joint` is one pass
for all classes, whose masks differ. The loops are timed on `--loop-classes` classes and scaled to all of them; the
other classes' text vectors are drawn at random, since encoding 32 prompts for each of them would take minutes and is
not timed in any row. How good the masks of both modes are: `fusioner_coco_mini.py`, rows "together".
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.registry import init_default_scope
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import frozenmm  # noqa: E402, F401  (fills the holes of the installation before mmseg is imported)
from frozenmm.datasets.few_shot import fold_table  # noqa: E402
from frozenmm.registry import MODELS  # noqa: E402

SMALL_IMAGE = dict(input_resolution=224, patch_size=32, width=32, layers=1, heads=2, output_dim=24)
SMALL_TEXT = dict(width=32, layers=1, heads=2, output_dim=24)


def build(*, small: bool, chunk: int) -> nn.Module:
    init_default_scope('mmseg')
    torch.manual_seed(0)
    return MODELS.build(dict(
        type='frozenmm.FusionerSegmentor',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True),
        backbone=dict(type='frozenmm.FrozenBackbone', tower=dict(
            type='frozenmm.CLIPTower', model=SMALL_IMAGE if small else 'ViT-L/14', weights='random',
            patch_output='projected')),
        decode_head=dict(
            type='frozenmm.FusionerHead', in_channels=24 if small else 768, store_text=False,
            text_tower=dict(type='frozenmm.CLIPTextTower', model=SMALL_TEXT if small else 'ViT-L/14', weights='random'),
            channels=16 if small else 512, fusion=dict(num_layers=1 if small else 12),
            masks=dict(mode='per_class', class_chunk=chunk)),
        test_cfg=dict(mode='whole'))).eval()


def timed(function: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.perf_counter()
    with torch.no_grad():
        result = function()
    return time.perf_counter() - start, result


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--classes', type=int, default=60)
    parser.add_argument('--loop-classes', type=int, default=6, help='classes on which the loops are timed')
    parser.add_argument('--chunk', type=int, default=4, help='classes per batch of the per_class mode')
    parser.add_argument('--small', action='store_true', help='tiny networks, to try the script')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'fusioner_speed.json')
    args = parser.parse_args(arguments)
    names = fold_table('coco20i')['names'][:args.classes]
    looped = names[:args.loop_classes]
    model = build(small=args.small, chunk=args.chunk)
    head = model.decode_head
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))

    def one(name: str, *, fresh_text: bool) -> Tensor:
        if fresh_text:
            head.texts.words._known.pop(name, None)
        return head.forward(model.extract_feat(image), [[name]], (224, 224))

    def ours(mode: str) -> Tensor:
        head.mode = mode
        return head.forward(model.extract_feat(image), [names], (224, 224))

    rows: dict[str, float] = {}
    scale = len(names) / len(looped)
    tower = head.texts.tower
    embed = tower.embed

    def in_all_positions(network: nn.Module, ids: Tensor, lengths: Tensor) -> Tensor:
        return embed(network, nn.functional.pad(ids, (0, tower.context - ids.shape[1])), lengths)

    tower.embed = in_all_positions
    rows['loop'], reference = timed(lambda: torch.cat([one(name, fresh_text=True) for name in looped], 1))
    del tower.embed
    rows['loop, short texts'], _ = timed(lambda: torch.cat([one(name, fresh_text=True) for name in looped], 1))
    for name in names:
        if name not in head.texts.words._known:
            vector = torch.randn(head.texts.tower.channels, generator=torch.Generator().manual_seed(0))
            head.texts.words._known[name] = vector / vector.norm()
    rows['loop, text cached'], _ = timed(lambda: torch.cat([one(name, fresh_text=False) for name in looped], 1))
    rows = {key: value * scale for key, value in rows.items()}
    rows['per_class'], masks = timed(lambda: ours('per_class'))
    rows['joint'], _ = timed(lambda: ours('joint'))
    worst = float((masks[:, :len(looped)] - reference).abs().max())
    print(f'{len(names)} classes, one image; largest difference of a per_class logit from the loop: {worst:.1e}')
    for row, value in rows.items():
        print(f'{row:20}{value:9.2f} s  {rows["loop"] / value:6.1f}x of the loop  '
              f'{rows["loop, text cached"] / value:6.1f}x of the loop with text cached')
    revision = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    part = args.out.with_suffix('.part')
    part.write_text(json.dumps(dict(machine=platform.machine(), cores=os.cpu_count(), threads=torch.get_num_threads(),
                                    torch=torch.__version__, commit=revision, classes=len(names), small=args.small,
                                    loop_classes=len(looped), difference=worst, seconds=rows), indent=1))
    part.replace(args.out)
    return rows | dict(difference=worst)


if __name__ == '__main__':
    main()
