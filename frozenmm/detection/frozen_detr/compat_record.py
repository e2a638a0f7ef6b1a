"""Where the official code computes differently from the default, carried by checkpoints that need it."""
from __future__ import annotations

from torch import nn

from frozenmm.foundation import ImageTower

RECORD = 'numerics_record'
"""Its key in a state dict; the name and the entries are those of files since frozenmm 0.1."""
MMDET = dict(reference_eps=1e-5, clip_boxes=True, legacy_border=False)
"""`compat=False`: mmdet's numbers, and the whole image for the towers."""
OFFICIAL = dict(reference_eps=1e-3, clip_boxes=False, legacy_border=True)
"""`compat=True`: what official DINO-coco checkpoints were trained and tested with."""

FORK = dict(reference_eps=1e-3, clip_boxes=True, legacy_border=True)
"""What the authors' mmdet-2.x fork (Co-DINO, LVIS) does."""


def read(head: nn.Module, towers: list[ImageTower]) -> dict[str, float | bool]:
    """The record of a detector; foreign heads have mmdet's numbers."""
    cropped = [tower.compat for tower in towers if tower.resize_mode == 'center_crop']
    return dict(reference_eps=getattr(head, 'reference_eps', MMDET['reference_eps']),
                clip_boxes=getattr(head, 'clip_boxes', True), legacy_border=bool(cropped) and all(cropped))


def apply(record: dict[str, float | bool], head: nn.Module, towers: list[ImageTower]) -> None:
    """Let a detector compute as its record says: its head, and the border of towers that crop."""
    for name in 'reference_eps', 'clip_boxes':
        if hasattr(head, name):
            setattr(head, name, record[name])
    for tower in towers:
        if tower.resize_mode == 'center_crop':
            tower.compat = bool(record['legacy_border'])
