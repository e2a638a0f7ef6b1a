"""ConSE: image vectors in text space without a joint encoder, from class posteriors and the vectors of class names.

Source: Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", ICLR 2014, equations 3 and 4.
It is the embedded default (EfficientNet-Lite0 and MiniLM). It knows what ImageNet knows: animals, dishes, vehicles and
tools come out well; people, walls and textures, which are no ImageNet classes, do not.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.compat import require
from frozenmm.deprecation import renamed_arguments
from frozenmm.errors import UserError, WrongKind
from frozenmm.foundation.frozen_module import FrozenNetwork
from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower
from frozenmm.foundation.image_towers.efficientnet_lite_network import EfficientNetLite
from frozenmm.foundation.text_embeddings import text_embeddings
from frozenmm.foundation.text_tower import TextTower
from frozenmm.foundation.vocabulary import Vocabulary, VocabularyClass
from frozenmm.foundation.wrapping_tower import WrappingTower
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats

NUM_CLASSES = 1000


def imagenet_names() -> list[str]:
    """The first name of each of the 1000 ImageNet classes, in label order; two names stand twice.

    Raises:
        MissingPackage: timm is not installed.
    """
    info = require('timm.data', 'the ImageNet class names').ImageNetInfo('imagenet-1k')
    return [info.index_to_description(index).split(',')[0].strip() for index in range(info.num_classes())]


def combine(posteriors: Tensor, class_vectors: Tensor, top_k: int = 10) -> Tensor:
    """The mean of the vectors of the most probable classes, weighted with their probabilities.

    Args:
        posteriors: (..., K), not negative.
        class_vectors: (K, D).
        top_k: how many classes take part.

    Returns:
        (..., D) of length 1.

    Raises:
        UserError: K differs, or top_k is not in 1..K.
    """
    if posteriors.shape[-1] != len(class_vectors):
        raise ValueError(f'{posteriors.shape[-1]} class posteriors, but vectors of {len(class_vectors)} class names')
    if not 1 <= top_k <= len(class_vectors):
        raise ValueError(f'top_k must be in 1..{len(class_vectors)}, got {top_k}')
    values, classes = posteriors.float().topk(top_k, -1)
    # the weights' sum does not matter, as the result gets length 1; a plain sum, which autocast leaves in float32
    return F.normalize((values[..., None] * class_vectors.float()[classes]).sum(-2), dim=-1)


def head_map(network: nn.Module, last_map: Tensor) -> Tensor:
    """(B, 1280, h, w), the features whose mean the network classifies, from the map res5."""
    lite = cast(EfficientNetLite, network)
    return F.relu6(lite._bn1(lite._conv_head(last_map)))


def class_logits(network: nn.Module, features: Tensor) -> Tensor:
    """(..., K) class logits of features (..., 1280)."""
    return cast(EfficientNetLite, network)._fc(features)


class _ClassVectors(nn.Module):
    vectors: Tensor

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.register_buffer('vectors', vectors)


@MODELS.register_module()
class ConSE(nn.Module):
    """Image vectors in the space of a text tower, for whole images, regions and every cell of a map.

    Args:
        tower: an `EfficientNetLiteTower`, one inside a `CachedTower` or `RememberingTower`, or its config; by
            default one with `resize_mode='squash'`.
        text_tower: a `TextTower` or its config; the embedded MiniLM by default.
        top_k: how many classes take part in a vector.
        store: keep the vectors of the class names on disk, see `text_embeddings`.

    Attributes:
        channels: width D of the vectors.
        feature_channels: width of the features that `visual_prediction` takes.

    Raises:
        WrongKind: the image tower is no `EfficientNetLiteTower`, the text tower no `TextTower`.
        UserError: top_k is not in 1..1000.
    """

    feature_channels = 1280
    _vectors: FrozenNetwork

    @renamed_arguments(removed_in='0.3', image_tower='tower')
    def __init__(self, tower: EfficientNetLiteTower | Mapping | None = None,
                 text_tower: TextTower | Mapping | None = None, *, top_k: int = 10, store: bool = True) -> None:
        super().__init__()
        if not 1 <= top_k <= NUM_CLASSES:
            raise UserError(f'top_k must be in 1..{NUM_CLASSES}, got {top_k}')
        # with scope, so that they are found from within mmdet's and mmseg's too
        image = tower if tower is not None else dict(
            type='frozenmm.EfficientNetLiteTower', resize_mode='squash')
        text = text_tower if text_tower is not None else dict(type='frozenmm.MiniLMTextTower')
        self.image_tower = MODELS.build(image) if isinstance(image, Mapping) else image
        while isinstance(self.image_tower, WrappingTower):  # what it remembers are maps; the head needs the network
            self.image_tower = self.image_tower.inner
        self.text_tower = MODELS.build(text) if isinstance(text, Mapping) else text
        if not isinstance(self.image_tower, EfficientNetLiteTower):
            raise WrongKind(f'tower must be an EfficientNetLiteTower, got {type(self.image_tower).__name__}')
        if not isinstance(self.text_tower, TextTower):
            raise WrongKind(f'text_tower must be a TextTower, got {type(self.text_tower).__name__}')
        names = Vocabulary(tuple(VocabularyClass(name) for name in imagenet_names()), 'imagenet_1000', True)
        self.top_k = top_k
        self.channels = self.text_tower.channels
        vectors = text_embeddings(self.text_tower, names, 'none', store=store)
        # outside the module tree like every frozen network: no checkpoint, no cast, no broadcast
        self.__dict__['_vectors'] = FrozenNetwork(_ClassVectors(vectors), name='vectors of the ImageNet names')

    @property
    def class_vectors(self) -> Tensor:
        """(1000, D) float32, of length 1."""
        return cast(_ClassVectors, self._vectors.module).vectors

    def forward(self, images: Tensor, valid_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
                image_stats: ImageStats | None = None) -> Tensor:
        """Vectors (B, D) of whole images; arguments as in `ImageTower.forward`."""
        return self.combine(self.image_tower.classify(images, valid_sizes, image_stats))

    def combine(self, posteriors: Tensor) -> Tensor:
        """Vectors (..., D) of class posteriors (..., 1000)."""
        return combine(posteriors, self.class_vectors, self.top_k)

    def class_features(self, last_map: Tensor) -> Tensor:
        """Features (B, 1280, h, w) of the map res5 (B, 320, h, w); their mean over any region can be classified."""
        return self.image_tower.run(head_map, last_map)

    def visual_prediction(self, pooled: Tensor) -> Tensor:
        """Vectors (..., D) of means (..., 1280) of `class_features` over regions."""
        if pooled.shape[-1] != self.feature_channels:
            raise ValueError(f'visual_prediction takes means of class_features with {self.feature_channels} channels, '
                             f'got {tuple(pooled.shape)}')
        return self.combine(self.image_tower.run(class_logits, pooled).softmax(-1))

    def dense(self, last_map: Tensor) -> Tensor:
        """The same rule at every cell: vectors (B, D, h, w) of the map res5 (B, 320, h, w)."""
        cells = self.class_features(last_map).permute(0, 2, 3, 1)
        return self.visual_prediction(cells).permute(0, 3, 1, 2)

    def _apply(self, fn: Callable, recurse: bool = True) -> ConSE:
        super()._apply(fn, recurse)
        self._vectors.move(fn)
        return self
