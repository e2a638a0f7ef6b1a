"""Vectors of class names, encoded once each, and padded to a batch."""
from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation.text_embeddings import WordVectors
from frozenmm.foundation.text_tower import TextTower


class ClassTexts(nn.Module):
    """The frozen text side of Fusioner: class names in, unit vectors out.

    Args:
        text_tower: encodes the prompts.
        templates: a named set or sentences, see `resolve_templates`.
        store: keep the vectors of whole vocabularies on disk, see `text_embeddings`.
    """

    def __init__(self, text_tower: TextTower, templates: str | Sequence[str] = 'fusioner32', *,
                 store: bool = True) -> None:
        super().__init__()
        self.tower = text_tower
        self.words = WordVectors(text_tower, templates, store=store)

    def forward(self, names: Sequence[str]) -> Tensor:
        """Unit vectors (K, C) of K class names; a name is encoded the first time it is asked for."""
        return self.words.unit([' '.join(name.split()) for name in names], 'the classes')

    def batch(self, names: Sequence[Sequence[str]], like: Tensor) -> tuple[Tensor, list[int]]:
        """Vectors of each image's names.

        Args:
            names: for each of B images its class names, at least one.
            like: tensor whose device the result gets.

        Returns:
            (B, K, C) with zero rows behind the names of an image that has fewer than K, and the B counts.

        Raises:
            UserError: an image without names.
        """
        counts = [len(row) for row in names]
        if min(counts) == 0:
            raise UserError(f'image {counts.index(0)} of the batch names no class; every image needs one at least')
        rows = [self(row).to(like.device) for row in names]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), counts
