"""Depth estimators of mmseg: any frozen depth network, and correction of a prediction by points of known depth."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.models.segmentors.depth_estimator import DepthEstimator
from mmseg.structures import SegDataSample
from torch import Tensor

from frozenmm.errors import UserError, WrongKind
from frozenmm.foundation.depth_networks.base import DepthNetwork
from frozenmm.foundation.local_lines import fit_local_lines
from frozenmm.registry import MODELS

POINTS = 'depth_points'
"""Metainfo of a sample: (N, 3) row, column and depth in the original image, see `frozenmm.SampleDepthPoints`."""
DISPARITY_OFFSET = 0.1
"""Added to a disparity in 98th percentiles before it is inverted (spec section 10)."""


def correct_by_points(samples: Sequence[SegDataSample], settings: Mapping[str, Any] | None) -> list[SegDataSample]:
    """Bend each sample's `pred_depth_map` to its points of known depth; without settings samples stay as they are.

    Args:
        samples: with `pred_depth_map`.
        settings: arguments of `fit_local_lines`, possibly none.

    Raises:
        UserError: a sample without points.
    """
    for sample in samples if settings is not None else ():
        points = sample.metainfo.get(POINTS)
        if points is None or len(points) < 2:
            raise UserError(f'the correction needs at least 2 points of known depth per image under {POINTS!r}; add '
                            'frozenmm.SampleDepthPoints to the pipeline and the key to PackSegInputs\' meta_keys')
        depth = sample.pred_depth_map.data[0]
        known = torch.as_tensor(points, dtype=torch.float64, device=depth.device)
        bent = fit_local_lines(depth, known[:, :2].long(), known[:, 2], **dict(settings or {}))
        sample.set_data({'pred_depth_map': PixelData(data=bent.clamp(min=1e-6).to(depth.dtype)[None])})
    return list(samples)


@MODELS.register_module()
class CorrectedDepthEstimator(DepthEstimator):
    """mmseg's depth estimator whose prediction is bent to points of known depth (LWLR).

    Args:
        correction: arguments of `fit_local_lines`.
        **kwargs: of `mmseg.DepthEstimator`.
    """

    def __init__(self, *, correction: Mapping[str, Any] | None = None, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.correction = dict(correction or {})

    def postprocess_result(self, depth: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """As in mmseg, of depth (B, 1, H, W), then corrected where samples are given."""
        samples = super().postprocess_result(depth, data_samples)
        return samples if data_samples is None else correct_by_points(samples, self.correction)


@MODELS.register_module()
class FrozenDepthEstimator(BaseSegmentor):
    """Any frozen depth network as a model of mmseg, for `tools/test.py` with depth data sets and metrics.

    Args:
        network: config of a depth network (`frozenmm.LeReS`, `frozenmm.HFDepth`, `frozenmm.LightDepth`), or a built
            one. It normalises by itself, so the data preprocessor only stacks RGB images in 0..255.
        correction: None, or arguments of `fit_local_lines`: bend the prediction to points of known depth (LWLR).
        data_preprocessor: config; by default one that turns BGR to RGB and pads.

    Predictions are depth: a disparity is inverted after a fixed offset, whatever the alignment of the metric.

    Raises:
        WrongKind: the config builds something else than a depth network.
        UserError: a data preprocessor that normalises.
    """

    def __init__(self, network: Mapping[str, object] | DepthNetwork, *,
                 correction: Mapping[str, Any] | None = None,
                 data_preprocessor: Mapping[str, object] | None = None) -> None:
        given = dict(data_preprocessor or dict(type='mmseg.SegDataPreProcessor', bgr_to_rgb=True, size_divisor=1))
        if given.get('mean') is not None:
            raise UserError('a frozen depth network normalises its images by itself; remove mean and std from the '
                            'data preprocessor')
        super().__init__(data_preprocessor=given)
        built = MODELS.build(dict(network)) if isinstance(network, Mapping) else network
        if not isinstance(built, DepthNetwork):
            raise WrongKind(f'network must be a depth network, got {type(built).__name__}')
        self.network, self.correction = built, None if correction is None else dict(correction)

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Depth (B, 1, H, W) of images (B, 3, H, W) in 0..255."""
        prediction = self.network.predict(inputs)
        values = prediction.values
        if prediction.kind == 'affine_disparity':
            unit = torch.stack([torch.quantile(v.flatten()[::7], 0.98) for v in values]).clamp(min=1e-6)
            values = 1 / (values / unit[:, None, None] + DISPARITY_OFFSET)
        return values[:, None]

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """As `extract_feat`: depth (B, 1, H, W) of images (B, 3, H, W)."""
        return self.extract_feat(inputs)

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> Tensor:
        return self.extract_feat(inputs)

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Samples with `pred_depth_map` at the original size of the images (B, 3, H, W)."""
        samples = [SegDataSample() for _ in inputs] if data_samples is None else data_samples
        for values, sample in zip(self.extract_feat(inputs), samples):
            shown = sample.metainfo.get('img_shape', inputs.shape[2:])[:2]
            values = F.interpolate(values[None, :, :shown[0], :shown[1]], sample.metainfo.get('ori_shape', shown)[:2],
                                   mode='bilinear', align_corners=False)[0]
            sample.set_data({'pred_depth_map': PixelData(data=values)})
        return list(samples) if data_samples is None else correct_by_points(samples, self.correction)

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Nothing here can learn.

        Raises:
            TypeError: always.
        """
        raise TypeError('FrozenDepthEstimator has no trainable part; train configs/frozen_recon/depth_lite0_rooms.py, '
                        'or test this model with tools/test.py')
