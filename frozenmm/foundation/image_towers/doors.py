"""Which tower opens a model: a name given to the wrong one is answered with the right one."""
from __future__ import annotations

import re
from collections.abc import Iterable

from frozenmm.errors import UnknownName
from frozenmm.foundation.lookup import lookup

DOORS = (
    (r'convnext.*dinov3|dinov3.*convnext', 'TimmTower'),
    (r'dinov3', 'DINOv3Tower'),
    (r'dinov2', 'DINOv2Tower'),
    (r'^dino_', 'DINOTower'),
    (r'mobile_?sam', 'MobileSAMTower'),
    (r'sam_?2|hiera', 'TimmTower'),
    (r'^sam_', 'SAMTower'),
    (r'^c-radio', 'RADIOTower'),
    (r'_patch\d+_|^swin|^beit|^eva02|tipsv2|fastvit', 'TimmTower'),
    (r'siglip|mobileclip|pe-core|metaclip|dfn|vitamin', 'OpenCLIPTower'),
)
"""Patterns in the names of models, in lower case, and the tower that knows them; the first one that fits counts."""


def check_door(name: str, tower: str) -> None:
    """Refuse a name that belongs to another tower.

    Args:
        name: of a model that `tower` does not know.
        tower: class that was asked.

    Raises:
        UnknownName: the text names the class that knows such models.

    >>> check_door('dinov3_vits16', 'DINOv2Tower')
    Traceback (most recent call last):
    frozenmm.errors.UnknownName: DINOv2Tower does not know 'dinov3_vits16'; it is opened by DINOv3Tower
    """
    door = next((door for pattern, door in DOORS if re.search(pattern, name.lower())), tower)
    if door != tower:
        raise UnknownName(f'{tower} does not know {name!r}; it is opened by {door}')


def model_name(name: str, known: Iterable[str], *, kind: str, tower: str, prefix: str = '') -> str:
    """The spelling of a model's name among those that a tower knows; see `lookup`.

    Args:
        name: what the user wrote.
        known: names that exist.
        kind: what they are, for the error.
        tower: the class that is asked.
        prefix: stands before the known names and may be left out.

    Raises:
        UnknownName: no such name; the text names the tower that knows it, or the nearest names.
    """
    try:
        return lookup(name if name.lower().startswith(prefix[:4].lower()) else f'{prefix}{name}', known, kind)
    except UnknownName:
        check_door(name, tower)
        raise
