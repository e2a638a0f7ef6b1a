"""What image towers share that stand around another one and answer some images without it."""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.foundation.tower_building import build_tower
from frozenmm.structures import TowerFeatures, join_features, split_features

Sizes = Sequence[tuple[int, int]]


def pixel_digest(image: Tensor, *context: object) -> str:
    """Thirty-two hex digits for one image's pixels (3, H, W) and what else decides its features."""
    digest = hashlib.blake2b(repr((tuple(image.shape), *context)).encode(), digest_size=16)
    digest.update(image.detach().contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def completed(found: Sequence[TowerFeatures | None], compute: Callable[[list[int]], TowerFeatures],
              keep: Callable[[int, TowerFeatures], TowerFeatures]) -> TowerFeatures:
    """A batch's features, of which some are known.

    Args:
        found: features of every image (B = 1), None where they are not known.
        compute: the features of the images at these places, in one forward pass.
        keep: stores what was computed for the image at a place, and returns it as it will be found.
    """
    entries = list(found)
    missing = [index for index, entry in enumerate(entries) if entry is None]
    if missing:
        for index, entry in zip(missing, split_features(compute(missing))):
            entries[index] = keep(index, entry)
    return join_features([entry for entry in entries if entry is not None])


class WrappingTower(ImageTower):
    """A tower with the network, outputs and state-dict record of another one, `inner`.

    Args:
        tower: config of an image tower, or a built one.
        **options: arguments of the tower where its config does not name them.

    Raises:
        WrongKind: `tower` is no image tower.
        UserError: options beside a built tower; a tower with `gradient='through'`, whose outputs depend on the graph.
    """

    inner: ImageTower

    def __init__(self, tower: Mapping | ImageTower, **options: object) -> None:
        kind = type(self).__name__
        if options and not isinstance(tower, Mapping):
            raise UserError(f'{list(options)} must be given to the tower itself when {kind} gets a built one')
        inner = build_tower(tower, part=kind, **options)
        if inner.gradient == 'through':
            raise UserError(f'{inner.name} has gradient=\'through\', whose features cannot be reused; use '
                             '\'detached\'')
        # outside the module tree: the state dict holds one record of the network, the one of this tower
        self.__dict__['inner'] = inner
        super().__init__(inner._frozen, input=inner.input, channels=inner.channels, strides=inner.strides,
                         token_channels=inner.token_channels, blocks=inner._blocks, taps=inner.taps or (),
                         resize_mode=inner.resize_mode, size=inner.size, compat=inner.compat, quantise=inner.quantise,
                         compile=inner.compile_network)

    @property
    def compat(self) -> bool:  # type: ignore[override]
        """That of `inner`, which alone prepares images; converted checkpoints set it after construction."""
        return self.inner.compat

    @compat.setter
    def compat(self, value: bool) -> None:
        self.inner.compat = value
