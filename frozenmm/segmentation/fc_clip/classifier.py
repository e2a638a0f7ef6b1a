"""The second part of mask classification: what the masks show, in words that can change at any time."""
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frozenmm.foundation import TextTower, Vocabulary
from frozenmm.segmentation.fc_clip.ensemble import geometric_ensemble
from frozenmm.segmentation.fc_clip.text_classifier import synonym_index, text_logits
from frozenmm.segmentation.mask2former.decoder import mlp

_RECORD = 'train_vocabulary'


@dataclass
class ClassRows:
    """A vocabulary as the classifier uses it.

    Attributes:
        text: (S, D) unit rows, the words of the classes one after the other.
        class_index: (S,) int64 class of each row.
        seen: (K,) bool, classes of the training vocabulary.
        things: indices of the classes that have instances.
        names: K names.
    """

    text: Tensor
    class_index: Tensor
    seen: Tensor
    things: tuple[int, ...]
    names: tuple[str, ...]

    def to(self, device: torch.device) -> ClassRows:
        """The same on a device."""
        if self.text.device == device:
            return self
        return ClassRows(self.text.to(device), self.class_index.to(device), self.seen.to(device), self.things, self.names)
