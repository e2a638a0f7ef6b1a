"""Image queries in the self-attention of any decoder of mmdet.

Source: Frozen-DETR, section 3.2. Nothing reads the rows of image queries but the self-attention of the object queries,
so they join right before it and leave right behind it; officially they leave behind the whole layer.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def image_queries_in(layers: nn.ModuleList, queries: Sequence[Tensor], positions: Tensor) -> Iterator[None]:
    """Let the self-attention of decoder layers see image queries as long as the context lasts.

    Args:
        layers: mmdet's decoder layers.
        queries: (B, T, C) per layer.
        positions: (B, T, C) position embedding of the image queries.
    """
    handles = []
    try:
        for layer, rows in zip(layers, queries, strict=True):
            attention = cast(Any, layer).self_attn
            handles.append(attention.register_forward_pre_hook(partial(_append, rows, positions), with_kwargs=True))
            handles.append(attention.register_forward_hook(partial(_cut, rows.shape[1])))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _append(rows: Tensor, positions: Tensor, attention: nn.Module, args: tuple, inputs: dict) -> tuple[tuple, dict]:
    """Every row may see the image queries: a mask (Q, Q) or (B x heads, Q, Q) grows by open rows and columns."""
    grown = dict(inputs)
    for name in ('query', 'key', 'value', 'query_pos', 'key_pos'):
        if inputs.get(name) is not None:
            more = positions if name.endswith('_pos') else rows
            grown[name] = torch.cat([inputs[name], more.to(inputs[name].dtype)], 1)
    if inputs.get('attn_mask') is not None:
        grown['attn_mask'] = F.pad(inputs['attn_mask'], (0, rows.shape[1], 0, rows.shape[1]), value=False)
    return args, grown


def _cut(count: int, attention: nn.Module, args: tuple, output: Tensor) -> Tensor:
    return output[:, :output.shape[1] - count]
