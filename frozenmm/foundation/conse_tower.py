"""EfficientNet-Lite0 with one map more: what every cell shows, as a vector in the space of a text tower."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from torch import Tensor

from frozenmm.deprecation import renamed_arguments
from frozenmm.errors import UnknownName, UserError, WrongKind
from frozenmm.foundation.conse import ConSE
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.foundation.image_towers.efficientnet_lite import CHANNELS, STRIDES, EfficientNetLiteTower
from frozenmm.foundation.text_tower import TextTower
from frozenmm.foundation.wrapping_tower import WrappingTower
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats, TowerFeatures

TEXT_MAP = 'text'


@MODELS.register_module()
class ConSETower(WrappingTower):
    """The maps of EfficientNet-Lite0, and `'text'`: the rule of `ConSE` at every cell of res5.

    The text map is (B, D, h, w) of unit vectors, D being the width of the text tower, so that a head that reads class
    names of the same text tower starts from a space that both share.

    Args:
        tower: config of an `EfficientNetLiteTower`, or a built one whose `out_maps` include res5; the embedded one by
            default.
        text_tower: config of a text tower, or a built one; the embedded MiniLM by default.
        top_k: ImageNet classes that take part in a vector.
        out_maps: names of the maps to return, `'res1'` .. `'res5'` and `'text'`; all by default.
        store: keep the vectors of the ImageNet names on disk, see `text_embeddings`.
        **options: arguments of the image tower where its config does not name them.

    Raises:
        WrongKind: another image tower, or `text_tower` is no text tower.
        UserError: a map that there is not; top_k is not in 1..1000.

    Source: Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", ICLR 2014; for cells
    instead of whole images, our use.
    """

    _conse: ConSE

    @renamed_arguments(removed_in='0.3', text='text_tower')
    def __init__(self, tower: Mapping | ImageTower | None = None, text_tower: Mapping | TextTower | None = None, *,
                 top_k: int = 10, out_maps: Sequence[str] | None = None, store: bool = True,
                 **options: object) -> None:
        widths = {**CHANNELS, TEXT_MAP: 0}
        unknown = [name for name in out_maps or () if name not in widths]
        if unknown:
            raise UnknownName(f'ConSETower has no maps {unknown}; it gives {list(widths)}')
        wanted = [name for name in widths if out_maps is None or name in out_maps]
        if tower is None:
            tower = dict(type='frozenmm.EfficientNetLiteTower')
        if isinstance(tower, Mapping):  # the text map is made of res5
            options['out_maps'] = [name for name in CHANNELS if name in wanted or name == 'res5']
        super().__init__(dict(tower) if isinstance(tower, Mapping) else tower, **options)
        if not isinstance(self.inner, EfficientNetLiteTower):
            raise WrongKind(f'ConSETower needs an EfficientNetLiteTower, got {type(self.inner).__name__}')
        missing = [name for name in (*wanted, 'res5') if name != TEXT_MAP and name not in self.inner.channels]
        if missing:
            raise UserError(f'the tower given does not return the maps {missing}; add them to its out_maps')
        conse = ConSE(self.inner, text_tower, top_k=top_k, store=store)
        # outside the module tree, as `inner` is: a checkpoint records the image network once
        self.__dict__['_conse'] = conse
        widths[TEXT_MAP] = conse.channels
        self.channels = {name: widths[name] for name in wanted}
        self.strides = {name: STRIDES.get(name, STRIDES['res5']) for name in wanted}
        self.top_k = top_k
        # what a feature cache compares
        self.text_network = dict(name=conse.text_tower.name, fingerprint=conse.text_tower.fingerprint)

    def forward(  # type: ignore[override]
            self, images: Tensor, valid_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
            image_stats: ImageStats | None = None, *, num_tokens: int = 0) -> TowerFeatures:
        """Features of a padded batch; see `ImageTower.forward`."""
        found = self.inner(images, valid_sizes, image_stats, num_tokens=num_tokens)
        maps = dict(found.maps)
        if TEXT_MAP in self.channels:
            maps[TEXT_MAP] = self._conse.dense(found.map('res5'))
        return TowerFeatures(maps={name: maps[name] for name in self.channels}, valid=found.valid, region=found.region,
                             tokens=found.tokens, class_token=found.class_token, taps=found.taps)

    def _apply(self, fn: Callable, recurse: bool = True) -> ConSETower:
        super()._apply(fn, recurse)
        self._conse._apply(fn)
        return cast(ConSETower, self)
