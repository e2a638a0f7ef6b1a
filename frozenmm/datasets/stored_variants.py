"""Augmentation with a finite number of outcomes per image, so that frozen features can be computed once for each."""
from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from mmcv.transforms import BaseTransform, Compose

from frozenmm.errors import UserError
from frozenmm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class StoredVariants(BaseTransform):
    """Random transforms whose outcome for an image is one of a fixed number of variants.

    Which variant an image gets is drawn anew every time; what a variant does to the image follows from the image's path
    and the variant's number alone. So every variant comes back with the very same pixels, and a tower that remembers
    its features (`frozenmm.RememberingTower`) meets each of them only once as new.

    Args:
        transforms: the random transforms.
        variants: number of outcomes per image; more of them augment more, fewer of them are computed sooner.
        seed: another seed gives other variants.

    The result gets the key `variant`.

    Attributes:
        only: the variant to make instead of a random one, for going through all of them.
    """

    def __init__(self, transforms: list[dict | Callable], variants: int = 8, seed: int = 0) -> None:
        if variants < 1:
            raise UserError(f'variants must be at least 1, got {variants}')
        self.inner = Compose(transforms)
        self.variants = variants
        self.seed = seed
        self.only: int | None = None

    def transform(self, results: dict) -> dict | None:
        """The transformed sample; None where an inner transform drops it."""
        variant = np.random.randint(self.variants) if self.only is None else self.only
        key = zlib.crc32(f'{self.seed}/{results["img_path"]}/{variant}'.encode())
        with _randomness(key):
            results = self.inner(results)
        if results is not None:
            results['variant'] = variant
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(variants={self.variants}, seed={self.seed}, transforms={self.inner})'


@contextmanager
def _randomness(seed: int) -> Iterator[None]:
    """Seed the two generators that mmcv's transforms draw from, and give them back as they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
