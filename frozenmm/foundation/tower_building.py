"""The one place where a part of a model takes its image tower: as a config or as a built one."""
from __future__ import annotations

from collections.abc import Mapping

from frozenmm.errors import WrongKind
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.registry import MODELS


def build_tower(tower: ImageTower | Mapping[str, object], *, part: str, **defaults: object) -> ImageTower:
    """The tower of a config, or the tower given.

    Args:
        tower: config with `type`, or a built tower.
        part: what errors call its owner.
        **defaults: constructor arguments of the tower where its config does not name them.

    Raises:
        WrongKind: neither, or the config builds something else than an image tower.

    >>> build_tower(dict(type='frozenmm.CLIPTower', model='ViT-B/32', weights='random'), part='my head',
    ...             resize_mode='none').resize_mode
    'none'
    """
    built = MODELS.build({**defaults, **tower}) if isinstance(tower, Mapping) else tower
    if not isinstance(built, ImageTower):
        raise WrongKind(f'{part} needs an image tower, e.g. dict(type=\'frozenmm.TimmTower\', model=\'resnet50\'), '
                        f'got {type(built).__name__}')
    return built
