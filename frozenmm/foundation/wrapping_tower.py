"""What image towers share that stand around another one and answer some images without it."""
from __future__ import annotations

from frozenmm.foundation.image_tower import ImageTower
from frozenmm.foundation.tower_building import build_tower


class WrappingTower(ImageTower):
    """A tower with the network, outputs and state-dict record of another one, `inner`.

    Args:
        tower: config of an image tower, or a built one.
        **options: arguments of the tower where its config does not name them.

    Raises:
        TypeError: `tower` is no image tower.
        ValueError: options beside a built tower; a tower with `gradient='through'`, whose outputs depend on the graph.
    """

    inner: ImageTower

    def __init__(self, tower: dict | ImageTower, **options: object) -> None:
        kind = type(self).__name__
        if options and not isinstance(tower, dict):
            raise ValueError(f'{list(options)} must be given to the tower itself when {kind} gets a built one')
        inner = build_tower(tower, part=kind, **options)
        if inner.gradient == 'through':
            raise ValueError(f'{inner.name} has gradient=\'through\', whose features cannot be reused; use '
                             '\'detached\'')
        # outside the module tree: the state dict holds one record of the network, the one of this tower
        self.__dict__['inner'] = inner
        super().__init__(inner._frozen, input=inner.input, channels=inner.channels, strides=inner.strides,
                         token_channels=inner.token_channels, resize_mode=inner.resize_mode, size=inner.size,
                         compat=inner.compat, quantise=inner.quantise, compile=inner.compile_network)

    @property
    def compat(self) -> bool:  # type: ignore[override]
        """That of `inner`, which alone prepares images; converted checkpoints set it after construction."""
        return self.inner.compat

    @compat.setter
    def compat(self, value: bool) -> None:
        self.inner.compat = value
