"""Any frozen depth estimator or segmentor of mmseg with a trained cap that says how sure each pixel is."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.nn import functional as F

from frozenmm.errors import UserError, WrongKind
from frozenmm.foundation.frozen_module import FrozenModule
from frozenmm.foundation.lookup import choice
from frozenmm.foundation.uncertainty_cap import GeneralisedGaussianLoss, UncertaintyCap, deviation, fitted_to
from frozenmm.registry import MODELS
from frozenmm.segmentation.options import built

TASKS = ('depth', 'segmentation')


@MODELS.register_module()
class CappedEstimator(BaseSegmentor):
    """A frozen model of mmseg whose predictions stay as they are, bit for bit, with a deviation beside them.

    Depth: samples get `pred_depth_sigma` (1, H, W) in the units of `pred_depth_map`, and `pred_depth_shape`, the shape
    beta of the generalised Gaussian. Segmentation: the cap sees the entropy of the class probabilities over its maximum
    log K, and learns where the label is wrong (1) or right (0); samples get `pred_sem_seg_sigma`.

    Args:
        base: config of a model of mmseg, or a built one; a config with `init_cfg` loads its checkpoint here.
        task: `'depth'` or `'segmentation'`.
        cap: options of `UncertaintyCap`.
        loss: options of `GeneralisedGaussianLoss`.
        stride: the cap works on every stride-th pixel both ways, and its result is resized.
        align: depth is known up to scale and shift, so the truth is fitted to the prediction first; False: metric.
        ignore_index: label of pixels that do not count.

    Raises:
        WrongKind: `base` is no model of mmseg.
        UserError: a stride below 1.

    Source: BayesCap (Upadhyay et al., ECCV 2022). Ours: the reduced resolution, the unit range (the prediction's median
    in its image), the mask of unknown truth, and that the mean of the cap is not used in place of the prediction.
    """

    def __init__(self, base: Mapping[str, object] | BaseSegmentor, *, task: str = 'depth',
                 cap: Mapping[str, object] | None = None, loss: Mapping[str, object] | None = None, stride: int = 4,
                 align: bool = True, ignore_index: int = 255) -> None:
        model = MODELS.build(dict(base)) if isinstance(base, Mapping) else base
        if not isinstance(model, BaseSegmentor):
            raise WrongKind(f'base must be a model of mmseg, got {type(model).__name__}')
        if stride < 1:
            raise UserError(f'stride must be at least 1, got {stride}')
        if isinstance(base, Mapping):
            model.init_weights()
        super().__init__(data_preprocessor=model.data_preprocessor)
        self.base = FrozenModule(model, name=f'the {type(model).__name__} under the cap')
        self.task, self.stride, self.align = choice('task', task, TASKS), stride, align
        self.ignore_index = ignore_index
        self.cap = built(UncertaintyCap, cap)
        self.loss_fit = built(GeneralisedGaussianLoss, loss)

    def init_weights(self) -> None:
        """Nothing: the cap initialises itself as the official code does, and the base has its weights."""

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """What the cap sees (B, 1, H, W): depth, or entropy over its maximum, of images (B, 3, H, W)."""
        metas = [dict(img_shape=tuple(inputs.shape[-2:]), pad_shape=tuple(inputs.shape[-2:]))] * len(inputs)
        return self._seen(self._output(inputs, metas))

    encode_decode = extract_feat

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> Tensor:
        return self.extract_feat(inputs)

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """`loss_identity` and `loss_fit` of the cap."""
        metas = [dict(dict(img_shape=tuple(inputs.shape[-2:])), **sample.metainfo) for sample in data_samples]
        output = self._output(inputs, metas)
        if self.task == 'depth':
            truth = torch.stack([sample.gt_depth_map.data for sample in data_samples]).to(output)
            known = truth > 0
        else:
            labels = torch.stack([sample.gt_sem_seg.data for sample in data_samples])
            known = labels != self.ignore_index
            truth = (output.argmax(1, keepdim=True) != labels).to(output)
        return self.fit(self._seen(output), truth, known)

    def fit(self, values: Tensor, truth: Tensor, known: Tensor) -> dict[str, Tensor]:
        """The cap's losses for what it sees of the frozen model, once that is computed.

        Args:
            values: (B, 1, H, W) of `extract_feat`.
            truth: (B, 1, H, W), depth, or 1 where the label is wrong.
            known: (B, 1, H, W) bool, pixels that count.

        Raises:
            UserError: values and truth have different sizes.
        """
        if values.shape != truth.shape:
            raise UserError(f'the frozen model gives {tuple(values.shape[-2:])} pixels and the truth has '
                            f'{tuple(truth.shape[-2:])}; load the truth before the resize of the pipeline')
        first = self.stride // 2
        values, truth, known = (part[..., first::self.stride, first::self.stride] for part in (values, truth, known))
        unit = self._unit(values)
        values, truth = values / unit, truth / unit
        if self.task == 'depth' and self.align:
            truth = fitted_to(truth, values, known)
        return self.loss_fit(self.cap(values), values, truth, known)

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """The frozen model's samples, with the deviation of every pixel."""
        samples = self.base.run(lambda model, images: model.predict(images, data_samples), inputs)
        for sample in samples:
            shown = tuple(sample.metainfo.get('img_shape', inputs.shape[-2:])[:2])
            output = sample.pred_depth_map.data if self.task == 'depth' else sample.seg_logits.data
            sigma, shape = self.uncertainty(self._seen(output[None]), shown)
            if self.task == 'depth':
                sample.set_data({'pred_depth_sigma': PixelData(data=sigma[0]),
                                 'pred_depth_shape': PixelData(data=shape[0])})
            else:
                sample.set_data({'pred_sem_seg_sigma': PixelData(data=sigma[0])})
        return samples

    @torch.no_grad()
    def uncertainty(self, values: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Deviation and shape beta (B, 1, H, W) of values (B, 1, H, W) of the frozen model, in their units.

        Args:
            values: depth, or entropy over its maximum.
            size: of the image in the pipeline, at which the cap was trained; that of the values by default.
        """
        seen = values if size in (None, tuple(values.shape[-2:])) else F.interpolate(
            values, size, mode='bilinear', align_corners=False)
        seen = seen[..., self.stride // 2::self.stride, self.stride // 2::self.stride]
        unit = self._unit(seen)
        scale, shape = self.loss_fit.scale_and_shape(*self.cap(seen / unit)[1:])
        sigma, shape = (F.interpolate(part, values.shape[-2:], mode='bilinear', align_corners=False)
                        for part in (deviation(scale, shape) * unit, shape))
        return sigma, shape

    def _output(self, inputs: Tensor, metas: list[dict[str, Any]]) -> Tensor:
        return self.base.run(lambda model, images: model.encode_decode(images, metas), inputs)

    def _seen(self, output: Tensor) -> Tensor:
        if self.task == 'depth':
            return output
        probabilities = output.softmax(1)
        entropy = -(probabilities * probabilities.clamp(min=1e-12).log()).sum(1, keepdim=True)
        return entropy / math.log(max(output.shape[1], 2))

    def _unit(self, values: Tensor) -> Tensor:
        """(B, 1, 1, 1): what the values are divided by, so that they are about 1."""
        if self.task != 'depth':
            return torch.ones_like(values[:, :1, :1, :1])
        return values.flatten(1).median(1).values.clamp(min=1e-6)[:, None, None, None]
