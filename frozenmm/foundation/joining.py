"""How a frozen part learns what a plain mmdet / mmseg model does not tell its parts: normalisation and image.

A backbone sees a normalised batch and not how it was normalised; a neck sees feature maps and not the image. Both are
learnt when a model takes the part in: the statistics are read off its data preprocessor, and the model's backbone and
neck get one `BatchInView` that carries the image from one to the other. PyTorch tells a module nothing about its owner,
so registrations of submodules are watched while a part waits for its model, and no longer; a config needs no extra
line, whichever tool builds it.
"""
from __future__ import annotations

import threading
import weakref
from typing import Protocol, cast

from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.utils.hooks import RemovableHandle

from frozenmm.errors import UnknownName, UserError, WrongKind
from frozenmm.structures import ImageStats

AUTO = 'auto'
_STATS_KEYS = ('mean', 'std', 'channel_order')


class Joining(Protocol):
    """A module that wants to see the model that it becomes a part of."""

    def join(self, model: nn.Module) -> None:
        """Called once, with the first owner that has a data preprocessor, before the owner lists the module."""


_waiting: list[weakref.ref[nn.Module]] = []
_watch: RemovableHandle | None = None


def join_when_taken_in(part: nn.Module) -> None:
    """Have `part.join(model)` called when the part, or a module that holds it, is assigned to a model.

    A model is any module with a `data_preprocessor`: every mmengine, mmdet and mmseg model. The watch ends with the
    last part that waits.

    Args:
        part: is `Joining`.
    """
    global _watch
    _waiting.append(weakref.ref(part))
    if _watch is None:
        _watch = register_module_module_registration_hook(_look)


def _look(owner: nn.Module, name: str, child: nn.Module | None) -> None:
    """Look for waiting parts in what was just assigned to a model."""
    global _watch
    if child is not None and isinstance(getattr(owner, 'data_preprocessor', None), nn.Module):
        inside = {id(module) for module in child.modules()}
        for reference in [reference for reference in _waiting if id(reference()) in inside]:
            _waiting.remove(reference)
            cast(Joining, reference()).join(owner)
    _waiting[:] = [reference for reference in _waiting if reference() is not None]
    if not _waiting and _watch is not None:
        _watch.remove()
        _watch = None


def parse_stats(image_stats: str | dict | ImageStats) -> ImageStats | None:
    """Statistics as the user wrote them; None for `'auto'`.

    Args:
        image_stats: `'auto'`, `ImageStats`, or a dict with `mean`, `std` (three numbers each, for pixels in 0..255) and
            `channel_order` (`'rgb'` or `'bgr'`, the order that the model sees).

    Raises:
        UserError: another string or type, unknown or missing keys, or what `ImageStats` refuses.

    >>> parse_stats(dict(mean=[0, 0, 0], std=[255, 255, 255], channel_order='bgr')).std
    (255.0, 255.0, 255.0)
    """
    if isinstance(image_stats, ImageStats):
        return image_stats
    if isinstance(image_stats, str):
        if image_stats != AUTO:
            raise UnknownName(f'image_stats must be {AUTO!r} or dict(mean=..., std=..., channel_order=...), '
                             f'got {image_stats!r}')
        return None
    if not isinstance(image_stats, dict):
        raise WrongKind(f'image_stats must be {AUTO!r}, a dict or ImageStats, got {type(image_stats).__name__}')
    if set(image_stats) != set(_STATS_KEYS):
        raise UserError(f'image_stats needs exactly the keys {list(_STATS_KEYS)}, got {list(image_stats)}')
    mean, std = (cast('tuple[float, float, float]', tuple(map(float, image_stats[key]))) for key in ('mean', 'std'))
    return ImageStats(mean, std, image_stats['channel_order'])


def agreed_stats(own: ImageStats | None, model: nn.Module, *, part: str) -> ImageStats:
    """The statistics of a part of this model: its own, or those of the data preprocessor; never a guess.

    Args:
        own: what the user wrote, None for `'auto'`.
        model: has a `data_preprocessor`.
        part: what errors call the part.

    Raises:
        UserError: `own` and the data preprocessor differ, or neither says how images are normalised.
    """
    found = preprocessor_stats(cast(nn.Module, model.data_preprocessor))
    owner = type(model).__name__
    if found is None:
        if own is None:
            raise UserError(
                f'the data preprocessor of {owner} does not normalise, so {part} cannot know how its images were '
                'normalised; write image_stats=dict(mean=[...], std=[...], channel_order=\'rgb\' or \'bgr\') '
                '(mean 0 and std 1 for raw pixels)')
        return own
    if own is not None and not _same(own, found):
        raise UserError(f'{part} was told that images are normalised by {own}, but the data preprocessor of {owner} '
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


class BatchInView:
    """The batch that a model's backbone is looking at, for the parts that get its maps.

    The model owns it through its parts: copies of the model have one of their own. An image is kept from the backbone's
    forward until it is taken, per thread, so that nothing mixes or stays.
    """

    def __init__(self) -> None:
        self._images: dict[int, Tensor] = {}

    def note(self, backbone: nn.Module, inputs: tuple) -> None:
        """Forward hook of the backbone, called before it."""
        self._images[threading.get_ident()] = inputs[0]

    def take(self) -> Tensor | None:
        """The image (B, 3, H, W) of the backbone's last forward in this thread; None if it was taken already."""
        return self._images.pop(threading.get_ident(), None)

    def __getstate__(self) -> dict:
        return {'_images': {}}


def share_image(model: nn.Module) -> BatchInView:
    """The view of a model's batch, noted by its backbone; the same one for all that ask.

    Raises:
        UserError: the model has no backbone.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, nn.Module):
        raise UserError(
            f'{type(model).__name__} has no backbone whose input FrozenFeatureNeck could read; it works in models with '
            '`backbone` and `neck` (mmdet detectors, mmseg EncoderDecoder)')
    for hook in backbone._forward_pre_hooks.values():
        owner = getattr(hook, '__self__', None)
        if isinstance(owner, BatchInView):
            return owner
    view = BatchInView()
    backbone.register_forward_pre_hook(view.note)
    return view
