"""From dense features and masks to embeddings in a CLIP model's joint space, one per mask, with its frozen head."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from frozenmm.foundation.image_towers.clip_resnet import AttentionPool
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


def masked_attention_pool(pool: AttentionPool, dense: Tensor, mask_logits: Tensor) -> Tensor:
    """CLIP ResNet's attention pooling, restricted to each mask.

    All masks of an image ask with one query, the mean token, so the attention logits are computed once per image.

    Args:
        pool: attention pool of a CLIP ResNet.
        dense: (B, C, h, w).
        mask_logits: (B, Q, H, W).

    Returns:
        (B, Q, D); an empty mask attends to nothing, so it gets the output projection's bias.
    """
    size = (dense.shape[-2], dense.shape[-1])
    tokens = dense.flatten(2).transpose(1, 2)
    positions = pool.positions(size)
    keys = tokens + positions[1:]

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (pool.heads, -1)).transpose(1, 2)

    query = heads(pool.q_proj(tokens.mean(1, keepdim=True) + positions[:1]))
    key, value = heads(pool.k_proj(keys)), heads(pool.v_proj(keys))
    logits = (query @ key.transpose(-1, -2)) * key.shape[-1]**-0.5
    inside = (resize_masks(mask_logits, size) > 0).flatten(2)[:, None]
    weights = torch.where(inside, logits, -torch.inf).softmax(-1)
    weights = torch.where(inside, weights, 0)  # the row of an empty mask is NaN
    return pool.c_proj((weights @ value).transpose(1, 2).flatten(2))
