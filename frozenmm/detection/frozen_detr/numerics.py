"""Where the official code computes differently from the default, carried by checkpoints that need it."""
from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from frozenmm.foundation import ImageTower

RECORD = 'numerics_record'
DEFAULT = dict(reference_eps=1e-5, clip_boxes=True, legacy_border=False)
"""mmdet's numbers, and the whole image for the towers."""
OFFICIAL = dict(reference_eps=1e-3, clip_boxes=False, legacy_border=True)
"""What official DINO-coco checkpoints were trained and tested with; see `EnhancedDINOHead` and `ImageTower`."""


def encode(numerics: dict[str, float | bool]) -> Tensor:
    """Numerics as a uint8 tensor for a state dict (mmengine moves every entry of one to the CPU)."""
    return torch.frombuffer(bytearray(json.dumps(numerics).encode()), dtype=torch.uint8)


def decode(record: Tensor) -> dict[str, float | bool]:
    """The numerics of a record."""
    return json.loads(bytes(record.cpu().tolist()))


def read(head: nn.Module, towers: list[ImageTower]) -> dict[str, float | bool]:
    """Numerics of a detector; foreign heads have mmdet's."""
    cropped = [tower.compat for tower in towers if tower.resize_mode == 'center_crop']
    return dict(reference_eps=getattr(head, 'reference_eps', DEFAULT['reference_eps']),
                clip_boxes=getattr(head, 'clip_boxes', True), legacy_border=bool(cropped) and all(cropped))


def apply(numerics: dict[str, float | bool], head: nn.Module, towers: list[ImageTower]) -> None:
    """Set the numerics of a detector: its head, and the border of towers that crop as the official code does."""
    for name in 'reference_eps', 'clip_boxes':
        if hasattr(head, name):
            setattr(head, name, numerics[name])
    for tower in towers:
        if tower.resize_mode == 'center_crop':
            tower.compat = bool(numerics['legacy_border'])
