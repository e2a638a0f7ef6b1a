"""The plain mask decoder: queries, prefix tokens and patches of a frozen tower in one sequence of ordinary blocks."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from frozenmm.errors import UserError
from frozenmm.foundation.image_towers.dinov3_vit import Rope, RotaryBlock, grid_rope
from frozenmm.foundation.state_records import as_record, read_record
from frozenmm.segmentation.mask2former.decoder import MaskProposals
from frozenmm.segmentation.mask2former.mask_factors import MaskFactors
from frozenmm.segmentation.mask2former.padding import Padding
from frozenmm.segmentation.options import built
from frozenmm.segmentation.plain_mask.fusion import FusionOptions, TapFusion
from frozenmm.segmentation.plain_mask.prediction import MaskPrediction

Grid = tuple[int, int]
RECORD = 'compat_record'


@dataclass
class PlainPrediction:
    """What the decoder says before a block or at the end.

    Attributes:
        embeddings: (B, Q, C) float, normed queries for the classifier.
        mask_logits: the masks, not multiplied out.
    """

    embeddings: Tensor
    mask_logits: MaskFactors


class PlainMaskDecoder(nn.Module):
    """A mask generator of plain blocks on the taps of a frozen tower.

    In training with masked attention there is a prediction before every block and one at the end, and a query looks at
    the patches of its own mask only, with a probability per block that training lowers to 0. Evaluation has neither.
    Source: PMT (arXiv 2603.25398); masked attention and its annealing as in EoMT.

    Args:
        in_channels: width of every tap.
        channels: width inside; that of the first tap by default.
        num_heads: attention heads, one per 64 channels by default, as towers have; their width must be a multiple of 4.
        stride: pixels between neighbouring patches (a ViT's patch size).
        num_queries: Q.
        num_blocks: blocks.
        hidden_channels: width of the feed-forward parts, `channels` by default.
        fusion: options of `FusionOptions`.
        masked_attention: see above; without it there is one prediction in training too.
        rope_rescale: in training, multiply the coordinates by a random factor between 1 / this and this.
        compat: padding takes part in statistics and attention, as officially.
        with_cp: recompute the blocks' activations in the backward pass, to save memory.

    Attributes:
        attn_mask_probs: (num_blocks,) buffer, how often masked attention is used before each block; 1 at the start.

    Raises:
        UserError: heads that do not divide the width into multiples of 4.
    """

    attn_mask_probs: Tensor

    def __init__(self, in_channels: Sequence[int], *, channels: int | None = None, num_heads: int | None = None,
                 stride: int = 16, num_queries: int = 200, num_blocks: int = 6, hidden_channels: int | None = None,
                 fusion: Mapping[str, object] | None = None, masked_attention: bool = True, rope_rescale: float = 1.0,
                 compat: bool = False, with_cp: bool = False) -> None:
        super().__init__()
        channels = in_channels[0] if channels is None else channels
        num_heads = max(1, channels // 64) if num_heads is None else num_heads
        if channels % (4 * num_heads):
            raise UserError(f'num_heads={num_heads} must divide the {channels} channels into heads whose width is a '
                            'multiple of 4, because positions rotate pairs of channels along two axes')
        if rope_rescale < 1:
            raise UserError(f'rope_rescale is the largest factor of the coordinates, at least 1; got {rope_rescale}')
        self.channels, self.num_heads, self.num_queries = channels, num_heads, num_queries
        self.masked_attention, self.compat = masked_attention, compat
        self.rope_rescale, self.with_cp = rope_rescale, with_cp
        self.fusion = TapFusion(in_channels, channels, built(FusionOptions, fusion))
        self.queries = nn.Embedding(num_queries, channels)
        self.blocks = nn.ModuleList([RotaryBlock(channels, num_heads, hidden_channels or channels)
                                     for _ in range(num_blocks)])
        self.norm = nn.LayerNorm(channels)
        self.prediction = MaskPrediction(channels, stride)
        self.register_buffer('attn_mask_probs', torch.ones(num_blocks))

    def forward(self, taps: Sequence[Tensor], grid: Grid, *, all_layers: bool | None = None,
                padding: Padding | None = None) -> list[MaskProposals]:
        """Mask proposals; see `predictions`."""
        return [MaskProposals(prediction.mask_logits.dense(), prediction.embeddings)
                for prediction in self.predictions(taps, grid, all_layers=all_layers, padding=padding)]

    def predictions(self, taps: Sequence[Tensor], grid: Grid, *, all_layers: bool | None = None,
                    padding: Padding | None = None) -> list[PlainPrediction]:
        """What the decoder says.

        Args:
            taps: (B, P + rows * columns, C_i) each: P prefix tokens, then the patches row by row.
            grid: rows and columns of patches.
            all_layers: a prediction before every block and one at the end, by default in training with masked
                attention; else only the last.
            padding: tokens to leave out of statistics and attention; None: all take part.
        """
        masked = self.training and self.masked_attention
        all_layers = masked if all_layers is None else all_layers and self.masked_attention
        valid = None if padding is None else self._valid(padding, taps[0], grid)
        x = self.fusion(taps, valid)
        x = torch.cat([self.queries.weight.to(x.dtype).expand(x.shape[0], -1, -1), x], 1)
        keys = None if valid is None else torch.cat(
            [valid.new_ones(len(x), self.num_queries), valid], 1)[:, None]
        rope = self._rope(grid, x.device)
        shares = self.attn_mask_probs.tolist() if masked else [0.0] * len(self.blocks)
        found = []
        for block, share in zip(self.blocks, shares):
            rows = None
            if all_layers:
                found.append(self._predict(x, grid, valid))
                if share > 0:
                    rows = self._rows(found[-1].mask_logits, grid, x.shape[1], share)
            x = self._run(block, x, rope, rows, keys)
        return [*found, self._predict(x, grid, valid)]

    def _predict(self, x: Tensor, grid: Grid, valid: Tensor | None) -> PlainPrediction:
        x = self.norm(x)
        if valid is not None:  # what lies in the padding must not reach masks through the convolutions
            x = torch.cat([x[:, :self.num_queries], x[:, self.num_queries:] * valid[..., None]], 1)
        queries, patches = x[:, :self.num_queries], x[:, x.shape[1] - grid[0] * grid[1]:]
        if self.with_cp and torch.is_grad_enabled():
            return PlainPrediction(queries, checkpoint(self.prediction, queries, patches, grid, use_reentrant=False))
        return PlainPrediction(queries, self.prediction(queries, patches, grid))

    def _run(self, block: nn.Module, *arguments: object) -> Tensor:
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(block, *arguments, use_reentrant=False)
        return block(*arguments)

    def _rope(self, grid: Grid, device: torch.device) -> Rope:
        scale: float | Tensor = 1.0
        if self.training and self.rope_rescale > 1:
            scale = (torch.rand((), device=device) * 2 - 1).mul(math.log(self.rope_rescale)).exp()
        return grid_rope(grid, self.channels // self.num_heads, scale=scale, device=device)

    @torch.no_grad()
    def _rows(self, masks: MaskFactors, grid: Grid, length: int, share: float) -> Tensor:
        """(B, Q, length) bool: what queries may look at; `share` is the probability that a query is restricted."""
        inside = masks.resized(grid).flatten(2) > 0
        if share < 1:
            inside = inside | (torch.rand(inside.shape[:2], device=inside.device) > share)[..., None]
        return torch.cat([inside.new_ones(*inside.shape[:2], length - inside.shape[2]), inside], 2)

    @staticmethod
    def _valid(padding: Padding, tap: Tensor, grid: Grid) -> Tensor:
        """(B, P + rows * columns) bool: tokens that show image; prefix tokens always do."""
        shown = ~padding.at(grid).flatten(1)
        return torch.cat([shown.new_ones(len(shown), tap.shape[1] - shown.shape[1]), shown], 1)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + RECORD] = as_record(dict(compat=self.compat))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        record = state_dict.pop(prefix + RECORD, None)
        if record is not None:
            self.compat = read_record(record, prefix + RECORD)['compat']
        super()._load_from_state_dict(state_dict, prefix, *args)
