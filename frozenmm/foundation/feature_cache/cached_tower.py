"""An image tower whose features are kept on disk."""
from __future__ import annotations

import atexit
import logging
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.foundation.feature_cache.cache import CacheFull, FeatureCache
from frozenmm.foundation.feature_cache.recipe import recipe_of
from frozenmm.foundation.feature_cache.shards import STORED_TYPES, from_tensors, to_tensors
from frozenmm.foundation.image_tower import TOKEN_COUNTS, ImageTower
from frozenmm.foundation.lookup import choice
from frozenmm.foundation.wrapping_tower import WrappingTower, completed, pixel_digest
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats, TowerFeatures

CACHE_MODES = ('fill', 'read', 'off')


def image_key(image: Tensor, size: tuple[int, int], stats: ImageStats | None, num_tokens: int, *,
              padding_counts: bool) -> str:
    """Thirty-two hex digits for what decides the features of one image, the tower apart.

    Args:
        image: (3, H, W), as it reaches the tower: the variant that augmentation made is in its pixels.
        size: valid height and width.
        stats: its normalisation.
        num_tokens: image tokens asked for.
        padding_counts: the tower sees the padding too, so the same image in a larger batch has other features.
    """
    if not padding_counts:
        image = image[:, :size[0], :size[1]]
    return pixel_digest(image, size, stats or ImageStats(), num_tokens, image.dtype)


@MODELS.register_module()
class CachedTower(WrappingTower):
    """A tower around another one: an image whose features are on disk costs no forward pass.

    One line makes any model read and fill a cache: where it says `tower=dict(type='frozenmm.X', ...)`, write
    `tower=dict(type='frozenmm.CachedTower', folder='cache/x', tower=dict(type='frozenmm.X', ...))`. Images are told
    apart by the pixels that reach the tower. So it pays where the same pixels come back: without augmentation, or with
    a finite number of variants (`frozenmm.StoredVariants`). `tools/cache_features.py CONFIG` fills it beforehand.

    With `resize_mode='none'` the tower sees the padding of the batch, so the same image beside a larger one is another
    entry; use crops of one size, or `batch_size=1`.

    Args:
        tower: config of an image tower, or a built one; its outputs are passed on unchanged.
        folder: where the features lie; it belongs to this tower with these options.
        mode: `'fill'` computes and stores what is missing, `'read'` refuses what is missing, `'off'` does neither.
        store: type of the stored numbers, `'fp32'` (exact), `'bf16'` or `'fp16'` (half the size), `'int8'` (a quarter,
            with a scale for every channel).
        quota_gb: gigabytes (2**30 bytes) that the folder may take; when it is full, training goes on without storing.
        shard_mb: megabytes (2**20 bytes) of a shard; a killed process loses at most one.
        **options: arguments of the tower where its config does not name them.

    Attributes:
        hits: images whose features were read.
        misses: images whose features were computed.
        full_is_error: raise when there is no room, instead of going on without storing.
        seen: collects the keys of all images, when it is a set.

    Raises:
        WrongKind: `tower` is no image tower.
        UserError: unknown mode or type; a folder with features of another tower or other options, with every
            difference named; a tower with `gradient='through'`.
    """

    def __init__(self, tower: Mapping | ImageTower, folder: str | Path, *, mode: str = 'fill', store: str = 'fp32',
                 quota_gb: float = 50.0, shard_mb: float = 64.0, **options: object) -> None:
        super().__init__(tower, **options)
        self.mode = choice('mode', mode, CACHE_MODES)
        self.store = choice('store', store, STORED_TYPES)
        self.hits = self.misses = 0
        self.full_is_error = False
        self.seen: set[str] | None = None
        self.cache: FeatureCache | None = None
        if mode != 'off':
            self.cache = FeatureCache(folder, recipe_of(self.inner, store), quota=int(quota_gb * 2**30),
                                      shard_bytes=int(shard_mb * 2**20))
            # copies share the cache, so it is written when the interpreter ends, not when one of them goes
            atexit.register(_close, weakref.ref(self.cache))

    def forward(  # type: ignore[override]
            self, images: Tensor, valid_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
            image_stats: ImageStats | None = None, *, num_tokens: int = 0) -> TowerFeatures:
        """Features of a padded batch; see `ImageTower.forward`.

        Raises:
            UserError: in `'read'` mode, an image that is not in the cache.
            CacheFull: no room, if `full_is_error`.
        """
        if self.cache is None or num_tokens not in TOKEN_COUNTS:
            return self.inner(images, valid_sizes, image_stats, num_tokens=num_tokens)
        # an image with NaN is never found, and the tower refuses it
        sizes = self._check_sizes(images, valid_sizes)
        keys = self.keys(images, sizes, image_stats, num_tokens)
        if self.seen is not None:
            self.seen.update(keys)
        found = [self.cache.get(key) for key in keys]
        self.misses += found.count(None)
        self.hits += len(keys) - found.count(None)

        def compute(missing: list[int]) -> TowerFeatures:
            if self.mode == 'read':
                raise UserError(self._not_there(len(missing), len(keys)))
            return self.inner(images[missing], [sizes[index] for index in missing], image_stats, num_tokens=num_tokens)

        return completed(
            [None if entry is None else _to(from_tensors(entry, self.channels), images.device) for entry in found],
            compute, lambda index, features: _to(self._put(keys[index], features), images.device))

    def keys(self, images: Tensor, sizes: Sequence[tuple[int, int]], stats: ImageStats | None,
             num_tokens: int) -> list[str]:
        """The key of each image of a batch; see `image_key`."""
        return [image_key(image, size, stats, num_tokens, padding_counts=self.resize_mode == 'none')
                for image, size in zip(images, sizes)]

    def _put(self, key: str, features: TowerFeatures) -> TowerFeatures:
        """Store features; returns them as they will be read, so that a rounded store rounds the first time too."""
        tensors = to_tensors(features, self.store)
        if self.cache is not None and self.mode == 'fill':
            try:
                self.cache.put(key, tensors)
            except CacheFull as error:
                if self.full_is_error:
                    raise
                self.mode = 'full'
                print_log(f'{error}; training goes on, features that are not stored are computed every time',
                          logger='current', level=logging.WARNING)
        return features if self.store == 'fp32' else from_tensors(tensors, self.channels)

    def _not_there(self, missing: int, count: int) -> str:
        folder = '' if self.cache is None else self.cache.folder.absolute()
        entries = 0 if self.cache is None else len(self.cache)
        return (f'{missing} of {count} images of a batch are not in the feature cache {folder} ({entries} entries), '
                'and mode=\'read\' computes none; fill it with tools/cache_features.py CONFIG or set '
                'mode=\'fill\'. Are the random transforms of the pipeline inside StoredVariants?')


def _close(reference: weakref.ref) -> None:
    cache = reference()
    if cache is not None:
        try:
            cache.close()
        except CacheFull as error:
            print_log(str(error), logger='current', level=logging.WARNING)


def _to(features: TowerFeatures, device: torch.device) -> TowerFeatures:
    return TowerFeatures.of({name: value.to(device) for name, value in features.tensors().items()})
