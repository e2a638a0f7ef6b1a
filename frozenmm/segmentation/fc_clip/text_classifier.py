"""Class logits from embeddings and text: cosine similarity, the best synonym counts, void last."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SCALE = 100.0  # CLIP's own bound of the temperature


def synonym_index(num_synonyms: Tensor) -> Tensor:
    """The class of every text row: (S,) int64 from the number of synonyms per class (K,)."""
    return torch.repeat_interleave(torch.arange(len(num_synonyms), device=num_synonyms.device), num_synonyms)


def text_logits(embeddings: Tensor, text: Tensor, class_index: Tensor, num_classes: int, log_scale: Tensor, *,
                void: Tensor | None = None) -> Tensor:
    """Scaled cosine similarity of embeddings and classes, in float32.

    Source: FC-CLIP section 3.3 and its code: `min(exp(log_scale), 100) * cos`, the maximum over a class's synonyms.

    Args:
        embeddings: (..., D), any length; normalised here.
        text: (S, D) unit rows, the synonyms of the classes one after the other.
        class_index: (S,) int64 class of each row.
        num_classes: K.
        log_scale: () natural logarithm of the temperature.
        void: (1, D) embedding of "none of these", of any length.

    Returns:
        (..., K), or (..., K+1) with void last.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        rows = text if void is None else torch.cat([text, F.normalize(void.float(), dim=-1)])
        scale = log_scale.float().exp().clamp(max=MAX_SCALE)
        logits = scale * F.normalize(embeddings.float(), dim=-1) @ rows.T
        if len(text) == num_classes:
            return logits
        index = class_index
        if void is not None:
            index = torch.cat([index, index.new_tensor([num_classes])])
        best = logits.new_empty(*logits.shape[:-1], num_classes + (void is not None))
        return best.scatter_reduce(-1, index.expand_as(logits), logits, 'amax', include_self=False)
