"""Masks of phrases, from a frozen multimodal model that was never taught to segment."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.errors import UserError
from frozenmm.registry import MODELS
from frozenmm.segmentation.f_lmm.evidence import Evidence, EvidenceProvider
from frozenmm.segmentation.f_lmm.refiner import SAMMaskRefiner
from frozenmm.structures import TowerFeatures


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - (2 |p t| + 1) / (|p| + |t| + 1) of masks (N, H, W), mean over them."""
    probability, truth = logits.sigmoid().flatten(1), truth.float().flatten(1)
    both = (probability * truth).sum(1)
    return (1 - (2 * both + 1) / (probability.sum(1) + truth.sum(1) + 1)).mean()


@MODELS.register_module()
class FrozenLMMGrounder(BaseModel):
    """F-LMM: attention maps of a frozen multimodal model -> U-Net -> SAM.

    Takes a batch of `mmengine`'s kind: `inputs`, pictures (3, H, W) RGB in 0..255, and data samples with the metainfo
    `phrases` and, for training, `gt_phrase_masks` (N, H, W). Predictions are `pred_phrase_masks` (N, H, W) bool and
    `phrase_logits`, at the size of the picture.

    Args:
        provider: config of an evidence provider: `LlavaEvidence`, or `MadeUpEvidence` to train and test without one.
        head: config of the U-Net; gets `in_channels`.
        refiner: config of the refiner; None leaves the first mask, which is then resized.
        data_preprocessor: see mmengine.

    Source: F-LMM (Wu et al., CVPR 2025). The loss is binary cross-entropy and Dice of the first mask, on its own grid,
    and of the refined one; a batch is the mean over its phrases.
    """

    def __init__(self, provider: Mapping[str, Any] | EvidenceProvider, *, head: Mapping[str, Any] | None = None,
                 refiner: Mapping[str, Any] | SAMMaskRefiner | None = None,
                 data_preprocessor: Mapping[str, Any] | None = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.provider = MODELS.build(dict(provider)) if isinstance(provider, Mapping) else provider
        self.head = MODELS.build({'type': 'frozenmm.AttentionUNetHead', **(head or {}),
                                  'in_channels': self.provider.channels})
        self.refiner: SAMMaskRefiner | None = cast(SAMMaskRefiner | None, MODELS.build(
            {'type': 'frozenmm.SAMMaskRefiner', **refiner}) if isinstance(refiner, Mapping) else refiner)
        self.layer_weights = nn.Parameter(torch.ones(self.provider.layers))
        self.to_prompt = None if self.refiner is None else nn.Linear(self.provider.width, self.refiner.channels)

    def forward(self, inputs: Sequence[Tensor] | Tensor, data_samples: Sequence[BaseDataElement] | None = None,
                mode: str = 'tensor') -> Any:
        """Losses (`mode='loss'`), data samples (`'predict'`), or the logits (N, H, W) of each picture.

        Raises:
            UserError: no phrases, or no masks in training.
        """
        if data_samples is None:
            raise UserError('FrozenLMMGrounder needs data samples whose metainfo names the phrases')
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        found = [self.ground(picture, _phrases(sample), _masks(sample))[1]
                 for picture, sample in zip(inputs, data_samples)]
        if mode == 'predict':
            for sample, logits in zip(data_samples, found):
                sample.set_data(dict(pred_phrase_masks=PixelData(data=logits.sigmoid() > 0.5),
                                     phrase_logits=PixelData(data=logits)))
            return list(data_samples)
        return found

    def ground(self, picture: Tensor, phrases: Sequence[str], masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """First logits (N, h, w) over the picture, and refined ones (N, H, W).

        Args:
            picture: (3, H, W) RGB in 0..255.
            phrases: N texts.
            masks: see `EvidenceProvider`.
        """
        evidence = self.provider(picture, phrases, masks)
        first = evidence.placement.cut(self.head(evidence.attention))[:, 0]
        size = (int(picture.shape[-2]), int(picture.shape[-1]))
        if self.refiner is None:
            return first, F.interpolate(first[:, None], size, mode='bilinear', align_corners=False)[:, 0]
        features: TowerFeatures = self.refiner.embed(picture)
        return first, self.refiner(features, first, self.prompt_words(evidence), size)

    def prompt_words(self, evidence: Evidence) -> list[Tensor]:
        """For each phrase (T_n, channels): its tokens' states as SAM's prompts, layers weighted."""
        weight = self.layer_weights.softmax(0)
        project = cast(nn.Linear, self.to_prompt)
        return [project(torch.einsum('tlc,l->tc', words, weight)) for words in evidence.words]

    def loss(self, inputs: Sequence[Tensor] | Tensor, data_samples: Sequence[BaseDataElement]) -> dict[str, Tensor]:
        """Four terms; without refiner two."""
        terms: dict[str, list[Tensor]] = {}
        counts = []
        for picture, sample in zip(inputs, data_samples):
            masks = _masks(sample)
            if masks is None:
                raise UserError('training needs gt_phrase_masks in every data sample; read a data set with masks')
            first, refined = self.ground(picture, _phrases(sample), masks)
            small = F.interpolate(masks[:, None].float(), first.shape[-2:], mode='nearest')[:, 0]
            pairs = [('first', first, small)] + ([] if self.refiner is None else [('refined', refined, masks.float())])
            for name, logits, truth in pairs:
                terms.setdefault(f'loss_{name}_mask', []).append(F.binary_cross_entropy_with_logits(logits, truth))
                terms.setdefault(f'loss_{name}_dice', []).append(dice_loss(logits, truth))
            counts.append(len(masks))
        weight = torch.tensor(counts, dtype=torch.float32, device=terms['loss_first_mask'][0].device)
        return {name: (torch.stack(values) * weight).sum() / weight.sum() for name, values in terms.items()}


def _phrases(sample: BaseDataElement) -> list[str]:
    phrases = sample.metainfo.get('phrases')
    if not phrases:
        raise UserError('a data sample names no phrases in its metainfo; give at least one text')
    return list(phrases)


def _masks(sample: BaseDataElement) -> Tensor | None:
    return sample.gt_phrase_masks.data if 'gt_phrase_masks' in sample else None
