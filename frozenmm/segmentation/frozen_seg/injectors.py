"""FrozenSeg's masked-attention decoder: SAM's spatial knowledge enters the features and the queries."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import caffe2_xavier_init
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.ops.mask_pool import mask_pool
from frozenmm.segmentation.mask2former.decoder import MaskedAttentionDecoder, MaskProposals, Memory, Size, attend
from frozenmm.segmentation.mask2former.padding import Padding


class FeatureInjector(nn.Module):
    """CLIP tokens attend to SAM tokens: post-norm cross-attention without feed-forward network.

    Source: FrozenSeg section 3.2, "spatial knowledge injection into features".

    Args:
        channels: width of the tokens.
        num_heads: attention heads.
    """

    def __init__(self, channels: int = 256, num_heads: int = 8) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(channels, num_heads, batch_first=True)
        self.norm = nn.LayerNorm(channels)
        nn.init.xavier_uniform_(self.attn.out_proj.weight)

    def forward(self, tokens: Tensor, position: Tensor, sam_tokens: Tensor, sam_position: Tensor) -> Tensor:
        """Tokens with SAM's knowledge added.

        Args:
            tokens: (B, N, C) CLIP tokens.
            position: (1 or B, N, C) their position encoding.
            sam_tokens: (B, M, C).
            sam_position: (1 or B, M, C).

        Returns:
            (B, N, C).
        """
        found = attend(self.attn, tokens + position, sam_tokens + sam_position, sam_tokens)
        return self.norm(tokens + found)


class InjectedDecoder(MaskedAttentionDecoder):
    """Masked-attention decoder with feature injectors before layers 0, 3, 6 and query injection after layers 2, 5.

    Source: FrozenSeg section 3.2 and its code. Injection always starts from the pixel decoder's own tokens; the layers
    with injected features see no key position; the projection of pooled features is shared between CLIP and SAM.

    Args:
        query_residue: queries are injected after layers i with i mod 3 equal to this (after the last layer it would
            have no effect and is left out).
        in_channels, ...: as in `MaskedAttentionDecoder`; `num_levels` is 3.
    """

    def __init__(self, in_channels: int = 256, *, channels: int = 256, mask_channels: int = 256, num_queries: int = 250,
                 num_layers: int = 9, num_heads: int = 8, feedforward_channels: int = 2048, query_residue: int = 2,
                 with_cp: bool = False) -> None:
        super().__init__(in_channels, channels=channels, mask_channels=mask_channels, num_queries=num_queries,
                         num_layers=num_layers, num_heads=num_heads, feedforward_channels=feedforward_channels,
                         with_cp=with_cp)
        if query_residue not in (0, 1, 2):
            raise UserError(f'query_residue must be 0, 1 or 2, got {query_residue}')
        self.query_residue = query_residue
        self.feature_injectors = nn.ModuleList(FeatureInjector(channels, num_heads) for _ in range(0, num_layers, 3))
        self.sam_input_proj = nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1)
        if isinstance(self.sam_input_proj, nn.Conv2d):
            caffe2_xavier_init(self.sam_input_proj, bias=0)

    def forward(self, levels: Sequence[Tensor], mask_features: Tensor,  # type: ignore[override]
                sam_map: Tensor, sam_embedding: Tensor, *,
                all_layers: bool | None = None, padding: Padding | None = None) -> list[MaskProposals]:
        """Mask proposals.

        Args:
            levels: maps (B, in_channels, h, w) of strides 32, 16, 8.
            mask_features: (B, mask_channels, H/4, W/4).
            sam_map: (B, in_channels, h', w') from the SAM branch; in eval mode resized to the first level.
            sam_embedding: (B, mask_channels, h'', w''), SAM's own image embedding, covering the same padded image.
            all_layers: as in `MaskedAttentionDecoder`.
            padding: likewise.
        """
        if sam_embedding.shape[1] != mask_features.shape[1]:
            raise UserError(f'SAM\'s embedding has {sam_embedding.shape[1]} channels and the mask features '
                            f'{mask_features.shape[1]}; their pooled vectors share a projection, so both must agree')
        memories = self.memories(levels)
        injected = self.inject_features(memories[0], self.sam_memory(sam_map, memories[0].size))
        per_layer = [injected[i // 3] if i % 3 == 0 else memories[i % 3] for i in range(self.num_layers)]
        return self.decode(per_layer, mask_features, all_layers, self.query_injector(sam_embedding), padding)

    def sam_memory(self, sam_map: Tensor, size: Size) -> Memory:
        """SAM's map as tokens; resized to `size` at test time only, as in the official code."""
        if not self.training and tuple(sam_map.shape[-2:]) != size:
            sam_map = F.interpolate(sam_map, size=size, mode='bilinear', align_corners=False)
        tokens = self.sam_input_proj(sam_map).flatten(2).transpose(1, 2) + self.level_embed.weight[0]
        return Memory(tokens, self.position(sam_map), (sam_map.shape[-2], sam_map.shape[-1]))

    def inject_features(self, memory: Memory, sam: Memory) -> list[Memory]:
        """One injected copy of the coarsest memory per injector, without key position."""
        # Parity: the trained layers get no key position; zeros, because absent ones would be filled in
        nowhere = torch.zeros_like(memory.position[:, :1])
        return [Memory(injector(memory.tokens, memory.position, sam.tokens, sam.position), nowhere, memory.size)
                for injector in self.feature_injectors]

    def query_injector(self, sam_embedding: Tensor) -> Callable[[int, Callable[[Size], Tensor]], Tensor | None]:
        """What `decode` adds to the queries after a layer, see `spatial_query`."""
        size: Any = tuple(sam_embedding.shape[-2:])

        def inject(index: int, masks_at: Callable[[Size], Tensor]) -> Tensor | None:
            if index % 3 != self.query_residue:
                return None
            return self.spatial_query(sam_embedding, masks_at(size))

        return inject

    def spatial_query(self, sam_embedding: Tensor, mask_logits: Tensor) -> Tensor:
        """SAM's embedding (B, C, h, w) pooled under the masks (B, Q, H, W) and projected: (B, Q, C)."""
        return self.pool_proj(mask_pool(sam_embedding, mask_logits))
