"""An image tower that remembers what it has computed, for training on few images with a finite set of augmentations."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.foundation.wrapping_tower import WrappingTower, completed, pixel_digest
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats, TowerFeatures


class FeatureMemory:
    """Features of single images under a limit of memory; the least recently used ones go first.

    Attributes:
        limit: bytes at most.
        size: bytes in use.
        hits: lookups that were answered.
        misses: lookups that were not.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = self.hits = self.misses = 0
        self._entries: OrderedDict[str, TowerFeatures] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __deepcopy__(self, memo: dict) -> FeatureMemory:
        """Copies of a model, e.g. an EMA average, share the memory as they share the network."""
        return self

    def get(self, key: str) -> TowerFeatures | None:
        """The features of a key, or None."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
        else:
            self.hits += 1
            self._entries.move_to_end(key)
        return entry

    def put(self, key: str, features: TowerFeatures) -> TowerFeatures:
        """Store features and return them; those that exceed the limit by themselves are not kept."""
        size = _bytes(features)
        if key in self._entries or size > self.limit:
            return features
        self._entries[key] = features
        self.size += size
        while self.size > self.limit:
            _, oldest = self._entries.popitem(last=False)
            self.size -= _bytes(oldest)
        return features


@MODELS.register_module()
class RememberingTower(WrappingTower):
    """A tower around another one: an image that it has seen before, pixel for pixel, costs no forward pass.

    It pays where the same pixels come back: few images, and augmentation with a finite number of outcomes
    (`frozenmm.StoredVariants`). Features are kept in training only. Images are compared on the host, so on a GPU every
    batch is copied to it once.

    Args:
        tower: config of an image tower, or a built one; its outputs are passed on unchanged.
        megabytes: limit of the memory, on the tower's device.
        **options: arguments of the tower where its config does not name them.

    Raises:
        WrongKind: `tower` is no image tower.
        UserError: options beside a built tower; a limit that is not positive; a tower with `gradient='through'`, whose
            outputs depend on the graph.
    """

    def __init__(self, tower: Mapping | ImageTower, *, megabytes: float = 1024, **options: object) -> None:
        super().__init__(tower, **options)
        if megabytes <= 0:
            raise UserError(f'megabytes must be positive, got {megabytes}')
        self.memory = FeatureMemory(int(megabytes * 2**20))

    def forward(  # type: ignore[override]
            self, images: Tensor, valid_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
            image_stats: ImageStats | None = None, *, num_tokens: int = 0) -> TowerFeatures:
        """Features of a padded batch; see `ImageTower.forward`."""
        sizes = [(images.shape[-2], images.shape[-1])] * len(images) if valid_sizes is None else [
            (int(size[0]), int(size[1])) for size in valid_sizes]
        if not self.training or images.dim() != 4 or len(sizes) != len(images):  # the tower says what is wrong
            return self.inner(images, valid_sizes, image_stats, num_tokens=num_tokens)
        keys = [pixel_digest(image, size, image_stats, num_tokens, self.compat, image.dtype, image.device)
                for image, size in zip(images, sizes)]

        def compute(missing: list[int]) -> TowerFeatures:
            return self.inner(images[missing], [sizes[index] for index in missing], image_stats, num_tokens=num_tokens)

        return completed([self.memory.get(key) for key in keys], compute,
                         lambda index, features: self.memory.put(keys[index], features))


def _bytes(features: TowerFeatures) -> int:
    return sum(tensor.nbytes for tensor in features.tensors().values())
