"""mmdet 3.3's text model of Grounding DINO on transformers 5."""
from __future__ import annotations

from typing import Any

from torch import nn


def run_on_transformers_5(language_model: Any) -> None:
    """Fill two holes of a `mmdet.BertModel`; on transformers 4 nothing changes.

    mmdet calls the tokenizer's `batch_encode_plus`, which transformers 5 dropped, and masks the attention by
    (B, T, T), which it takes as (B, 1, T, T) only.
    """
    tokenizer = language_model.tokenizer
    if hasattr(tokenizer, 'batch_encode_plus'):
        return
    tokenizer.batch_encode_plus = tokenizer.__call__
    language_model.language_backbone.body.model.register_forward_pre_hook(_four_dimensions, with_kwargs=True)


def _four_dimensions(bert: nn.Module, args: tuple, inputs: dict) -> tuple[tuple, dict]:
    mask = inputs.get('attention_mask')
    return args, inputs if mask is None or mask.dim() != 3 else dict(inputs, attention_mask=mask[:, None])
