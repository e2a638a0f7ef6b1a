"""mmdet's detectors of the DETR family with frozen foundation models as feature enhancers.

Source: Fu et al., Frozen-DETR (NeurIPS 2024, arXiv 2410.19635). The paper reports DAB, Conditional and Deformable DETR
as well as DINO; its authors released code for DINO only. What the paper leaves open is marked as ours.
"""
from __future__ import annotations

from typing import Any

import torch
from mmdet.models.detectors import DABDETR, DDQDETR, ConditionalDETR, DeformableDETR, GroundingDINO
from mmdet.models.layers import coordinate_to_encoding, inverse_sigmoid
from mmdet.structures import SampleList
from torch import Tensor, nn

from frozenmm.compat.mmdet_bert import run_on_transformers_5
from frozenmm.detection.frozen_detr.steps import MultiScaleSteps, SingleScaleSteps
from frozenmm.registry import MODELS

SHARED = 'aux_reg_branches'
"""What DDQ's decoder takes from its head in training."""


def box_positions(boxes: Tensor, embed_dims: int, head: nn.Module) -> Tensor:
    """(B, T, 4 or 2) boxes or centres in 0..1 -> (B, T, C), as decoders that embed their reference boxes do."""
    return head(coordinate_to_encoding(boxes, num_feats=embed_dims // 2))


@MODELS.register_module()
class EnhancedDeformableDETR(MultiScaleSteps, DeformableDETR):
    """mmdet's Deformable DETR with frozen foundation models as feature enhancers; without enhancers the same detector.

    With two stages the position embedding of an image query is that of a proposal with its box, as in the authors'
    MS-DETR; with one stage it is learned, as that of the object queries is (ours). Arguments: see `MultiScaleSteps` and
    `mmdet.DeformableDETR`.
    """

    as_two_stage: bool
    decoder: Any

    def _learns_positions(self) -> bool:
        return not self.as_two_stage

    def _image_positions(self, boxes: Tensor, inputs: dict) -> Tensor:
        embedded = self.get_proposal_pos_embed(inverse_sigmoid(boxes, eps=1e-5))
        return self.pos_trans_norm(self.pos_trans_fc(embedded))[..., :self.embed_dims]


class _BoxPositions(MultiScaleSteps):
    """Detectors whose decoder embeds its reference boxes as DINO's does."""

    def _image_positions(self, boxes: Tensor, inputs: dict) -> Tensor:
        boxes = boxes * inputs['valid_ratios'][:, :1].repeat(1, 1, 2)
        return box_positions(boxes, self.embed_dims, self.decoder.ref_point_head)


@MODELS.register_module()
class EnhancedDDQDETR(_BoxPositions, DDQDETR):
    """mmdet's DDQ-DETR with frozen foundation models as feature enhancers; without enhancers the same detector.

    Distinct, dense and denoising queries all see the image queries (ours; the paper only reports the result).
    Arguments: see `MultiScaleSteps` and `mmdet.DDQDETR`.
    """

    def pre_decoder(self, memory: Tensor, *args: Any, **kwargs: Any) -> tuple[dict, dict]:
        """See mmdet, which itself fills up the queries that a small image lacks."""
        inputs = DDQDETR.pre_decoder(self, memory, *args, **kwargs)
        # mmdet lends the head's branches to the decoder as a module, which would stand in checkpoints of a trained
        # detector and not fit a new one
        if SHARED in self.decoder._modules:
            self.decoder.__dict__[SHARED] = self.decoder._modules.pop(SHARED)
        return inputs

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        for key in [key for key in state_dict if key.startswith(f'{prefix}decoder.{SHARED}.')]:
            del state_dict[key]  # of a detector that mmdet trained
        super()._load_from_state_dict(state_dict, prefix, *args)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """See mmdet; under autocast, too, the head computes in float32, as its dense loss takes nothing else."""
        inputs = self.forward_transformer(self.extract_feat(batch_inputs), batch_data_samples)
        inputs = {key: value.float() if isinstance(value, Tensor) else value for key, value in inputs.items()}
        with torch.autocast(batch_inputs.device.type, enabled=False):
            return self.bbox_head.loss(**inputs, batch_data_samples=batch_data_samples)


@MODELS.register_module()
class EnhancedGroundingDINO(_BoxPositions, GroundingDINO):
    """mmdet's Grounding DINO with frozen foundation models as feature enhancers; without enhancers the same detector.

    Image queries join the self-attention, text its own cross-attention; frozen maps are fused with the text like the
    other levels (ours; not in the paper). Arguments: see `MultiScaleSteps` and `mmdet.GroundingDINO`.
    """

    language_model: Any

    def _init_layers(self) -> None:
        super()._init_layers()
        run_on_transformers_5(self.language_model)


@MODELS.register_module()
class EnhancedDABDETR(SingleScaleSteps, DABDETR):
    """mmdet's DAB-DETR with frozen foundation models as feature enhancers; without enhancers the same detector.

    Arguments: see `SingleScaleSteps` and `mmdet.DABDETR`.
    """

    def _image_positions(self, boxes: Tensor, inputs: dict) -> Tensor:
        return box_positions(boxes[..., :self.query_dim], self.embed_dims, self.decoder.ref_point_head)


@MODELS.register_module()
class EnhancedConditionalDETR(SingleScaleSteps, ConditionalDETR):
    """mmdet's Conditional DETR with frozen foundation models as feature enhancers; without enhancers the same detector.

    The position embedding of image queries is learned, as that of the object queries is (ours). Arguments: see
    `SingleScaleSteps` and `mmdet.ConditionalDETR`.
    """

    def _learns_positions(self) -> bool:
        return True
