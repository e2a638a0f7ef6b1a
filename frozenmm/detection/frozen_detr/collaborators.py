"""One-to-many heads beside a DETR in training, and decoder queries at the places that they hold for objects.

Source: Zong et al., "DETRs with Collaborative Hybrid Assignments Training" (ICCV 2023, arXiv 2211.12860), section 3.
The heads are mmdet's own; what they assigned is read off their losses.
"""
from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from torch import Tensor, nn

from frozenmm.detection.frozen_detr.recorded import recorded
from frozenmm.errors import UserError
from frozenmm.registry import MODELS

FEWEST, MOST = 9, 300
"""Auxiliary queries of an image and head: as many as the image with most positives has, within these bounds."""


@dataclass
class Assignment:
    """What a head assigned in one image; boxes are xyxy in pixels.

    Attributes:
        priors: (N, 4) boxes that it holds for objects.
        targets: (N, 4) the objects.
        labels: (N,) their classes.
        negatives: (M, 4) boxes that it holds for background.
    """

    priors: Tensor
    targets: Tensor
    labels: Tensor
    negatives: Tensor


@dataclass
class AuxiliaryQueries:
    """N decoder queries of every image whose targets are known; boxes are cxcywh in units of the image.

    Attributes:
        references: (B, N, 4).
        targets: (B, N, 4), zeros for background.
        labels: (B, N), the number of classes for background.
        label_weights: (B, N), 0 where an image has not enough boxes.
        box_weights: (B, N, 4), 1 for objects.
    """

    references: Tensor
    targets: Tensor
    labels: Tensor
    label_weights: Tensor
    box_weights: Tensor

    def head_targets(self) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], int, int]:
        """The same as mmdet's DETR heads return from `get_targets`."""
        positive = int(self.box_weights[..., 0].sum())
        return (list(self.labels), list(self.label_weights), list(self.targets), list(self.box_weights), positive,
                self.labels.numel() - positive)


class Collaborators(BaseModule):
    """Heads that learn on the encoder's maps beside the decoder.

    Args:
        rpn_head: mmdet's config of an `RPNHead` with its `train_cfg` and `test_cfg` (which makes the proposals).
        roi_head: mmdet's config of a `StandardRoIHead` with its `train_cfg`; needs `rpn_head`.
        dense_head: mmdet's config of an `ATSSHead`, or of another head whose `get_targets` gives anchors, labels,
            weights and boxes, with its `train_cfg`.
        embed_dims: width of the encoder.
        levels: its maps; the heads get one more, at twice the last stride.

    Raises:
        UserError: a RoI head without an RPN, no head that gives queries, or anchors for another number of maps.
    """

    def __init__(self, *, rpn_head: Mapping | None = None, roi_head: Mapping | None = None,
                 dense_head: Mapping | None = None, embed_dims: int, levels: int) -> None:
        super().__init__()
        if (rpn_head is None) != (roi_head is None):
            raise UserError('the collaborators rpn_head and roi_head come together: one makes the other\'s proposals')
        if roi_head is None and dense_head is None:
            raise UserError('collaborators need rpn_head and roi_head, or dense_head, or all three')
        self.rpn_head, self.roi_head, self.dense_head = (
            None if config is None else MODELS.build(copy.deepcopy(ConfigDict(config)))
            for config in (rpn_head, roi_head, dense_head))
        for name in 'rpn_head', 'dense_head':
            head = getattr(self, name)
            if head is not None and head.prior_generator.num_levels != levels + 1:
                raise UserError(f'{name} has anchors for {head.prior_generator.num_levels} maps, but gets '
                                f'{levels + 1}: the detector\'s levels and one more at twice the last stride; give it '
                                'as many strides')
        self.downsample = nn.Sequential(nn.Conv2d(embed_dims, embed_dims, 3, stride=2, padding=1),
                                        nn.GroupNorm(math.gcd(32, embed_dims), embed_dims))
        self.projections = AuxiliaryProjections(embed_dims, (self.roi_head is not None) + (self.dense_head is not None))

    def maps(self, memory: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
        """The encoder's output (B, N, C) as maps (B, C, h, w), and one more at twice the last stride."""
        parts = memory.split([height * width for height, width in shapes], 1)
        maps = [part.transpose(1, 2).unflatten(2, shape) for part, shape in zip(parts, shapes)]
        return [*maps, self.downsample(maps[-1])]

    def loss(self, maps: list[Tensor], samples: SampleList) -> tuple[dict[str, Tensor], list[list[Assignment]]]:
        """Losses of all heads, and the assignment of every image by every source.

        Args:
            maps: (B, C, h, w) per level, finest first.
            samples: the samples of the batch.
        """
        losses: dict[str, Tensor] = {}
        sources = []
        if self.rpn_head is not None and self.roi_head is not None:
            found, proposals = self.rpn_head.loss_and_predict(maps, _as_one_class(samples))
            losses |= found
            with recorded(self.roi_head, 'bbox_loss') as calls:
                found = self.roi_head.loss(maps, proposals, samples)
            losses |= {f'roi.{key}': value for key, value in found.items()}
            [((_, results), _)] = calls
            sources.append([Assignment(result.pos_priors, result.pos_gt_bboxes, result.pos_gt_labels, result.neg_priors)
                            for result in results])
        if self.dense_head is not None:
            with recorded(self.dense_head, 'get_targets') as calls:
                found = self.dense_head.loss(maps, samples)
            losses |= {f'dense.{key}': value for key, value in found.items()}
            sources.append(_dense_assignments(calls[0][1], self.dense_head.num_classes))
        return losses, sources


def _as_one_class(samples: SampleList) -> SampleList:
    """The samples with all labels 0, as a region proposal network learns them."""
    samples = copy.deepcopy(samples)
    for sample in samples:
        sample.gt_instances.labels = torch.zeros_like(sample.gt_instances.labels)
    return samples


def _dense_assignments(targets: tuple, num_classes: int) -> list[Assignment]:
    """Of mmdet's targets per level, (B, N, ...) anchors, labels, weights and boxes, those of every image."""
    anchors, labels, weights, boxes = (torch.cat(list(levels), 1) for levels in targets[:4])
    result = []
    for index, label in enumerate(labels):
        positive = (label >= 0) & (label < num_classes)
        negative = (label == num_classes) & (weights[index] > 0)  # not those outside the picture
        result.append(Assignment(anchors[index][positive], boxes[index][positive], label[positive],
                                 anchors[index][negative]))
    return result


def auxiliary_queries(assignments: list[Assignment], sizes: list[tuple[int, int]],
                      num_classes: int) -> AuxiliaryQueries:
    """Queries at the priors that a head holds for objects, filled up with random background.

    Where an image has not enough background either, the whole image stands in, with weight 0.

    Args:
        assignments: of every image.
        sizes: (height, width) of every image without padding.
        num_classes: the label of background.
    """
    count = max(FEWEST, min(MOST, max(len(item.labels) for item in assignments)))
    images = []
    for item, (height, width) in zip(assignments, sizes):
        chosen = _some(item.labels, count)
        spare = item.negatives[_some(item.negatives, count - len(chosen))]
        known, lack = len(chosen) + len(spare), count - len(chosen) - len(spare)
        unit = item.priors.new_tensor([width, height, width, height])
        objects = torch.arange(count, device=unit.device) < len(chosen)
        references = torch.cat([bbox_xyxy_to_cxcywh(torch.cat([item.priors[chosen], spare]) / unit),
                                unit.new_tensor([0.5, 0.5, 1.0, 1.0]).expand(lack, 4)])
        targets, labels = unit.new_zeros(count, 4), item.labels.new_full((count,), num_classes)
        targets[:len(chosen)] = bbox_xyxy_to_cxcywh(item.targets[chosen] / unit)
        labels[:len(chosen)] = item.labels[chosen]
        weights = (torch.arange(count, device=unit.device) < known).to(unit.dtype)
        images.append((references, targets, labels, weights, objects.to(unit.dtype)[:, None].expand(-1, 4)))
    return AuxiliaryQueries(*(torch.stack(values) for values in zip(*images)))


def _some(rows: Tensor, count: int) -> Tensor:
    """Indices of `count` random rows; all of them, in order, where there are no more."""
    if len(rows) <= count:
        return torch.arange(len(rows), device=rows.device)
    return torch.randperm(len(rows), device=rows.device)[:count]


class AuxiliaryProjections(nn.ModuleList):
    """Content of auxiliary queries from the position embedding of their boxes, with weights of their own per source.

    Args:
        embed_dims: width of the decoder.
        sources: heads that give queries.
    """

    def __init__(self, embed_dims: int, sources: int) -> None:
        super().__init__(nn.Sequential(nn.Linear(2 * embed_dims, embed_dims), nn.LayerNorm(embed_dims))
                         for _ in range(sources))

    def init_weights(self) -> None:
        """Xavier-uniform weights, as the official transformer has."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
