"""Co-DINO: DINO trained beside one-to-many heads, with or without frozen foundation models.

Source: Zong et al., "DETRs with Collaborative Hybrid Assignments Training" (ICCV 2023, arXiv 2211.12860); with frozen
towers Frozen-DETR (arXiv 2410.19635), whose authors' Co-DINO the converter `co_dino` reads. mmdet's wheel has none.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from mmdet.models.dense_heads.detr_head import DETRHead
from mmdet.models.layers import inverse_sigmoid
from mmdet.structures import SampleList
from torch import Tensor, nn

from frozenmm.detection.frozen_detr.collaborators import AuxiliaryQueries, Collaborators, auxiliary_queries
from frozenmm.detection.frozen_detr.detector import EnhancedDINO
from frozenmm.detection.frozen_detr.enhancement import image_sizes
from frozenmm.detection.frozen_detr.image_queries import LayerImageQueries
from frozenmm.detection.frozen_detr.levels import Levels
from frozenmm.detection.frozen_detr.recorded import replaced
from frozenmm.registry import MODELS


@MODELS.register_module()
class EnhancedCoDINO(EnhancedDINO):
    """`EnhancedDINO` with collaborators in training; detections come from the decoder alone.

    The decoder runs once more per collaborator, on queries at the boxes that this head assigned to objects.

    Args:
        collaborators: configs of mmdet's heads, `rpn_head`, `roi_head` and `dense_head`, see `Collaborators`.
        kwargs: arguments of `EnhancedDINO`; official Co-DINO has `patch_norm='LN'` and a `QualityFocalLoss`.
    """

    def __init__(self, *args: Any, collaborators: Mapping, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.collaborators = Collaborators(**collaborators, embed_dims=self.embed_dims, levels=self.num_feature_levels)

    def init_weights(self) -> None:
        """As DINO, but object queries begin normally distributed, as in the official code."""
        super().init_weights()
        nn.init.normal_(self.query_embedding.weight)
        self.collaborators.projections.init_weights()

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of a batch of images (B, 3, H, W): DINO's, the collaborators' and those of the auxiliary queries."""
        features = self.foundation_features(batch_inputs, batch_data_samples)
        memory, levels = self.encode(self.extract_feat(batch_inputs), batch_data_samples, features)
        image_queries = self.enhancement.queries(features, batch_data_samples)
        losses = self.bbox_head.loss(**self.decode(memory, levels, batch_data_samples, image_queries),
                                     batch_data_samples=batch_data_samples)
        with torch.autocast(batch_inputs.device.type, enabled=False):  # mmdet's assigners and box coders take float32
            maps = self.collaborators.maps(memory.float(), levels.shapes)
            found, sources = self.collaborators.loss(maps, batch_data_samples)
        losses |= found
        for index, assignments in enumerate(sources):
            queries = auxiliary_queries(assignments, image_sizes(batch_data_samples), self.bbox_head.num_classes)
            logits, boxes = self.bbox_head(*self._decode_auxiliary(index, queries, memory, levels, image_queries))
            found = self._auxiliary_loss(logits, boxes, queries, batch_data_samples)
            losses |= {f'aux{index}.{key}': value for key, value in found.items()}
        return losses

    def _decode_auxiliary(self, index: int, queries: AuxiliaryQueries, memory: Tensor, levels: Levels,
                          image_queries: LayerImageQueries | None) -> tuple[Tensor, list[Tensor]]:
        """Hidden states and references of queries that may all see each other, of one source."""
        boxes = inverse_sigmoid(queries.references, eps=1e-5)
        embedded = self.get_proposal_pos_embed(boxes, num_pos_feats=self.embed_dims // 2)
        states, references = self.decoder(
            self.collaborators.projections[index](embedded), memory, levels, self_attn_mask=None,
            reference_points=queries.references, reg_branches=self.bbox_head.reg_branches, image_queries=image_queries)
        return states, list(references)

    def _auxiliary_loss(self, logits: Tensor, boxes: Tensor, queries: AuxiliaryQueries,
                        batch_data_samples: SampleList) -> dict[str, Tensor]:
        """DETR's losses with the targets that are known, instead of a matching."""
        head = cast(DETRHead, self.bbox_head)
        targets = queries.head_targets()
        with replaced(head, 'get_targets', lambda *args: targets):
            return DETRHead.loss_by_feat(head, logits, boxes, [sample.gt_instances for sample in batch_data_samples],
                                         [sample.metainfo for sample in batch_data_samples])
