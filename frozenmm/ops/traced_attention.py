"""Deformable attention for exported graphs: standard operators, and sizes of maps that are numbers of the graph.

Other runtimes do not know our operators, and they want sizes as numbers of the graph, not as tensors to be read. While
`torch.export` traces a model, `map_sizes` therefore gives the pairs themselves where modules else get a tensor, and a
module that gets pairs computes with `F.grid_sample`, which is ONNX's GridSample.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Sizes = Sequence[tuple[int, int]]


def map_sizes(sizes: Sizes, device: torch.device) -> Tensor | Sizes:
    """What attention modules take as `spatial_shapes`: (L, 2) int64, or the pairs themselves while a model is exported.

    Args:
        sizes: (height, width) of each level.
        device: where the tensor is made.
    """
    return list(sizes) if torch.compiler.is_exporting() else torch.tensor(sizes, device=device)


def grid_sample_attention(value: Tensor, sizes: Sizes, reference_points: Tensor, sampling_offsets: Tensor,
                          attention_logits: Tensor) -> Tensor:
    """`ms_deform_attn_fused` in standard operators; points that are not finite are not dropped.

    Args:
        value: (B, S, H, D), the maps, flattened row by row, level after level.
        sizes: (height, width) of each level.
        reference_points: (B, Q, L, 2) as (x, y), or (B, Q, L, 4) as (centre x, centre y, width, height), 0 to 1.
        sampling_offsets: (B, Q, H, L, P, 2).
        attention_logits: (B, Q, H, L * P).

    Returns:
        (B, Q, H * D).

    Source: Zhu et al., Deformable DETR (2021), equations 2 and 3.
    """
    heads, channels = value.shape[2:]
    levels, points = sampling_offsets.shape[3:5]
    weights = attention_logits.softmax(-1).unflatten(-1, (levels, points))
    total, start = [], 0
    for level, (height, width) in enumerate(sizes):
        reference, offsets = reference_points[:, :, None, level, None], sampling_offsets[:, :, :, level]
        if reference.shape[-1] == 2:
            shift = torch.stack([offsets[..., 0] / width, offsets[..., 1] / height], -1)
        else:
            shift = offsets * reference[..., 2:] * (0.5 / points)
        grid = (2 * (reference[..., :2] + shift) - 1).transpose(1, 2).flatten(0, 1)
        rows = value[:, start:start + height * width].permute(0, 2, 3, 1)
        maps = rows.reshape(-1, channels, height, width)
        samples = F.grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
        weight = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]
        total.append((samples * weight).sum(-1))
        start = start + height * width
    out = torch.stack(total).sum(0)  # (B H, D, Q)
    return out.unflatten(0, (-1, heads)).permute(0, 3, 1, 2).flatten(2)
