"""The deformable encoder over detector levels and frozen maps."""
from __future__ import annotations

from typing import Any

from mmdet.models.layers.transformer import DeformableDetrTransformerEncoder
from torch import Tensor

from frozenmm.detection.frozen_detr.levels import Levels


class FusionEncoder(DeformableDetrTransformerEncoder):
    """mmdet's deformable encoder that need not compute what is thrown away.

    The proposals and the decoder see the detector levels only, so the last layer computes only their rows; frozen maps
    serve it as values. The kept rows are the same numbers.
    """

    def forward(self, levels: Levels, *, keep: int | None = None) -> Tensor:
        """Encoded cells.

        Args:
            levels: all levels.
            keep: number of leading cells wanted, all by default.

        Returns:
            (B, keep, C).
        """
        # shapes from the host, so that nothing waits for the device
        references = self.get_encoder_reference_points(levels.shapes, levels.valid_ratios,
                                                       device=levels.features.device)
        x = levels.features
        keep = x.shape[1] if keep is None else keep
        shared = dict(key_padding_mask=levels.mask, spatial_shapes=levels.spatial_shapes,
                      level_start_index=levels.start_index)
        for index, layer in enumerate(self.layers):
            if index == len(self.layers) - 1 and keep < x.shape[1]:
                return _leading_rows(layer, x, keep, query_pos=levels.positions[:, :keep],
                                     reference_points=references[:, :keep], **shared)
            x = layer(query=x, query_pos=levels.positions, reference_points=references,
                      valid_ratios=levels.valid_ratios, **shared)
        return x[:, :keep]


def _leading_rows(layer: Any, x: Tensor, rows: int, **attention: Tensor | None) -> Tensor:
    """One post-norm encoder layer for the leading rows, with all rows as values; forwards to the attention module."""
    kept = layer.norms[0](layer.self_attn(query=x[:, :rows], value=x, **attention))
    return layer.norms[1](layer.ffn(kept))
