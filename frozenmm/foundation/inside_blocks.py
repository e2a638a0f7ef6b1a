"""Trained parts inside a frozen transformer: they act for the length of one forward on a network that others share."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation.image_tower import ImageTower, RawFeatures
from frozenmm.foundation.tower_building import build_tower

_one_forward = threading.RLock()


Hook = tuple[nn.Module, Callable[..., Any], bool]
"""A module, a function and whether it runs before the module."""


@contextmanager
def hooked(hooks: Iterable[Hook]) -> Iterator[None]:
    """Around a forward of this thread on a network that others share: functions that act in it, and in no other."""
    mine = threading.get_ident()

    def alone(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: function(*given) if threading.get_ident() == mine else None

    with _one_forward, ExitStack() as held:
        for module, function, before in hooks:
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            held.callback(register(alone(function)).remove)
        yield


def transformer_blocks(tower: ImageTower) -> list[nn.Module]:
    """The blocks of a tower's network, in order.

    Raises:
        UserError: a network that is no plain stack of blocks.
    """
    count = None if tower._blocks is None else tower._blocks[0]
    for module in tower.network.modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) == count:
            kinds = {type(block) for block in module}
            if len(kinds) == 1 and list(next(iter(module)).children()):
                return list(module)
    raise UserError(f'{tower.name} is no stack of transformer blocks; take a ViT (frozenmm.CLIPTower, '
                    'frozenmm.DINOv2Tower, frozenmm.TimmTower, ...)')


class TowerWithParts(ImageTower):
    """A tower with the network and outputs of another one, `inner`, and trained parts of its own inside.

    Args:
        tower: config of an image tower, or a built one.
        **options: arguments of the tower where its config does not name them.
    """

    inner: ImageTower

    def __init__(self, tower: Mapping[str, Any] | ImageTower, **options: object) -> None:
        inner = build_tower(tower, part=type(self).__name__, **options)
        super().__init__(inner._frozen, input=inner.input, channels=inner.channels, strides=inner.strides,
                         token_channels=inner.token_channels, blocks=inner._blocks, taps=inner.taps or (),
                         resize_mode=inner.resize_mode, size=inner.size, compat=inner.compat, quantise=inner.quantise)
        self.gradient = 'through'  # to the parts; what caches features by the network alone refuses such a tower
        # outside the module tree: the state dict holds one record of the network, the one of this tower
        self.__dict__['inner'] = inner

    def hooks(self, network: nn.Module) -> list[Hook]:
        """What acts in the coming forward; nothing: the frozen output."""
        raise NotImplementedError(f'{type(self).__name__} must implement `hooks`')

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        """See `ImageTower.extract`; that of `inner` with the parts in place."""
        with hooked(self.hooks(network)):
            return self.inner.extract(network, pixels, num_tokens)


def first_norm(block: nn.Module, tower: str) -> nn.Module:
    """The norm before a block's attention.

    Raises:
        UserError: the block has none under a known name.
    """
    for name in ('norm1', 'ln_1'):
        if hasattr(block, name):
            return cast(nn.Module, getattr(block, name))
    raise UserError(f'the blocks of {tower} have no norm1 or ln_1 before their attention; take a plain ViT')
