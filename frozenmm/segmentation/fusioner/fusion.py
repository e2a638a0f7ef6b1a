"""The fusion transformer: visual tokens and class-name tokens in one sequence."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.registry import MODELS


class SelfAttention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values, in this order."""

    def __init__(self, channels: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if channels % num_heads:
            raise UserError(f'channels ({channels}) must be a multiple of num_heads ({num_heads})')
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.dropout = dropout

    def forward(self, tokens: Tensor, allowed: Tensor | None = None) -> Tensor:
        """(B, N, C) to (B, N, C); `allowed` (B, 1, 1, N) bool marks the keys that may be attended."""
        batch, count, channels = tokens.shape
        query, key, value = self.qkv(tokens).view(batch, count, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed,
                                               dropout_p=self.dropout if self.training else 0.0)
        mixed = self.out(mixed.transpose(1, 2).reshape(batch, count, channels))
        return F.dropout(mixed, self.dropout, self.training)


class FusionBlock(nn.Module):
    """A pre-norm transformer block with stochastic depth per sample."""

    def __init__(self, channels: int, num_heads: int, hidden: int, *, dropout: float = 0.0,
                 drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = SelfAttention(channels, num_heads, dropout)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Dropout(dropout),
                                 nn.Linear(hidden, channels), nn.Dropout(dropout))
        self.drop_path = drop_path

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = 1.0 - self.drop_path
        return branch * (torch.rand(len(branch), 1, 1, device=branch.device) < keep).to(branch.dtype) / keep

    def forward(self, tokens: Tensor, allowed: Tensor | None = None) -> Tensor:
        """(B, N, C) to (B, N, C); see `SelfAttention` for `allowed`."""
        tokens = tokens + self._drop(self.attention(self.norm1(tokens), allowed))
        return tokens + self._drop(self.mlp(self.norm2(tokens)))


@MODELS.register_module()
class FusionTransformer(nn.Module):
    """Joint self-attention over projected patch tokens and class-name tokens.

    Args:
        visual_channels: width of the visual tokens.
        text_channels: width of the class-name embeddings.
        channels: width of the fusion.
        num_layers: number of blocks.
        num_heads: attention heads.
        hidden_channels: width of the MLPs, `4 * channels` by default.
        num_class_rows: rows of the learned embedding that marks text tokens; 1 gives every class the same row and
            allows any number of classes, K gives class k row k.
        dropout: after softmax, attention projection, GELU and MLP.
        drop_path: stochastic depth of the last block; grows linearly from 0.

    Source: Fusioner (Ma et al., BMVC 2022), the fusion module.
    """

    def __init__(self, visual_channels: int, text_channels: int, channels: int = 512, *, num_layers: int = 12,
                 num_heads: int = 8, hidden_channels: int | None = None, num_class_rows: int = 1,
                 dropout: float = 0.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.visual_projection = nn.Sequential(nn.LayerNorm(visual_channels), nn.Linear(visual_channels, channels),
                                               nn.LayerNorm(channels))
        self.text_projection = nn.Sequential(nn.LayerNorm(text_channels), nn.Linear(text_channels, channels))
        self.class_rows = nn.Parameter(torch.randn(num_class_rows, channels))
        rates = torch.linspace(0, drop_path, num_layers).tolist()
        self.blocks = nn.ModuleList(
            FusionBlock(channels, num_heads, hidden_channels or 4 * channels, dropout=dropout, drop_path=rate)
            for rate in rates)
        self.norm = nn.LayerNorm(channels)
        self.patch_projection = nn.Parameter(channels**-0.5 * torch.randn(channels, channels))
        self.class_projection = nn.Parameter(channels**-0.5 * torch.randn(channels, channels))

    def project_visual(self, visual: Tensor) -> Tensor:
        """Visual tokens (B, N, visual_channels) to (B, N, channels); does not depend on the classes."""
        return self.visual_projection(visual)

    def project_text(self, text: Tensor) -> Tensor:
        """Class embeddings (B, K, text_channels) to (B, K, channels), marked as text.

        Raises:
            UserError: K differs from `num_class_rows` when that is not 1.
        """
        rows = len(self.class_rows)
        if rows != 1 and text.shape[1] != rows:
            raise UserError(f'this fusion has one embedding row for each of {rows} classes, but {text.shape[1]} '
                            'classes came; train with num_class_rows=1 for a free number of classes')
        return self.text_projection(text) + self.class_rows

    def forward(self, visual: Tensor, text: Tensor, class_counts: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Fused patch and class tokens.

        Args:
            visual: (B, N, visual_channels) unit-norm visual tokens.
            text: (B, K, text_channels) unit-norm class embeddings; rows beyond an image's count are padding.
            class_counts: number of classes of each image, K for all by default.

        Returns:
            patches (B, N, channels), classes (B, K, channels).
        """
        return self.fuse(self.project_visual(visual), self.project_text(text), class_counts)

    def fuse(self, visual: Tensor, text: Tensor, class_counts: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """`forward` for tokens that have been projected."""
        count = visual.shape[1]
        tokens = torch.cat([visual, text], 1)
        allowed = None
        if class_counts is not None and any(value != text.shape[1] for value in class_counts):
            index = torch.arange(tokens.shape[1], device=tokens.device)
            limit = torch.tensor(class_counts, device=tokens.device) + count
            allowed = (index[None] < limit[:, None])[:, None, None]
        for block in self.blocks:
            tokens = block(tokens, allowed)
        tokens = self.norm(tokens)
        return tokens[:, :count] @ self.patch_projection, tokens[:, count:] @ self.class_projection
