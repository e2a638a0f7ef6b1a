"""Annotations of mmdet data samples as sets of labelled masks."""
from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BaseInstanceMasks
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.segmentation.mask2former.criterion import MaskTargets


def targets_of(sample: DetDataSample, num_classes: int, things: Collection[int], canvas: tuple[int, int],
               device: torch.device) -> MaskTargets:
    """All segments of one image: things from the instances, stuff from the semantic map.

    Args:
        sample: with `gt_instances` (labels, masks), `gt_sem_seg` (1, H, W), or both. Without instances, every class of
            the semantic map is one segment. Map values outside 0..K-1 are ignored.
        num_classes: K.
        things: classes whose segments are instances.
        canvas: (height, width) of the padded batch; masks are padded with zeros to it.
        device: where the result lies.

    Raises:
        UserError: neither kind of annotation, or instances without masks.
    """
    labels, masks = [], []
    instances = sample.get('gt_instances')
    if instances is not None and 'labels' not in instances and not len(instances) and 'gt_sem_seg' in sample:
        instances = None  # mmdet packs empty ones where there are label maps only
    if instances is not None:
        if 'masks' not in instances:
            raise UserError('gt_instances holds no masks; load them with LoadPanopticAnnotations or '
                            'LoadAnnotations(with_mask=True)')
        labels.append(instances.labels.to(device))
        masks.append(_on_canvas(_tensor(instances.masks, device), canvas))
    if 'gt_sem_seg' in sample:
        semantic = sample.gt_sem_seg.sem_seg.to(device)
        present = semantic.unique()
        present = present[(present >= 0) & (present < num_classes)].long()
        if instances is not None:
            is_thing = torch.zeros(num_classes, dtype=torch.bool)
            is_thing[list(things)] = True
            present = present[~is_thing.to(device)[present]]
        labels.append(present)
        masks.append(_on_canvas(semantic == present[:, None, None], canvas))
    if not labels:
        raise UserError('the data sample holds neither gt_instances nor gt_sem_seg; check the annotation loading of '
                        'the pipeline')
    return MaskTargets(torch.cat(labels), torch.cat(masks))


def _tensor(masks: Tensor | BaseInstanceMasks, device: torch.device) -> Tensor:
    """(N, H, W) bool of a tensor or an mmdet mask structure."""
    if isinstance(masks, Tensor):
        return masks.to(device).bool()
    return masks.to_tensor(torch.bool, device)


def _on_canvas(masks: Tensor, canvas: tuple[int, int]) -> Tensor:
    height, width = masks.shape[-2:]
    if height > canvas[0] or width > canvas[1]:
        raise UserError(f'annotated masks are {height}x{width}, larger than the batch of {canvas[0]}x{canvas[1]}')
    return F.pad(masks, (0, canvas[1] - width, 0, canvas[0] - height))
