"""The part of FrozenSeg's pixel decoder that prepares SAM's image embedding for the feature injector."""
from __future__ import annotations

import torch
from mmcv.cnn import ConvModule
from mmdet.models.layers import SinePositionalEncoding
from torch import Tensor, nn

from frozenmm.deprecation import renamed_arguments
from frozenmm.errors import UserError, WrongKind
from frozenmm.ops import MultiScaleDeformableAttention
from frozenmm.segmentation.frozen_seg.flat_attention import FlatDeformableAttention
from frozenmm.segmentation.mask2former.pixel_decoder import build_encoder, encode_levels, encoder_config


class SAMBranch(nn.Module):
    """Stride-2 convolution, then a deformable encoder on that one map.

    Source: FrozenSeg section 3.2 and its code.

    Args:
        in_channels: width of SAM's embedding.
        channels: width of the result.
        compat: build the encoder for three maps instead of its one and compute as the official kernel does, which
            official checkpoints need (see `FlatDeformableAttention`).
        num_layers, num_heads, num_points, feedforward_channels, num_groups, with_cp: as in `PixelDecoder`.
    """

    @renamed_arguments(removed_in='0.3', level_mode=('compat', {'single': False, 'official_flat': True}))
    def __init__(self, in_channels: int = 256, *, channels: int = 256, compat: bool = False, num_layers: int = 6,
                 num_heads: int = 8, num_points: int = 4, feedforward_channels: int = 1024, num_groups: int = 32,
                 with_cp: bool = False) -> None:
        super().__init__()
        if not isinstance(compat, bool):
            raise WrongKind(f'compat of the SAM branch must be True (official checkpoints) or False, got {compat!r}')
        levels = 3 if compat else 1
        self.compat = compat
        self.conv = ConvModule(in_channels, channels, 3, stride=2, padding=1, bias=True,
                               norm_cfg=dict(type='GN', num_groups=num_groups))
        # the official code means to draw this convolution anew but leaves torch's own initialisation
        self.conv.conv.reset_parameters()
        config = encoder_config(channels=channels, num_layers=num_layers, num_levels=levels, num_heads=num_heads,
                                num_points=num_points, feedforward_channels=feedforward_channels)
        self.encoder = build_encoder(config, FlatDeformableAttention if compat else MultiScaleDeformableAttention)
        self.level_encoding = nn.Embedding(levels, channels)
        self.positions = SinePositionalEncoding(channels // 2, normalize=True)
        self.with_cp = with_cp

    def forward(self, embedding: Tensor) -> Tensor:
        """SAM's embedding (B, in_channels, h, w) to (B, channels, h/2, w/2), in float32 even under autocast."""
        with torch.autocast(embedding.device.type, enabled=False):
            maps = [self.conv(embedding.float())]
            return encode_levels(self.encoder, maps, self.level_encoding.weight, self.positions,
                                 with_cp=self.with_cp and self.training)[0]

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        rows = state_dict.get(f'{prefix}level_encoding.weight')
        if rows is not None and len(rows) != self.level_encoding.num_embeddings:
            given = len(rows) == 3
            raise UserError(f'the checkpoint\'s SAM branch was trained with compat={given}, but this model has '
                            f'compat={self.compat}; set mask_generator.sam_branch.compat={given}')
        super()._load_from_state_dict(state_dict, prefix, *args)
