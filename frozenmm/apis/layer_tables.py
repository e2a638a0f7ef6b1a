"""Tables of what the blocks of a frozen tower change, for `frozenmm analyse layers`."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F

from frozenmm.compat.devices import resolve_device
from frozenmm.compat.image_sources import read_images
from frozenmm.errors import UserError
from frozenmm.foundation.layer_analysis import block_cosines, block_tokens, skip_table
from frozenmm.foundation.lookup import choice
from frozenmm.registry import MODELS

TOWERS = {'clip': 'CLIPTower', 'dinov2': 'DINOv2Tower', 'dinov3': 'DINOv3Tower', 'sam': 'SAMTower', 'timm': 'TimmTower'}


def analyse_layers(tower: str, pictures: Sequence[str], *, weights: str | None = None,
                   skip: Sequence[int] | None = None, limit: int = 8, device: str = 'auto') -> dict[str, Any]:
    """Cosine of the tokens before and after each block, and rows of `SkipRow`.

    Args:
        tower: `'family:model'`, see `TOWERS`.
        pictures: files, folders or videos; each picture is squashed to the tower's input.
        weights: see the tower's family.
        skip: numbers of blocks to leave out; 1 to half of them by default.
        limit: pictures that are looked at.
        device: see `resolve_device`.

    Raises:
        UserError: unknown family or model, missing weights, unreadable pictures.
    """
    family, colon, model = tower.partition(':')
    if not colon:
        raise UserError(f'a tower is named FAMILY:MODEL, e.g. dinov2:dinov2_vits14, got {tower!r}')
    kind = TOWERS[choice('the family of a tower', family, list(TOWERS))]
    built = MODELS.build(dict(type=f'frozenmm.{kind}', model=model, weights=weights, resize_mode='squash'))
    built = built.to(resolve_device(device))
    found = [torch.from_numpy(image.pixels.copy()).permute(2, 0, 1).float()
             for image in islice(read_images(list(pictures)), limit)]
    images = torch.cat([F.interpolate(image[None], (built.size, built.size), mode='bilinear', antialias=True)
                        for image in found]).clamp(0, 255).to(built._frozen.device)
    cosines = block_cosines(block_tokens(built, images))
    counts = range(1, len(cosines) // 2 + 1) if skip is None else skip
    rows = [asdict(row) for row in skip_table(built, images, list(counts))]
    return dict(tower=built.name, fingerprint=built.fingerprint, pictures=len(images), cosines=cosines, skipped=rows)


def layer_text(tables: dict[str, Any]) -> str:
    """Both tables for a terminal."""
    lines = [f'{tables["tower"]}, {tables["pictures"]} pictures', 'block  cosine before and after']
    lines += [f'{index:5}  {cosine:.4f}' for index, cosine in enumerate(tables['cosines'])]
    lines.append('without  error  cosine   time  blocks')
    lines += [f'{len(row["blocks"]):7}  {row["error"]:.3f}  {row["cosine"]:.4f}  {100 * row["share"]:3.0f} %  '
              f'{", ".join(map(str, row["blocks"])) or "-"}' for row in tables['skipped']]
    return '\n'.join(lines)
