"""How a frozen part learns what a plain mmdet / mmseg model does not tell its parts: normalisation and image.

A backbone sees a normalised batch and not how it was normalised; a neck sees feature maps and not the image. Both are
learnt when the part becomes a child of a model, through PyTorch's hook for registered submodules: the statistics are
read off the model's data preprocessor, and the backbone is asked to hand its input on beside its maps. So nothing is
stored between two forwards, no part refers to its model (deep copies, EMA, pickles and state dicts stay clean), and a
config needs no extra line.
"""
from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from frozenmm.structures import ImageStats

AUTO = 'auto'
_STATS_KEYS = ('mean', 'std', 'channel_order')


@runtime_checkable
class Joining(Protocol):
    """A module that wants to see the model that it becomes a part of."""

    def join(self, model: nn.Module) -> None:
        """Called once, with the first owner that has a data preprocessor, before the owner lists the module."""


_waiting: list[weakref.ref[nn.Module]] = []
_hook: torch.utils.hooks.RemovableHandle | None = None


def call_when_joined(module: nn.Module) -> None:
    """Have `module.join(model)` called when the module, or one that holds it, is assigned to a model.

    A model is any module with a `data_preprocessor`: every mmengine, mmdet and mmseg model. The watch over
    registrations ends with the last waiting module.

    Args:
        module: has a method `join` (see `Joining`).
    """
    global _hook
    _waiting.append(weakref.ref(module))
    if _hook is None:
        _hook = register_module_module_registration_hook(_watch)


def _watch(owner: nn.Module, name: str, child: nn.Module | None) -> None:
    """Look for waiting modules in what was just assigned to a model."""
    global _hook
    if child is not None and isinstance(getattr(owner, 'data_preprocessor', None), nn.Module):
        inside = {id(module) for module in child.modules()}
        for reference in [reference for reference in _waiting if id(reference()) in inside]:
            _waiting.remove(reference)
            cast(Joining, reference()).join(owner)
    _waiting[:] = [reference for reference in _waiting if reference() is not None]
    if not _waiting and _hook is not None:
        _hook.remove()
        _hook = None


def parse_stats(image_stats: str | dict | ImageStats) -> ImageStats | None:
    """Statistics as the user wrote them; None for `'auto'`.

    Args:
        image_stats: `'auto'`, `ImageStats`, or a dict with `mean`, `std` (three numbers each, for pixels in 0..255) and
            `channel_order` (`'rgb'` or `'bgr'`, the order that the model sees).

    Raises:
        ValueError: another string, unknown or missing keys, or what `ImageStats` refuses.
        TypeError: another type.
    """
    if isinstance(image_stats, ImageStats):
        return image_stats
    if isinstance(image_stats, str):
        if image_stats != AUTO:
            raise ValueError(f'image_stats must be {AUTO!r} or dict(mean=..., std=..., channel_order=...), '
                             f'got {image_stats!r}')
        return None
    if not isinstance(image_stats, dict):
        raise TypeError(f'image_stats must be {AUTO!r}, a dict or ImageStats, got {type(image_stats).__name__}')
    if set(image_stats) != set(_STATS_KEYS):
        raise ValueError(f'image_stats needs exactly the keys {list(_STATS_KEYS)}, got {list(image_stats)}')
    mean, std = (cast('tuple[float, float, float]', tuple(map(float, image_stats[key]))) for key in ('mean', 'std'))
    return ImageStats(mean, std, image_stats['channel_order'])


def agreed_stats(own: ImageStats | None, model: nn.Module, *, part: str) -> ImageStats:
    """The statistics of a part of this model: its own, or those of the data preprocessor; never a guess.

    Args:
        own: what the user wrote, None for `'auto'`.
        model: has a `data_preprocessor`.
        part: what errors call the part.

    Raises:
        ValueError: `own` and the data preprocessor differ, or neither says how images are normalised.
    """
    found = preprocessor_stats(cast(nn.Module, model.data_preprocessor))
    owner = type(model).__name__
    if found is None:
        if own is None:
            raise ValueError(
                f'the data preprocessor of {owner} does not normalise, so {part} cannot know how its images were '
                'normalised; write image_stats=dict(mean=[...], std=[...], channel_order=\'rgb\' or \'bgr\') '
                '(mean 0 and std 1 for raw pixels)')
        return own
    if own is not None and not _same(own, found):
        raise ValueError(f'{part} was told that images are normalised by {own}, but the data preprocessor of {owner} '
                         f'applies {found}; correct one, or leave image_stats at {AUTO!r}')
    return found


def preprocessor_stats(preprocessor: nn.Module) -> ImageStats | None:
    """What a data preprocessor applies, None when it does not normalise; looks inside multi-branch ones."""
    inner = getattr(preprocessor, 'data_preprocessor', None)
    if isinstance(inner, nn.Module):
        return preprocessor_stats(inner)
    if not isinstance(getattr(preprocessor, 'mean', None), Tensor):
        return None
    return ImageStats.from_preprocessor(preprocessor)


def _same(one: ImageStats, other: ImageStats) -> bool:
    pairs = zip(one.mean + one.std, other.mean + other.std)
    # the preprocessor keeps float32 copies of the config's numbers
    return one.channel_order == other.channel_order and all(abs(a - b) <= 1e-5 * max(1.0, abs(a)) for a, b in pairs)


class MapsWithImage(tuple):
    """A backbone's maps, and the batch that it saw.

    Attributes:
        image: (B, 3, H, W), the normalised, padded batch.
    """

    image: Tensor

    def __new__(cls, maps: Iterable[Tensor], image: Tensor) -> MapsWithImage:
        """Maps in the order of the backbone."""
        made = super().__new__(cls, maps)
        made.image = image
        return made

    def __reduce__(self) -> tuple:
        return type(self), (tuple(self), self.image)


def hand_image_on(backbone: nn.Module, inputs: tuple, outputs: object) -> MapsWithImage:
    """Forward hook of a backbone: its maps, with the image beside them.

    Raises:
        TypeError: the backbone does not return a list or tuple of maps.
    """
    if not isinstance(outputs, list | tuple):
        raise TypeError(f'FrozenFeatureNeck needs a backbone that returns a list or tuple of maps, but '
                        f'{type(backbone).__name__} returned {type(outputs).__name__}')
    return MapsWithImage(outputs, inputs[0])


def ask_for_image(model: nn.Module) -> None:
    """Install `hand_image_on` on the model's backbone, once.

    Raises:
        ValueError: the model has no backbone (or none yet).
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, nn.Module):
        raise ValueError(
            f'{type(model).__name__} has no backbone whose input FrozenFeatureNeck could read; it works in models with '
            '`backbone` and `neck` (mmdet detectors, mmseg EncoderDecoder)')
    if hand_image_on not in backbone._forward_hooks.values():
        backbone.register_forward_hook(hand_image_on)
