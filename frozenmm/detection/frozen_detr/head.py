"""DINO's head with the numerics of either mmdet or the official code, with or without denoising."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmcv.ops import batched_nms
from mmdet.models.dense_heads import DINOHead
from mmdet.models.layers import inverse_sigmoid
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData
from torch import Tensor, nn

from frozenmm.deprecation import warn_renamed
from frozenmm.detection.frozen_detr import compat_record
from frozenmm.detection.frozen_detr.text_branch import TextBranch, name_vectors
from frozenmm.errors import UserError
from frozenmm.registry import MODELS


@MODELS.register_module()
class EnhancedDINOHead(DINOHead):
    """mmdet's DINO head; by default the same numbers.

    Logits and boxes are float32 under autocast, since bfloat16 has only 8 bits for a box coordinate.

    Args:
        compat: as the official code does: the inverse sigmoid of reference boxes is clamped at 1e-3 instead of mmdet's
            1e-5, and detections are not clipped to the image.
        tie_branches: one class and one box branch for all decoder layers, as the official code trains; the encoder
            keeps its own. The optimizer then needs `paramwise_cfg=dict(bypass_duplicate=True)`.
        text_classifier: classes by words, `dict(text_tower=..., vocabulary=..., templates='imagenet80')`, see
            `name_vectors`; None learns a row for every class.
        kwargs: arguments of `mmdet.DINOHead`.
    """

    def __init__(self, *args: object, compat: bool = False, tie_branches: bool = False,
                 text_classifier: Mapping | None = None, **kwargs: Any) -> None:
        chosen = compat_record.OFFICIAL if compat else compat_record.MMDET
        numbers = {name: _of_old(name, kwargs.pop(name, None), chosen[name])
                   for name in ('reference_eps', 'clip_boxes')}
        if not 0 < numbers['reference_eps'] < 0.5:
            raise UserError(f'reference_eps must lie between 0 and 0.5, got {numbers["reference_eps"]}')
        self._tie_branches, self._text_classifier, self._compat = tie_branches, text_classifier, compat
        super().__init__(*args, **kwargs)
        if not self.loss_cls.use_sigmoid:
            raise UserError('DINO classifies by sigmoid; set use_sigmoid=True in loss_cls')
        self.reference_eps, self.clip_boxes = float(numbers['reference_eps']), bool(numbers['clip_boxes'])

    def _init_layers(self) -> None:
        super()._init_layers()
        if self._text_classifier is not None:
            vectors = name_vectors(**self._text_classifier)
            if len(vectors) != self.num_classes:
                raise UserError(f'the vocabulary of text_classifier has {len(vectors)} classes, but num_classes is '
                                f'{self.num_classes}; make the two equal')
            self.cls_branches = nn.ModuleList(TextBranch(self.embed_dims, vectors, compat=self._compat)
                                              for _ in range(self.num_pred_layer))
        if self._tie_branches:
            for name in 'cls_branches', 'reg_branches':
                branches = getattr(self, name)
                layers = len(branches) - int(self.as_two_stage)
                setattr(self, name, nn.ModuleList([branches[0]] * layers + list(branches[layers:])))

    def init_weights(self) -> None:
        """As mmdet's; a branch that reads words begins with the same prior."""
        super().init_weights()
        for branch in self.cls_branches:
            if isinstance(branch, TextBranch):
                branch.init_prior()

    def forward(self, hidden_states: Tensor, references: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Predictions of every decoder layer.

        Args:
            hidden_states: (layers, B, Q, C).
            references: reference boxes (B, Q, 4) that each layer began with; further ones are not read.

        Returns:
            (layers, B, Q, K) logits and (layers, B, Q, 4) cxcywh boxes in 0..1, both float32.
        """
        logits, boxes = [], []
        for index, state in enumerate(hidden_states):
            reference = inverse_sigmoid(references[index], eps=self.reference_eps)
            logits.append(self.cls_branches[index](state).float())
            boxes.append((self.reg_branches[index](state).float() + reference).sigmoid())
        return torch.stack(logits), torch.stack(boxes)

    @staticmethod
    def split_outputs(all_layers_cls_scores: Tensor, all_layers_bbox_preds: Tensor,
                      dn_meta: dict[str, int] | None) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Matching logits and boxes, then denoising logits and boxes (None without denoising)."""
        if dn_meta is None:
            return all_layers_cls_scores, all_layers_bbox_preds, None, None
        return DINOHead.split_outputs(all_layers_cls_scores, all_layers_bbox_preds, dn_meta)

    def _predict_by_feat_single(self, cls_score: Tensor, bbox_pred: Tensor, img_meta: dict,
                                rescale: bool = True) -> InstanceData:
        """The `max_per_img` best pairs of query and class; fewer if there are not so many.

        With `nms` in `test_cfg` as many pairs as there are queries go through it first, as Co-DINO has it.
        """
        nms, most = self.test_cfg.get('nms'), self.test_cfg.get('max_per_img', len(cls_score))
        scores = cls_score.sigmoid().flatten()
        scores, index = scores.topk(min(len(cls_score) if nms else most, len(scores)))
        height, width = img_meta['img_shape'][:2]
        boxes = bbox_cxcywh_to_xyxy(bbox_pred[index // self.num_classes]) * bbox_pred.new_tensor([width, height] * 2)
        if self.clip_boxes:
            boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height] * 2))
        if rescale:
            boxes = boxes / boxes.new_tensor(img_meta['scale_factor']).repeat(2)
        labels = index % self.num_classes
        if nms:
            found, kept = batched_nms(boxes, scores, labels, nms)
            boxes, scores, labels = found[:most, :4], found[:most, 4], labels[kept[:most]]
        return InstanceData(bboxes=boxes, scores=scores, labels=labels)


def _of_old(name: str, given: float | bool | None, chosen: float | bool) -> float | bool:
    """A number that frozenmm 0.1 took as an argument of its own, else the one that `compat` stands for."""
    if given is None:
        return chosen
    warn_renamed(f'{name}={given}', f'compat={given == compat_record.OFFICIAL[name]}', removed_in='0.3')
    return given
