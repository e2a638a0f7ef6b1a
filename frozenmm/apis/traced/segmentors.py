"""Mask-classification models as one graph: a picture in, masks out."""
from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from mmdet.models.detectors import Mask2Former
from torch import Tensor, nn

from frozenmm.apis.traced.mask_results import MaskRules, mmdet_rules
from frozenmm.apis.traced.picture_input import PictureInput
from frozenmm.errors import UserError
from frozenmm.segmentation.fc_clip.segmentor import FCCLIP
from frozenmm.segmentation.plain_mask.segmentor import PlainMaskSegmentor
from frozenmm.structures import ImageStats


class TracedMasks(nn.Module):
    """What exported models that give masks have in common.

    Args:
        model: in eval mode.
        rules: how masks and classes become results.
        num_classes: K.

    Attributes:
        dynamic_size: whether the graph takes other sizes than the one that it was traced with.
        why_fixed: the sentence for a graph that does not.
        multiple: the sides of images must be multiples of this; 1 where the graph pads by itself.
    """

    dynamic_size, why_fixed, multiple = True, '', 1

    def __init__(self, model: Any, rules: MaskRules, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.model = model
        self.rules = rules
        self.outputs = rules.outputs
        self.picture = PictureInput(model.data_preprocessor)

    def proposals(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Probabilities (B, Q, K+1), void last, mask logits (B, Q, h, w), and the size that they cover."""
        raise NotImplementedError(f'{type(self).__name__} must define `proposals`')

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Results of images that fill their batch; see `MaskRules.results`.

        Args:
            images: (B, 3, H, W) float32 RGB, 0 to 255, of the size that the test pipeline resizes to.
        """
        height, width = images.shape[-2:]
        probabilities, mask_logits, canvas = self.proposals(self.picture(images, pad=True))
        mask_logits = F.interpolate(mask_logits.float(), size=canvas, mode='bilinear', align_corners=False)
        return self.rules.results(probabilities.float(), mask_logits[..., :height, :width])


class TracedMask2Former(TracedMasks):
    """Mmdet's Mask2Former."""

    def __init__(self, model: Mask2Former) -> None:
        head = model.panoptic_fusion_head
        super().__init__(model, mmdet_rules(head.test_cfg, range(head.num_things_classes)), head.num_classes)

    def proposals(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """See `TracedMasks`."""
        classes, masks = self.model.panoptic_head(self.model.extract_feat(images), None)
        return classes[-1].softmax(-1), masks[-1], (images.shape[-2], images.shape[-1])


class TracedMaskSegmentor(TracedMasks):
    """An `FCCLIP` with its present words, or a `PlainMaskSegmentor`.

    Raises:
        UserError: the model's settings ask for what a graph cannot do.
    """

    def __init__(self, model: FCCLIP | PlainMaskSegmentor) -> None:
        post, trunk = model.postprocessor, model.trunk
        if trunk.mask_padding or trunk.memory is not None or (
                'semantic' in post.tasks and post.semantic_order != 'masks'):
            raise UserError(f'a {type(model).__name__} with mask_padding, with a memory of examples, or with '
                            'semantic_order=\'scores\' cannot be exported; set mask_padding=False, remember(None) and '
                            'postprocess=dict(semantic_order=\'masks\')')
        tasks = tuple(task for task in post.tasks if task in ('panoptic', 'instance', 'semantic'))
        rows = trunk.classifier.rows
        super().__init__(model, MaskRules(tasks, tuple(rows.things), post.score_threshold, post.overlap_threshold,
                                          post.top_k, inside_only=True), rows.num_classes)
        self.stats = ImageStats.from_preprocessor(model.data_preprocessor)
        # these models know what is padding, which a graph of any size cannot tell from the picture
        self.multiple = math.lcm(self.picture.multiple, model.image_tower.input.patch)

    def proposals(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """See `TracedMasks`."""
        model, trunk = self.model, self.model.trunk
        features, canvas = model.image_tower(images, None, self.stats), trunk.canvas(images)
        if isinstance(model, PlainMaskSegmentor):
            taps, grid = model.reader(features, canvas)
            proposals = model.mask_generator(taps, grid, all_layers=False)[-1]
        else:
            proposals = trunk.propose(features, all_layers=False, padding=None)[-1]
        return trunk.classify(proposals, features).softmax(-1), proposals.mask_logits, canvas
