"""A closed-set classifier in the place of the one that reads words."""
from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.segmentation.fc_clip.text_rows import things_of


@dataclass(frozen=True)
class ClosedSet:
    """The classes of a closed set.

    Attributes:
        num_classes: K.
        things: indices of the classes that have instances.
    """

    num_classes: int
    things: tuple[int, ...]


class ClosedSetClassifier(nn.Module):
    """One linear layer from queries to the classes of training and void.

    Args:
        channels: width of the queries.
        vocabulary: the classes, in the order of the annotations; whatever `Vocabulary.read` understands. It says which
            are things.
    """

    ensemble = False

    def __init__(self, channels: int, *, vocabulary: VocabularySource) -> None:
        super().__init__()
        self.vocabulary = Vocabulary.read(vocabulary)
        self.rows = ClosedSet(len(self.vocabulary), things_of(self.vocabulary))
        self.class_head = nn.Linear(channels, self.rows.num_classes + 1)

    def rows_of(self, training: bool) -> ClosedSet:
        """The classes, which are the same in training and prediction."""
        return self.rows

    def set_vocabulary(self, vocabulary: VocabularySource, *, seen: Tensor | None = None) -> None:
        """Refuse other classes.

        Raises:
            UserError: always, unless the classes are those of training.
        """
        if Vocabulary.read(vocabulary).fingerprint != self.vocabulary.fingerprint:
            raise UserError(f'this model knows the {self.rows.num_classes} classes that it was trained on and no '
                            'others; for free words use a model with a text classifier, e.g. FCCLIP')

    def forward(self, embeddings: Tensor, rows: ClosedSet | None = None) -> Tensor:
        """Logits (B, Q, K+1), void last, of queries (B, Q, channels)."""
        return self.class_head(embeddings)

    def log_probs(self, class_logits: Tensor, frozen_embeddings: Tensor | None = None,
                  valid: Tensor | None = None) -> Tensor:
        """Log probabilities (B, Q, K+1), void last; there is no frozen branch to ask."""
        return class_logits.float().log_softmax(-1)
