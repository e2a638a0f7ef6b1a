"""Results in mmdet's data samples: panoptic, semantic and instances in one."""
from __future__ import annotations

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from frozenmm.ops.mask_ensemble import InstanceMasks, PanopticMap, unpack_masks
from frozenmm.segmentation.fc_clip.postprocess import MaskResults

INSTANCE_OFFSET = 1000  # mmdet's: a panoptic pixel is class + offset * instance


def instance_offset(num_classes: int) -> int:
    """The factor of the instance number in panoptic maps: mmdet's 1000, or 10000 and so on for long vocabularies."""
    offset = INSTANCE_OFFSET
    while offset <= num_classes:
        offset *= 10
    return offset


def segment_values(panoptic: PanopticMap, num_classes: int) -> list[int]:
    """The value of each segment in mmdet's encoding: class + offset * instance for things, class for stuff."""
    offset = instance_offset(num_classes)
    values, instance = [], 0
    for segment in panoptic.segments:
        instance += segment.is_thing
        values.append(segment.category + offset * instance * segment.is_thing)
    return values


def panoptic_map(panoptic: PanopticMap, num_classes: int) -> Tensor:
    """(1, H, W) int32 of `segment_values`, K where there is no segment."""
    values = [num_classes, *segment_values(panoptic, num_classes)]
    table = torch.tensor(values, dtype=torch.int32).to(panoptic.ids.device)
    return table[panoptic.ids.long()][None]


def instance_data(instances: InstanceMasks) -> InstanceData:
    """Mmdet's instances: `bboxes` float32 xyxy, `labels`, `scores`, `masks` (N, H, W) bool."""
    return InstanceData(bboxes=instances.boxes.float(), labels=instances.labels, scores=instances.scores,
                        masks=unpack_masks(instances.bits, instances.size[1]))


def store(sample: DetDataSample, results: MaskResults, num_classes: int) -> None:
    """Write the results of one image into its data sample.

    `pred_panoptic_seg.sem_seg` is mmdet's encoding (see `panoptic_map`) and the metainfo `segments_info` lists the
    segments with their scores and values in that map; `pred_sem_seg.sem_seg` (1, H, W) int64 are labels, and
    `seg_logits.data` (K, H, W) all score maps, if the post-processing keeps them; `pred_instances` has boxes and masks;
    `pred_proposals` has masks alone.
    """
    if results.panoptic is not None:
        sample.pred_panoptic_seg = PixelData(sem_seg=panoptic_map(results.panoptic, num_classes))
        sample.set_metainfo(dict(
            instance_offset=instance_offset(num_classes),
            segments_info=[dict(id=segment.id, category_id=segment.category, isthing=segment.is_thing,
                                area=segment.area, score=score, value=value)
                           for segment, score, value in zip(results.panoptic.segments, results.segment_scores or (),
                                                            segment_values(results.panoptic, num_classes))]))
    if results.semantic is not None:
        sample.pred_sem_seg = PixelData(sem_seg=results.semantic.labels[None])
        if results.semantic.class_scores is not None:
            sample.seg_logits = PixelData(data=results.semantic.class_scores)
    if results.instance is not None:
        sample.pred_instances = instance_data(results.instance)
    if results.proposals is not None:
        sample.pred_proposals = InstanceData(masks=results.proposals)
