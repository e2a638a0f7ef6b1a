"""The second part of mask classification: what the masks show, in words that can change at any time."""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from frozenmm.deprecation import grouped_arguments, warn_renamed
from frozenmm.errors import UserError
from frozenmm.foundation.learned_words import learning_tower
from frozenmm.foundation.state_records import as_record, read_record
from frozenmm.foundation.templates import resolve_templates
from frozenmm.foundation.text_embeddings import WordVectors
from frozenmm.foundation.vocabulary import Vocabulary, VocabularyClass, VocabularySource
from frozenmm.registry import MODELS
from frozenmm.segmentation.fc_clip.ensemble import geometric_ensemble, with_void
from frozenmm.segmentation.fc_clip.text_classifier import synonym_index, text_logits
from frozenmm.segmentation.fc_clip.text_rows import TextRows, check_same_training, check_seen, things_of
from frozenmm.segmentation.mask2former.decoder import mlp
from frozenmm.segmentation.options import built

if TYPE_CHECKING:
    from frozenmm.foundation.text_tower import TextTower

RECORD = 'vocabulary_record'
VOID_AGAINST = ('vocabulary', 'training')
COMPAT_RULES = ('all_masks', 'valid_masks')
CLIP_LOG_SCALE = math.log(100.0)
"""Logarithm of the temperature at which all published CLIP models ended (their training clamps it there)."""


@dataclass(frozen=True)
class EnsembleOptions:
    """How the frozen branch takes part in the classification.

    Attributes:
        frozen: whether it takes part at all.
        alpha: its share for seen classes, 0 to 1.
        beta: its share for unseen classes, 0 to 1.
        log_scale: logarithm of its temperature; None takes the text tower's `logit_scale` (that of published CLIP
            models if it has none).
        sharpness: see `with_void`; 1 officially.

    Raises:
        UserError: a share outside 0 to 1, or a sharpness that is not positive.
    """

    frozen: bool = True
    alpha: float = 0.4
    beta: float = 0.8
    log_scale: float | None = None
    sharpness: float = 1.0

    def __post_init__(self) -> None:
        for name, share in (('alpha', self.alpha), ('beta', self.beta)):
            if not 0 <= share <= 1:
                raise UserError(f'{name} is the frozen branch\'s share, 0 to 1; got {share}')
        if not self.sharpness > 0:
            raise UserError(f'sharpness must be positive, got {self.sharpness}')


def _taking_the_flag(init: Callable[..., None]) -> Callable[..., None]:
    """`ensemble_on_valid_mask` of frozenmm 0.1 said which official rule `compat=True` means; now the tower does."""
    @functools.wraps(init)
    def with_flag(self: MaskClassifier, *args: Any, **kwargs: Any) -> None:
        flag = kwargs.pop('ensemble_on_valid_mask', None)
        init(self, *args, **kwargs)
        if flag is not None:
            self.official_rule = 'valid_masks' if flag else 'all_masks'
            warn_renamed(f'ensemble_on_valid_mask={flag}', f'compat={self.official_rule!r}', removed_in='0.3')
    return with_flag


class MaskClassifier(nn.Module):
    """Class probabilities of masks: a trained branch on the queries, a frozen branch on pooled tower features.

    Source: FC-CLIP section 3.3. The words live here and nowhere else: `set_vocabulary` costs one pass of the text tower
    for words that are new, and nothing for those encoded before. The text tower is built when words must be encoded,
    not before. A checkpoint carries the training vocabulary and the choice of numerics, and sets both when loaded.

    Args:
        embed_channels: width D of the text space.
        text_tower: a `TextTower`, its config, or None if embeddings are given with `set_embeddings`.
        train_vocabulary: the classes of the training set; decides which classes are seen. None: the checkpoint's.
        vocabulary: the classes to predict in eval mode; by default those of training.
        channels: width of the queries' embeddings.
        templates: see `resolve_templates`.
        ensemble: options of `EnsembleOptions`.
        compat: the official arithmetic of the ensemble, see `geometric_ensemble`. `'all_masks'` gives queries without
            any mask pixel a frozen share too, as the official models with a ConvNeXt do; `'valid_masks'` gives them
            none, as those with a ResNet do; True: whichever belongs to the tower. Without `compat` they get none.
        void_against: what void competes with: `'vocabulary'`, the classes to predict, as officially; or `'training'`,
            those of training, with which void was trained. Then whether a query is an object does not depend on the
            words that are asked for; officially nearly everything is void for a few words that training never named.
    """

    @_taking_the_flag
    @grouped_arguments(removed_in='0.3', ensemble=dict(
        ensemble='frozen', alpha='alpha', beta='beta', frozen_log_scale='log_scale', sharpness='sharpness'))
    def __init__(self, embed_channels: int, *, text_tower: TextTower | Mapping[str, object] | None = None,
                 train_vocabulary: VocabularySource | None = None, vocabulary: VocabularySource | None = None,
                 channels: int = 256, templates: str | Sequence[str] = 'vild14',
                 ensemble: Mapping[str, object] | None = None, compat: bool | str = False,
                 void_against: str = 'vocabulary') -> None:
        super().__init__()
        if void_against not in VOID_AGAINST:
            raise UserError(f'void_against must be one of {list(VOID_AGAINST)}, got {void_against!r}')
        if compat not in (False, True, *COMPAT_RULES):
            raise UserError(f'compat must be False, True or one of {list(COMPAT_RULES)}, got {compat!r}')
        options = built(EnsembleOptions, ensemble)
        self.class_embed = mlp(channels, channels, embed_channels)
        self.void_embedding = nn.Embedding(1, embed_channels)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.ensemble = options.frozen
        self.frozen_log_scale = options.log_scale
        self.templates = resolve_templates(templates)
        self.alpha, self.beta, self.sharpness = options.alpha, options.beta, options.sharpness
        self.compat = compat
        self.official_rule = 'all_masks'  # what `compat=True` stands for; models set it by their tower
        self.void_against = void_against
        self.train_vocabulary = None if train_vocabulary is None else Vocabulary.read(train_vocabulary)
        self.vocabulary: Vocabulary | None = None
        self.learning = learning_tower(text_tower)
        # any other is outside the module tree: it is frozen, and many uses never build it
        self.__dict__['_text_tower'] = self.learning or text_tower
        self._words: WordVectors | None = None
        self._rows: dict[bool, TextRows] = {}
        self._given_seen: Tensor | None = None
        if vocabulary is not None:
            self.set_vocabulary(vocabulary)

    @property
    def embed_channels(self) -> int:
        """Width D of the text space."""
        return self.void_embedding.embedding_dim

    @property
    def text_tower(self) -> TextTower:
        """The text tower, built on first use.

        Raises:
            UserError: none was configured, or its width is not that of the classifier.
        """
        tower = self.__dict__['_text_tower']
        if tower is None:
            raise UserError('the classifier has no text tower to encode words with; configure `text_tower`, or give '
                            'embeddings with `set_embeddings`')
        if isinstance(tower, Mapping):
            tower = self.__dict__['_text_tower'] = MODELS.build(dict(tower))
        if tower.channels != self.embed_channels:
            raise UserError(f'the text tower {tower.name} gives vectors of width {tower.channels}, but the classifier '
                            f'was built for embed_channels={self.embed_channels}')
        return tower

    # ------------------------------------------------------------------------------------------------ words
    def set_vocabulary(self, vocabulary: VocabularySource, *, seen: Tensor | None = None) -> None:
        """Predict these classes in eval mode from now on.

        Args:
            vocabulary: whatever `Vocabulary.read` understands; a list of words will do.
            seen: (K,) which classes were trained; by default those that share a word with the training vocabulary.

        Raises:
            UserError: an empty or unusable vocabulary; a seen mask that contradicts it.
        """
        vocabulary = Vocabulary.read(vocabulary)
        self._given_seen = None if seen is None else check_seen(seen, vocabulary, self.train_vocabulary)
        self.vocabulary = vocabulary
        self._rows.pop(False, None)

    def set_embeddings(self, text: Tensor, num_synonyms: Sequence[int] | Tensor, *, seen: Tensor,
                       things: Sequence[int] = (), training: bool = False) -> None:
        """Use prepared text embeddings instead of a vocabulary.

        Args:
            text: (S, D) unit rows, the words of the classes one after the other.
            num_synonyms: (K,) words per class, summing to S.
            seen: (K,) which classes were trained.
            things: indices of the classes that have instances.
            training: for train mode instead of eval mode.

        Raises:
            UserError: no class, a class without words, or numbers that do not fit together.
        """
        counts = torch.as_tensor(num_synonyms).long().cpu()
        if len(counts) == 0 or int(counts.min()) < 1:
            raise UserError(f'every class needs at least one word, and there must be a class; got {counts.tolist()}')
        if text.dim() != 2 or text.shape[1] != self.embed_channels or int(counts.sum()) != len(text):
            raise UserError(f'text embeddings must have shape ({int(counts.sum())}, {self.embed_channels}), one row '
                            f'per word; got {tuple(text.shape)}')
        seen = torch.as_tensor(seen).bool()
        if seen.shape != counts.shape:
            raise UserError(f'the seen mask has {tuple(seen.shape)} entries for {len(counts)} classes')
        self._rows[training] = TextRows(text, synonym_index(counts), seen, tuple(things))

    @property
    def rows(self) -> TextRows:
        """The classes in use, on the classifier's device: those of training in train mode, else those to predict.

        Raises:
            UserError: there is no vocabulary.
        """
        return self.rows_of(self.training)

    def rows_of(self, training: bool) -> TextRows:
        """The classes of training, or those to predict, whatever the mode; errors as `rows`."""
        device = self.void_embedding.weight.device
        if training not in self._rows or self.learning is not None:
            self._rows[training] = self._make_rows(training)
        if self._rows[training].text.device != device:
            self._rows[training] = self._rows[training].to(device)
        return self._rows[training]

    def _make_rows(self, training: bool) -> TextRows:
        vocabulary = self.train_vocabulary if training or self.vocabulary is None else self.vocabulary
        if vocabulary is None:
            what = 'train_vocabulary' if training else 'vocabulary'
            raise UserError(f'the classifier has no {what}: name the classes in the config, call `set_vocabulary`, or '
                            'load a checkpoint that carries its training vocabulary')
        tower = self.text_tower.to(self.void_embedding.weight.device)
        if self._words is None:
            self._words = WordVectors(tower, self.templates)
        seen = self._given_seen
        if vocabulary is self.train_vocabulary:
            seen = torch.ones(len(vocabulary), dtype=torch.bool)
        elif seen is None:
            if self.train_vocabulary is None:
                print_log('no training vocabulary is known: every class counts as unseen', logger='current')
                seen = torch.zeros(len(vocabulary), dtype=torch.bool)
            else:
                seen = vocabulary.seen_mask(self.train_vocabulary)
        text = self._words.unit(vocabulary.words, vocabulary.name)
        return TextRows(text, vocabulary.class_of_word, seen, things_of(vocabulary))

    # ------------------------------------------------------------------------------------------------ logits
    def forward(self, embeddings: Tensor, rows: TextRows | None = None) -> Tensor:
        """Logits of the trained branch.

        Args:
            embeddings: (B, Q, C) of the mask generator.
            rows: the classes; those in use by default.

        Returns:
            (B, Q, K+1) float32, void last.
        """
        rows = self.rows if rows is None else rows
        embedded = self.class_embed(embeddings)
        logits = self._logits(embedded, rows)
        if self.training or self.void_against == 'vocabulary':
            return logits
        trained = self._logits(embedded, self.rows_of(training=True))
        # the void logit that gives, beside these classes, void's probability beside those of training
        void = trained[..., -1:] - trained[..., :-1].logsumexp(-1, keepdim=True)
        return torch.cat([logits[..., :-1], void + logits[..., :-1].logsumexp(-1, keepdim=True)], -1)

    def _logits(self, embedded: Tensor, rows: TextRows) -> Tensor:
        return text_logits(embedded, rows.text, rows.class_index, rows.num_classes, self.logit_scale,
                           void=self.void_embedding.weight)

    def frozen_logits(self, embeddings: Tensor, *, void: bool = False) -> Tensor:
        """Logits (B, Q, K) of the frozen branch for embeddings (B, Q, D) in text space; (B, Q, K+1) with void last."""
        rows = self.rows
        return text_logits(embeddings, rows.text, rows.class_index, rows.num_classes, self._frozen_scale(),
                           void=self.void_embedding.weight if void else None)

    def _frozen_scale(self) -> Tensor:
        """Logarithm of the frozen branch's temperature, () on the classifier's device."""
        scale = self.frozen_log_scale
        if scale is None:
            scale = getattr(self.__dict__['_text_tower'], 'logit_scale', CLIP_LOG_SCALE)
        return self.logit_scale.new_tensor(float(scale))

    def frozen_share(self, embeddings: Tensor) -> Tensor:
        """What the frozen branch alone adds to log probabilities (..., K), for embeddings (..., D) in text space."""
        share = torch.where(self.rows.seen, self.alpha, self.beta)
        return share * self.frozen_logits(embeddings).log_softmax(-1)

    def log_probs(self, class_logits: Tensor, frozen_embeddings: Tensor | None, valid: Tensor | None = None, *,
                  remembered: Tensor | None = None) -> Tensor:
        """Log probabilities (B, Q, K+1), void last.

        Args:
            class_logits: (B, Q, K+1) of the trained branch.
            frozen_embeddings: (B, Q, D) of the frozen branch; None without ensemble.
            valid: (B, Q) bool, queries whose mask has a pixel on the frozen map.
            remembered: (B, Q, K) that examples add to the ensemble of both, see `RegionMemory`.
        """
        if frozen_embeddings is None or not self.ensemble:
            if self.sharpness != 1:
                return with_void(class_logits[..., :-1], class_logits, sharpness=self.sharpness)
            return class_logits.float().log_softmax(-1)
        if (self.official_rule if self.compat is True else self.compat) == 'all_masks':
            valid = None
        return geometric_ensemble(class_logits, self.frozen_logits(frozen_embeddings), self.rows.seen, alpha=self.alpha,
                                  beta=self.beta, valid=valid, compat=bool(self.compat), sharpness=self.sharpness,
                                  remembered=remembered)

    # ------------------------------------------------------------------------------------------------ checkpoints
    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + RECORD] = vocabulary_record(self.train_vocabulary, compat=self.compat)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        record = state_dict.pop(prefix + RECORD, None)
        if record is not None:
            content = read_record(record, prefix + RECORD)
            self.compat = content['compat']
            if content['classes'] is not None:
                self._adopt(content)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _adopt(self, content: dict) -> None:
        if self.train_vocabulary is not None:
            check_same_training([words for words, _ in content['classes']], self.train_vocabulary)
            return
        classes = tuple(VocabularyClass(words[0], tuple(words[1:]), isthing=isthing)
                        for words, isthing in content['classes'])
        self.train_vocabulary = Vocabulary(classes, content['name'], allow_duplicates=True)
        self._rows.clear()
        if self.vocabulary is not None and self._given_seen is not None:
            check_seen(self._given_seen, self.vocabulary, self.train_vocabulary)


def vocabulary_record(train_vocabulary: Vocabulary | None, *, compat: bool | str) -> Tensor:
    """What a checkpoint says about its words and whether it computes as the official code does."""
    content: dict[str, object] = dict(compat=compat, name=None, classes=None)
    if train_vocabulary is not None:
        content |= dict(name=train_vocabulary.name,
                        classes=[[list(entry.words), entry.isthing] for entry in train_vocabulary])
    return as_record(content)
