"""Detectors of the DETR family as one graph: a picture in, boxes out."""
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from mmdet.models.detectors import DINO, DeformableDETR
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from frozenmm.apis.traced.picture_input import PictureInput
from frozenmm.errors import UserError


class TracedDetector(nn.Module):
    """A DINO or Deformable DETR of mmdet, or an `EnhancedDINO`, with pre- and post-processing.

    Args:
        model: the detector, in eval mode.

    Attributes:
        dynamic_size: whether the graph takes other sizes than the one that it was traced with.
        why_fixed: the sentence for a graph that does not.
        multiple: the sides of images must be multiples of this.

    Raises:
        UserError: a detector that classifies by softmax.
    """

    outputs = ('boxes', 'scores', 'labels')

    def __init__(self, model: DINO | DeformableDETR) -> None:
        super().__init__()
        self.model: Any = model
        self.picture = PictureInput(model.data_preprocessor)
        self.multiple, self.num_classes = self.picture.multiple, model.bbox_head.num_classes
        if not model.bbox_head.loss_cls.use_sigmoid:
            raise UserError(f'{type(model).__name__} with a softmax over classes cannot be exported; set use_sigmoid='
                            'True in loss_cls')
        self.clip = bool(getattr(model.bbox_head, 'clip_boxes', True))
        enhancement: Any = getattr(model, 'enhancement', None)
        modes = {tower.resize_mode for tower in (enhancement.towers if enhancement is not None else ())} - {'none'}
        self.dynamic_size = not modes
        self.why_fixed = f'its frozen towers resize each picture by its size (resize_mode {", ".join(sorted(modes))})'

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The N best pairs of query and class of images that fill their batch.

        Args:
            images: (B, 3, H, W) float32 RGB, 0 to 255, of the size that the test pipeline resizes to.

        Returns:
            boxes (B, N, 4) xyxy in pixels of the input, scores (B, N) and labels (B, N) int64, best first.
        """
        height, width = images.shape[-2:]
        # mmdet's own sample would copy the numbers, which stand for any size
        sample = SimpleNamespace(img_shape=(height, width), batch_input_shape=(height, width))
        layer_logits, layer_boxes = self.model._forward(self.picture(images, pad=False), [sample])[:2]
        logits, boxes = layer_logits[-1].float(), layer_boxes[-1].float()
        classes = logits.shape[-1]
        count = min(int(self.model.bbox_head.test_cfg.get('max_per_img', logits.shape[1])), logits.shape[1] * classes)
        scores, pairs = logits.sigmoid().flatten(1).topk(count, 1)
        chosen = (pairs // classes)[..., None].expand(-1, -1, 4)
        boxes = bbox_cxcywh_to_xyxy(boxes.gather(1, chosen))
        if self.clip:
            boxes = boxes.clamp(0, 1)
        scale = torch.stack([torch.full_like(scores, width), torch.full_like(scores, height)] * 2, -1)
        return boxes * scale, scores, pairs % classes
