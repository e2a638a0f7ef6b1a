"""The decoder of the demonstration depth network as a decode head of mmseg."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor

from frozenmm.demo.light_depth import LightDepthDecoder
from frozenmm.errors import UserError
from frozenmm.registry import MODELS


@MODELS.register_module()
class LightDepthHead(BaseDecodeHead):
    """Affine-invariant depth from four maps of a backbone, for `mmseg.DepthEstimator`.

    Args:
        in_channels: widths of the maps of strides 4, 8, 16 and 32.
        channels: width of the decoder.
        in_index: which of the backbone's maps.
        loss_stride: the loss is computed on every loss_stride-th pixel both ways.
        loss_decode: config of the loss.
    """

    out_channels = 1

    def __init__(self, in_channels: Sequence[int], *, channels: int = 64, in_index: Sequence[int] = (0, 1, 2, 3),
                 loss_stride: int = 2, loss_decode: Mapping[str, object] | None = None) -> None:
        if loss_stride < 1:
            raise UserError(f'loss_stride must be at least 1, got {loss_stride}')
        # the base class needs a number of classes, of which depth has none
        super().__init__(list(in_channels), channels, num_classes=1, out_channels=1, threshold=0.5, dropout_ratio=0,
                         in_index=list(in_index), input_transform='multiple_select', align_corners=False,
                         loss_decode=dict(loss_decode or dict(type='frozenmm.AffineDepthLoss')), init_cfg=None)
        del self.conv_seg  # the base class's classifier
        self.loss_stride = loss_stride
        self.decoder = LightDepthDecoder(in_channels, channels=channels)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Depth (B, 1, h, w) of stride 4 from the backbone's maps (B, C, h, w) of strides 4, 8, 16 and 32."""
        return self.decoder(self._transform_inputs(inputs))

    def loss_by_feat(self, pred_depth_map: Tensor, batch_data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """The loss, a scalar, of depth (B, 1, h, w) against the samples' `gt_depth_map` (1, H, W), at its places."""
        truth = torch.stack([sample.gt_depth_map.data for sample in batch_data_samples]).to(pred_depth_map)
        prediction = F.interpolate(pred_depth_map, truth.shape[2:], mode='bilinear', align_corners=False)
        first, step = self.loss_stride // 2, self.loss_stride
        prediction, truth = (maps[..., first::step, first::step] for maps in (prediction, truth))
        return {self.loss_decode.loss_name: self.loss_decode(prediction, truth)}
