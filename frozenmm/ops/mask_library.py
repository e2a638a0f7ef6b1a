"""Registration and input checks that the mask operators share.

A schema is defined once, here. The torch path is registered for every device; a compiled library, when loaded, adds its
kernel for its own device and takes precedence there.
"""
from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from frozenmm.errors import UserError

_LIBRARY = torch.library.Library('frozenmm', 'FRAGMENT')


def define_op(schema: str, definition: Callable, fake: Callable) -> None:
    """Registers operator `frozenmm::<schema>` with its torch path and its shape rule.

    Args:
        schema: operator schema without namespace, e.g. `'name(Tensor x) -> Tensor'`.
        definition: plain torch implementation for any device.
        fake: shapes and types of the results, for tracing.
    """
    name = schema.partition('(')[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, definition, 'CompositeExplicitAutograd')
    torch.library.register_fake(f'frozenmm::{name}', fake, lib=_LIBRARY)


def checked_map(function: str, name: str, value: Tensor, shape: str) -> Tensor:
    """`value` as detached float32, after checks.

    Args:
        function: public function, the first word of an error.
        name: the argument.
        value: what was given.
        shape: expected shape in words, such as (Q, h, w) or (Q, K); its commas give the rank.

    Raises:
        TypeError: no tensor, or no floating-point tensor.
        ValueError: wrong rank or an axis of length 0.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f'{function}: {name} must be a Tensor {shape}, got {type(value).__name__}.')
    if not value.is_floating_point():
        raise TypeError(f'{function}: {name} must be floating point, got {value.dtype}; convert it with .float().')
    if value.dim() != shape.count(',') + 1 - shape.count(',)'):
        raise ValueError(f'{function}: {name} must have shape {shape}, got {tuple(value.shape)}.')
    if 0 in value.shape:
        raise ValueError(f'{function}: {name} must have no empty axis, got shape {tuple(value.shape)} for {shape}.')
    return value.detach().float()


def check_same(function: str, first: tuple[str, Tensor], second: tuple[str, Tensor], *, axis: int = 0) -> None:
    """Raises ValueError unless both named tensors, (Q, ...) each, share the device and the length of `axis`."""
    (name_a, a), (name_b, b) = first, second
    if a.device != b.device:
        raise ValueError(f'{function}: {name_a} is on {a.device} but {name_b} on {b.device}; '
                         'move both to one device.')
    if a.shape[axis] != b.shape[axis]:
        raise ValueError(f'{function}: {name_a} has {a.shape[axis]} entries along axis {axis} but {name_b} has '
                         f'{b.shape[axis]}; both need one per query.')


def checked_classes(function: str, classes: Collection[int], count: int) -> list[int]:
    """The thing classes in ascending order; raises UserError where one lies outside 0..count - 1."""
    chosen = sorted(set(classes))
    if chosen and not 0 <= chosen[0] <= chosen[-1] < count:
        raise UserError(f'{function}: thing_classes must lie in 0..{count - 1}, got {chosen}.')
    return chosen
