"""From attention maps to a first mask: a U-Net over all layers and heads."""
from __future__ import annotations

import torch
from mmseg.models.backbones.unet import InterpConv, UNet
from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.registry import MODELS

_MULTIPLE = 8
"""Three times halved."""


@MODELS.register_module()
class AttentionUNetHead(nn.Module):
    """One mask logit per cell from the attention maps of a phrase.

    Every map is divided by its sum over the whole square, padding included, then enlarged until its longer side has
    `side` cells, in this order.

    Args:
        in_channels: layers times heads.
        channels: of the first stage; doubled in each of three more.
        side: see above; grids that are larger stay as they are.

    Source: F-LMM (Wu et al., CVPR 2025), its U-Net of mmseg with one group in every norm, in float32 throughout.
    """

    def __init__(self, in_channels: int, *, channels: int = 64, side: int = 64) -> None:
        super().__init__()
        self.side = side
        self.unet = UNet(
            in_channels=in_channels, base_channels=channels, num_stages=4, strides=(1, 1, 1, 1),
            enc_num_convs=(2, 2, 2, 2), dec_num_convs=(2, 2, 2), downsamples=(True, True, True),
            enc_dilations=(1, 1, 1, 1), dec_dilations=(1, 1, 1), norm_cfg=dict(type='GN', num_groups=1),
            upsample_cfg=dict(type=InterpConv))
        self.predict = nn.Conv2d(channels, 1, 1)

    def forward(self, attention: Tensor) -> Tensor:
        """Logits (N, 1, h, w) of attention (N, L * H, gh, gw) in 0..1."""
        with torch.autocast(attention.device.type, enabled=False):
            x = attention.float()
            x = x / x.sum((-2, -1), keepdim=True).clamp(min=1e-12)
            scale = max(1.0, self.side / max(x.shape[-2:]))
            x = F.interpolate(x, scale_factor=scale, mode='bilinear', align_corners=False)
            height, width = x.shape[-2:]
            x = F.pad(x, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE))
            return self.predict(self.unet(x)[-1])[..., :height, :width]
