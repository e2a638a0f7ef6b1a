"""From dense features and masks to embeddings in a CLIP model's joint space, one per mask, with its frozen head."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.ops.mask_pool import mask_pool, resize_masks


def mask_embeddings(visual: nn.Module, dense: Tensor, mask_logits: Tensor) -> Tensor:
    """What a CLIP image encoder says about the region under each mask.

    Source: FC-CLIP section 3.3, `visual_prediction_forward` of its code.

    Args:
        visual: image encoder with open_clip's names: a ConvNeXt (`trunk.head`, `head`) or a ResNet (`attnpool`).
        dense: (B, C, h, w), the encoder's last map before pooling.
        mask_logits: (B, Q, H, W); resized to (h, w), a cell belongs to the mask where the logit is > 0.

    Returns:
        (B, Q, D); of no meaning, but finite, for masks without any cell.

    Raises:
        TypeError: the encoder has neither head.
    """
    if hasattr(visual, 'attnpool'):
        return masked_attention_pool(visual.attnpool, dense, mask_logits)
    if hasattr(visual, 'trunk') and hasattr(visual, 'head'):
        return project_pooled(visual, mask_pool(dense, mask_logits))
    raise TypeError(f'{type(visual).__name__} has neither an attention pool nor a trunk with a projection head; mask '
                    'classification needs a convolutional CLIP: an open_clip ConvNeXt or a CLIP ResNet')


def project_pooled(visual: nn.Module, pooled: Tensor) -> Tensor:
    """Pooled dense features (B, Q, C) through a ConvNeXt's norm and projection: (B, Q, D)."""
    count, queries, channels = pooled.shape
    # the trunk's head begins with a global average pool, which is the identity on 1x1 maps
    return visual.head(visual.trunk.head(pooled.reshape(-1, channels, 1, 1))).view(count, queries, -1)


def masked_attention_pool(pool: nn.Module, dense: Tensor, mask_logits: Tensor) -> Tensor:
    """CLIP ResNet's attention pooling, restricted to each mask.

    All masks of an image ask with one query, the mean token, so the attention logits are computed once per image.

    Args:
        pool: `AttentionPool2d` of CLIP: `positional_embedding` (1 + side * side, C), q, k, v and c projections.
        dense: (B, C, h, w).
        mask_logits: (B, Q, H, W).

    Returns:
        (B, Q, D); an empty mask attends to nothing, so it gets the output projection's bias.
    """
    height, width = dense.shape[-2:]
    tokens = dense.flatten(2).transpose(1, 2)
    first, grid = pool.positional_embedding[:1], pool.positional_embedding[1:]
    side = int(len(grid)**0.5)
    grid = F.interpolate(grid.T.reshape(1, -1, side, side), size=(height, width), mode='bilinear', align_corners=False)
    keys = tokens + grid.flatten(2).transpose(1, 2)

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)

    query = heads(pool.q_proj(tokens.mean(1, keepdim=True) + first))
    key, value = heads(pool.k_proj(keys)), heads(pool.v_proj(keys))
    logits = (query @ key.transpose(-1, -2)) * key.shape[-1]**-0.5
    inside = (resize_masks(mask_logits, (height, width)) > 0).flatten(2)[:, None]
    weights = torch.where(inside, logits, -torch.inf).softmax(-1)
    weights = torch.where(inside, weights, 0)  # an empty mask's row is NaN
    return pool.c_proj((weights @ value).transpose(1, 2).flatten(2))
