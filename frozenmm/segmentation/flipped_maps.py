"""Maps of flipped pictures, as test-time augmentation makes them, turned back."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from frozenmm.errors import UserError

AXES = {'horizontal': (-1,), 'vertical': (-2,), 'diagonal': (-2, -1)}


def unflipped(maps: Tensor, metainfo: Mapping[str, Any]) -> Tensor:
    """Maps (C, H, W) as the unflipped picture has them.

    Raises:
        UserError: a `flip_direction` that there is not.
    """
    if not metainfo.get('flip'):
        return maps
    direction = metainfo.get('flip_direction', 'horizontal')
    if direction not in AXES:
        raise UserError(f'flip_direction must be one of {list(AXES)}, got {direction!r}')
    return maps.flip(AXES[direction])
