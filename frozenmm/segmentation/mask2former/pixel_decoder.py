"""Multi-scale deformable pixel decoder: mmdet's modules and weight names, run in fp32 without host synchronisation."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.layers import Mask2FormerTransformerEncoder, MSDeformAttnPixelDecoder
from mmengine.config import ConfigDict
from mmengine.model import caffe2_xavier_init, xavier_init
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from frozenmm.errors import UserError
from frozenmm.ops import MultiScaleDeformableAttention
from frozenmm.ops.traced_attention import map_sizes


def encoder_config(*, channels: int, num_layers: int, num_levels: int, num_heads: int, num_points: int,
                   feedforward_channels: int) -> ConfigDict:
    """The constructor arguments of mmdet's `Mask2FormerTransformerEncoder`: post-norm, ReLU, no dropout."""
    attention = dict(embed_dims=channels, num_heads=num_heads, num_levels=num_levels, num_points=num_points,
                     dropout=0.0, batch_first=True)
    feedforward = dict(embed_dims=channels, feedforward_channels=feedforward_channels, num_fcs=2, ffn_drop=0.0,
                       act_cfg=dict(type='ReLU', inplace=True))
    return ConfigDict(num_layers=num_layers, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=feedforward))


def build_encoder(config: ConfigDict, attention: type[MultiScaleDeformableAttention] = MultiScaleDeformableAttention
                  ) -> Mask2FormerTransformerEncoder:
    """Mmdet's encoder with our deformable attention in the place of mmcv's; weight names are the same."""
    encoder = Mask2FormerTransformerEncoder(**config)
    for layer in encoder.layers:
        layer.self_attn = attention(**config.layer_cfg.self_attn_cfg)
    initialise_encoder(encoder)
    return encoder


def initialise_encoder(encoder: Mask2FormerTransformerEncoder) -> None:
    """Xavier-uniform matrices (official; mmdet draws them normal), ring-shaped sampling offsets."""
    for parameter in encoder.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    for layer in encoder.layers:
        layer.self_attn.init_weights()


def encode_levels(encoder: Mask2FormerTransformerEncoder, maps: Sequence[Tensor], level_embeddings: Tensor,
                  positions: nn.Module, *, with_cp: bool = False) -> list[Tensor]:
    """Run a deformable encoder over feature maps without padding mask.

    Args:
        encoder: its `layers` are called with mmdet's arguments.
        maps: L maps (B, C, h, w).
        level_embeddings: (L or more, C), row l is added to the position encoding of map l.
        positions: sine position encoding; called with a (1, h, w) mask of zeros.
        with_cp: recompute the layers' activations in the backward pass.

    Returns:
        L maps (B, C, h, w), encoded.
    """
    device = maps[0].device
    sizes = [(value.shape[-2], value.shape[-1]) for value in maps]
    lengths = [height * width for height, width in sizes]
    tokens = torch.cat([value.flatten(2) for value in maps], 2).transpose(1, 2)
    places, points = [], []
    for embedding, (height, width) in zip(level_embeddings, sizes):
        place = positions(torch.zeros(1, height, width, dtype=torch.bool, device=device))
        places.append(place.flatten(2).transpose(1, 2) + embedding)
        rows = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        columns = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        points.append(torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width)], -1).flatten(0, 1))
    arguments: dict[str, Any] = dict(
        query_pos=torch.cat(places, 1), key_padding_mask=None,
        spatial_shapes=map_sizes(sizes, device), level_start_index=None if torch.compiler.is_exporting() else
        torch.tensor([sum(lengths[:i]) for i in range(len(lengths))], device=device),
        reference_points=torch.cat(points)[None, :, None].expand(tokens.shape[0], -1, len(maps), -1))
    for layer in encoder.layers:
        if with_cp and torch.is_grad_enabled():
            tokens = checkpoint(layer, tokens, use_reentrant=False, **arguments)
        else:
            tokens = layer(tokens, **arguments)
    return [value.transpose(1, 2).unflatten(2, size) for value, size in zip(tokens.split(lengths, 1), sizes)]


class PixelDecoder(MSDeformAttnPixelDecoder):
    """Deformable encoder over strides 32, 16, 8, then one pyramid step to stride 4.

    Source: Mask2Former (Cheng et al., CVPR 2022), section 3.2. Weight names and arithmetic are those of mmdet's
    `MSDeformAttnPixelDecoder`; initialisation is the official one.

    Args:
        in_channels: widths of res2..res5.
        channels: width of the encoder and of the maps it returns.
        mask_channels: width of the mask features.
        num_layers: encoder layers.
        num_heads: heads of the deformable attention.
        num_points: sampling points per head and level.
        feedforward_channels: hidden width of the encoder's feed-forward networks.
        num_groups: groups of the group norms.
        with_cp: recompute the encoder's activations in the backward pass, to save memory.
    """

    def __init__(self, in_channels: Sequence[int], *, channels: int = 256, mask_channels: int = 256,
                 num_layers: int = 6, num_heads: int = 8, num_points: int = 4, feedforward_channels: int = 1024,
                 num_groups: int = 32, with_cp: bool = False) -> None:
        if len(in_channels) != 4:
            raise UserError(f'the pixel decoder takes four maps, res2 to res5; got in_channels={list(in_channels)}')
        encoder = encoder_config(channels=channels, num_layers=num_layers, num_levels=3, num_heads=num_heads,
                                 num_points=num_points, feedforward_channels=feedforward_channels)
        super().__init__(in_channels=list(in_channels), strides=[4, 8, 16, 32], feat_channels=channels,
                         out_channels=mask_channels, norm_cfg=dict(type='GN', num_groups=num_groups), encoder=encoder,
                         positional_encoding=dict(num_feats=channels // 2, normalize=True))
        self.encoder = build_encoder(encoder)
        self.with_cp = with_cp
        self.init_weights()

    def init_weights(self) -> None:
        """Draw new weights as the official code does."""
        for convolution in self.input_convs:
            xavier_init(convolution.conv, gain=1, bias=0, distribution='uniform')
        for convolution in (self.lateral_convs[0].conv, self.output_convs[0].conv, self.mask_feature):
            caffe2_xavier_init(convolution, bias=0)
        nn.init.normal_(self.level_encoding.weight)
        initialise_encoder(self.encoder)

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Mask features and decoder memories.

        Args:
            feats: res2..res5, each (B, C_i, h, w); any floating type, computed in float32 even under autocast.

        Returns:
            mask features (B, mask_channels, H/4, W/4); three maps (B, channels, h, w) of strides 32, 16, 8.
        """
        with torch.autocast(feats[0].device.type, enabled=False):
            feats = [value.float() for value in feats]
            maps = [convolution(value) for convolution, value in zip(self.input_convs, feats[:0:-1])]
            maps = encode_levels(self.encoder, maps, self.level_encoding.weight, self.postional_encoding,
                                 with_cp=self.with_cp and self.training)
            lateral = self.lateral_convs[0](feats[0])
            top = F.interpolate(maps[-1], size=lateral.shape[-2:], mode='bilinear', align_corners=False)
            return self.mask_feature(self.output_convs[0](lateral + top)), maps
