"""From dense features and masks to embeddings in a CLIP model's joint space, one per mask, with its frozen head."""
from __future__ import annotations

from torch import Tensor, nn

from frozenmm.errors import WrongKind
from frozenmm.ops.mask_pool import mask_pool, resize_masks


def pools_by_attention(network: nn.Module) -> bool:
    """Whether a network's last map is pooled by attention, as that of CLIP's ResNets."""
    return hasattr(network, 'attnpool')


def mask_embeddings(network: nn.Module, dense: Tensor, mask_logits: Tensor) -> Tensor:
    """What a CLIP image encoder says about the region under each mask.

    Source: FC-CLIP section 3.3, `visual_prediction_forward` of its code.

    Args:
        network: a tower's network that pools masks by attention (a CLIP ResNet's `attnpool.pool_masks`) or projects
            pooled features (a ConvNeXt's `project`).
        dense: (B, C, h, w), the encoder's last map before pooling.
        mask_logits: (B, Q, H, W); resized to (h, w), a cell belongs to the mask where the logit is > 0.

    Returns:
        (B, Q, D); of no meaning, but finite, for masks without any cell.

    Raises:
        WrongKind: the network has neither head.
    """
    pool = getattr(network, 'attnpool', None)
    if pool is not None:
        return pool.pool_masks(dense, resize_masks(mask_logits, dense.shape[-2:]) > 0)
    project = getattr(network, 'project', None)
    if project is not None:
        return project(mask_pool(dense, mask_logits))
    raise WrongKind(f'{type(network).__name__} has neither an attention pool nor a projection of pooled features; the '
                    'frozen branch needs a convolutional CLIP (an open_clip ConvNeXt or a CLIP ResNet) or a '
                    '`frozen_head` such as ConSE; or switch it off with ensemble=dict(frozen=False)')
