"""A class branch that compares with the words of a vocabulary instead of with learned rows.

Source: Frozen-DETR's open-vocabulary DINO (official code): a linear layer to the width of the text tower, then the dot
product with the unit vectors of the classes, without a temperature.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from mmengine.model import bias_init_with_prob
from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.errors import WrongKind
from frozenmm.foundation.text_embeddings import text_embeddings
from frozenmm.foundation.text_tower import TextTower
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import MODELS


def name_vectors(text_tower: TextTower | Mapping, vocabulary: VocabularySource,
                 templates: str | Sequence[str] = 'imagenet80') -> Tensor:
    """Unit vectors (K, D) float32 of the names of K classes; synonyms do not count.

    Args:
        text_tower: a frozen text tower or its config.
        vocabulary: the classes in the order of the labels, whatever `Vocabulary.read` understands.
        templates: a named set or sentences; Frozen-DETR's LVIS models have CLIP's 80.

    Raises:
        WrongKind: not a text tower.
    """
    tower = MODELS.build(text_tower) if isinstance(text_tower, Mapping) else text_tower
    if not isinstance(tower, TextTower):
        raise WrongKind(f'text_classifier needs a text tower, got {type(tower).__name__}')
    vocabulary = Vocabulary.read(vocabulary)
    vectors = text_embeddings(tower, vocabulary, templates)
    return vectors[vocabulary.word_table[:, 0].to(vectors.device)].cpu()


class TextBranch(nn.Linear):
    """Logits of classes from queries; `out_features` is the number of classes, as mmdet reads it.

    Args:
        embed_dims: width of the queries.
        vectors: (K, D) unit vectors of the classes; no weights, so in no checkpoint.
        compat: as the official code: the bias that a prior of 1 % needs is written into the D biases before the dot
            product, where it becomes another offset for every class. By default one learned offset for all classes
            holds the prior.
    """

    vectors: Tensor

    def __init__(self, embed_dims: int, vectors: Tensor, *, compat: bool = False) -> None:
        super().__init__(embed_dims, vectors.shape[1])
        self.out_features = len(vectors)
        self.register_buffer('vectors', vectors, persistent=False)
        self.offset = None if compat else nn.Parameter(torch.zeros(()))

    def init_prior(self, probability: float = 0.01) -> None:
        """Begin with this probability for every class; with `compat` as officially."""
        value = bias_init_with_prob(probability)
        nn.init.constant_(cast(Tensor, self.bias), value if self.offset is None else 0.0)
        if self.offset is not None:
            nn.init.constant_(self.offset, value)

    def forward(self, input: Tensor) -> Tensor:
        """(..., embed_dims) -> (..., K)."""
        logits = F.linear(super().forward(input), self.vectors.to(input.dtype))
        return logits if self.offset is None else logits + self.offset

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Official files have no offset; theirs is in the biases."""
        if self.offset is not None and f'{prefix}weight' in state_dict:
            state_dict.setdefault(f'{prefix}offset', torch.zeros_like(self.offset))
        super()._load_from_state_dict(state_dict, prefix, *args)
