"""The first part of mask classification: from a tower's feature maps to mask proposals."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from frozenmm.segmentation.mask2former.decoder import MaskedAttentionDecoder, MaskProposals
from frozenmm.segmentation.mask2former.padding import Padding
from frozenmm.segmentation.mask2former.pixel_decoder import PixelDecoder
from frozenmm.segmentation.options import part


class MaskGenerator(nn.Module):
    """Pixel decoder and masked-attention decoder.

    Args:
        in_channels: widths of res2..res5.
        pixel_decoder: options of `PixelDecoder`, or a module with its signature.
        decoder: options of `MaskedAttentionDecoder`, or a module with its signature.
    """

    def __init__(self, in_channels: Sequence[int], *, pixel_decoder: Mapping[str, object] | nn.Module | None = None,
                 decoder: Mapping[str, object] | nn.Module | None = None) -> None:
        super().__init__()
        self.pixel_decoder = part(PixelDecoder, pixel_decoder, in_channels)
        self.decoder = part(MaskedAttentionDecoder, decoder)

    def forward(self, maps: Sequence[Tensor], *, all_layers: bool | None = None,
                padding: Padding | None = None) -> list[MaskProposals]:
        """Proposals from res2..res5, each (B, C_i, h, w); of every layer in train mode, else of the last one."""
        mask_features, levels = self.pixel_decoder(maps)
        return self.decoder(levels, mask_features, all_layers=all_layers, padding=padding)
