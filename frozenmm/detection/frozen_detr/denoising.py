"""Contrastive denoising queries, with the mask that also covers image queries, and their absence.

Source: DINO (arXiv 2203.03605), section 3.3. The random numbers are drawn in mmdet's order, so the same seed gives the
same queries; unlike there nothing waits for the device but the count of changed labels, and a batch without any target
keeps the label embedding in the graph.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from mmdet.models.layers import CdnQueryGenerator, inverse_sigmoid
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import Tensor, nn


@dataclass
class DenoisingNoise:
    """Random numbers of one batch; R = 2 x groups x targets.

    Attributes:
        label_p: (R,) uniform in 0..1; a label changes where it is below half the noise scale.
        new_labels: one int64 label for each change, in order.
        box_sign: (R, 4), -1 or 1.
        box_part: (R, 4) uniform in 0..1.
    """

    label_p: Tensor
    new_labels: Tensor
    box_sign: Tensor
    box_part: Tensor


class DenoisingQueries(CdnQueryGenerator):
    """mmdet's generator of denoising queries for a decoder with image queries.

    Args:
        num_classes: number of classes.
        embed_dims: width of the queries.
        num_matching_queries: object queries that are matched.
        num_image_queries: image queries, which everybody may see.
        label_noise_scale: twice the share of changed labels.
        box_noise_scale: shift of box corners in units of half the box.
        group_cfg: `dict(dynamic=True, num_dn_queries=100)` or `dict(dynamic=False, num_groups=...)`.
    """

    def __init__(self, num_classes: int, embed_dims: int, num_matching_queries: int, *, num_image_queries: int = 0,
                 label_noise_scale: float = 0.5, box_noise_scale: float = 1.0, group_cfg: dict | None = None) -> None:
        super().__init__(num_classes, embed_dims, num_matching_queries, label_noise_scale, box_noise_scale, group_cfg)
        self.num_image_queries = num_image_queries

    def draw_noise(self, rows: int, device: torch.device) -> DenoisingNoise:
        """Fresh random numbers for `rows` repeated targets."""
        label_p = torch.rand(rows, device=device)
        changed = int((label_p < self.label_noise_scale * 0.5).sum())
        return DenoisingNoise(label_p=label_p, new_labels=torch.randint(0, self.num_classes, (changed,), device=device),
                              box_sign=torch.randint(0, 2, (rows, 4), device=device) * 2.0 - 1.0,
                              box_part=torch.rand(rows, 4, device=device))

    def __call__(self, batch_data_samples: SampleList) -> tuple[Tensor, Tensor, Tensor, dict[str, int]]:
        """Denoising queries of a batch; D is the largest number of targets of an image x 2 x groups.

        Args:
            batch_data_samples: samples with `gt_instances` (xyxy boxes in pixels, labels) and `img_shape`.

        Returns:
            contents (B, D, C), boxes (B, D, 4) as inverse sigmoid of cxcywh (zeros in unused places), the attention
            mask (D + Q, D + Q + T), True = may not attend, and the numbers of queries and groups.
        """
        labels = torch.cat([sample.gt_instances.labels for sample in batch_data_samples])
        boxes = torch.cat([sample.gt_instances.bboxes / sample.gt_instances.bboxes.new_tensor(
            [*sample.img_shape[::-1], *sample.img_shape[::-1]]) for sample in batch_data_samples])
        counts = [len(sample.gt_instances.labels) for sample in batch_data_samples]
        return self.queries(labels, boxes, bbox_xyxy_to_cxcywh(boxes)[:, 2:], counts)

    def queries(self, labels: Tensor, boxes: Tensor, sides: Tensor,
                counts: list[int]) -> tuple[Tensor, Tensor, Tensor, dict[str, int]]:
        """The same for joined targets.

        Args:
            labels: (S,) int64, the targets of all images.
            boxes: (S, 4) xyxy in units of the image.
            sides: (S, 2) width and height of the boxes.
            counts: targets of every image.
        """
        most = max(counts)
        groups = self.get_num_groups(most)
        contents, queries = self._noisy_targets(labels, boxes, sides, groups)
        contents, queries = self._scatter(contents, queries, counts, groups)
        mask = self.attention_mask(most, groups, labels.device)[:most * 2 * groups + self.num_matching_queries]
        return contents, queries, mask, dict(num_denoising_queries=most * 2 * groups, num_denoising_groups=groups)

    def _noisy_targets(self, labels: Tensor, boxes: Tensor, sides: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """All targets, 2 x groups times over: even copies positive, odd copies negative."""
        noise = self.draw_noise(len(labels) * 2 * groups, labels.device)
        changed = noise.label_p < self.label_noise_scale * 0.5
        contents = self.label_embedding(labels.repeat(2 * groups).masked_scatter(changed, noise.new_labels))
        boxes = boxes.repeat(2 * groups, 1)
        negative = torch.arange(2 * groups, device=labels.device).repeat_interleave(len(labels)) % 2
        part = (noise.box_part + negative[:, None]) * noise.box_sign
        boxes = (boxes + part * sides.repeat(2 * groups, 2) * self.box_noise_scale / 2).clamp(min=0.0, max=1.0)
        return contents, inverse_sigmoid(bbox_xyxy_to_cxcywh(boxes), eps=1e-3)

    def _scatter(self, contents: Tensor, boxes: Tensor, counts: list[int], groups: int) -> tuple[Tensor, Tensor]:
        """Give every noisy target its image and its place: index inside the image + most x copy."""
        most, copies = max(counts), 2 * groups
        image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).repeat(copies)
        inside = torch.cat([torch.arange(count) for count in counts]).repeat(copies)
        place = inside + torch.arange(copies).repeat_interleave(sum(counts)) * most
        where = image.to(contents.device), place.to(contents.device)
        batched = [value.new_zeros(len(counts), most * copies, value.shape[1]) for value in (contents, boxes)]
        # an empty write, too, keeps the label embedding in the graph, which DistributedDataParallel needs
        return batched[0].index_put(where, contents), batched[1].index_put(where, boxes)

    def attention_mask(self, most: int, groups: int, device: torch.device) -> Tensor:
        """The mask of all rows, image queries included: (D + Q + T, D + Q + T), True = may not attend.

        Matching and image queries see no denoising query; groups do not see each other; everybody sees matching and
        image queries.
        """
        denoising = most * 2 * groups
        total = denoising + self.num_matching_queries + self.num_image_queries
        group = torch.arange(denoising, device=device) // max(most * 2, 1)
        mask = torch.zeros(total, total, dtype=torch.bool, device=device)
        mask[:denoising, :denoising] = group[:, None] != group[None]
        mask[denoising:, :denoising] = True
        return mask


class NoDenoising(nn.Module):
    """Stands where no denoising is wanted: no queries, no mask."""

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.embed_dims = embed_dims

    def forward(self, batch_data_samples: SampleList) -> tuple[Tensor, Tensor, None, None]:
        """Empty contents (B, 0, C) and boxes (B, 0, 4), no mask, no numbers."""
        like = batch_data_samples[0].gt_instances.bboxes
        return (like.new_zeros(len(batch_data_samples), 0, self.embed_dims),
                like.new_zeros(len(batch_data_samples), 0, 4), None, None)
