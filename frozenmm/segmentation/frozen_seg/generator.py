"""FrozenSeg's mask generator: pixel decoder, SAM branch, decoder with injectors."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from frozenmm.segmentation.frozen_seg.injectors import InjectedDecoder
from frozenmm.segmentation.frozen_seg.sam_branch import SAMBranch
from frozenmm.segmentation.mask2former.decoder import MaskProposals
from frozenmm.segmentation.mask2former.padding import Padding
from frozenmm.segmentation.mask2former.pixel_decoder import PixelDecoder
from frozenmm.segmentation.options import part


class InjectedMaskGenerator(nn.Module):
    """From CLIP's maps and SAM's embedding to mask proposals.

    Args:
        in_channels: widths of CLIP's res2..res5.
        sam_channels: width of SAM's embedding; equal to the decoder's `mask_channels`.
        pixel_decoder: options of `PixelDecoder`, or a module with its signature.
        sam_branch: options of `SAMBranch` but `in_channels`, or a module with its signature.
        decoder: options of `InjectedDecoder`, or a module with its signature.
    """

    def __init__(self, in_channels: Sequence[int], sam_channels: int, *,
                 pixel_decoder: Mapping[str, object] | nn.Module | None = None,
                 sam_branch: Mapping[str, object] | nn.Module | None = None,
                 decoder: Mapping[str, object] | nn.Module | None = None) -> None:
        super().__init__()
        self.pixel_decoder = part(PixelDecoder, pixel_decoder, in_channels)
        self.sam_branch = part(SAMBranch, sam_branch, sam_channels)
        self.decoder = part(InjectedDecoder, decoder)

    def forward(self, maps: Sequence[Tensor], sam_embedding: Tensor, *, all_layers: bool | None = None,
                padding: Padding | None = None) -> list[MaskProposals]:
        """Proposals from res2..res5 and SAM's embedding (B, C, h, w); see `InjectedDecoder`."""
        mask_features, levels = self.pixel_decoder(maps)
        return self.decoder(levels, mask_features, self.sam_branch(sam_embedding), sam_embedding, all_layers=all_layers,
                            padding=padding)
