"""Panoptic id maps straight from low-resolution mask logits."""
from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from .mask_bands import logit_bands
from .mask_geometry import MaskGeometry
from .mask_library import check_same, checked_classes, checked_map, define_op


class MaskOwners(NamedTuple):
    """Who owns each output pixel.

    Attributes:
        owner: (H, W) int32, `argmax_q scores[q] * sigmoid(mask_q)`; -1 where no query takes part.
        inside: (H, W) bool, whether the owner's own logit is >= 0 (its sigmoid >= 0.5) there.
        areas: (Q, 3) int64 pixel counts: owned; inside the query's mask; both. Zeros for queries that take no part.
    """

    owner: Tensor
    inside: Tensor
    areas: Tensor


class PanopticSegment(NamedTuple):
    """One segment: its id in the map (1, 2, ...), category, thing or stuff, and its area in pixels."""

    id: int
    category: int
    is_thing: bool
    area: int


class PanopticMap(NamedTuple):
    """Result of `mask_ensemble_panoptic`.

    Attributes:
        ids: (H, W) int32 segment ids, 0 where there is none.
        segments: in ascending order of id.
        segment_of_query: (Q,) int32, the id that the query's pixels got, 0 for queries that were dropped.
        areas: (Q, 3) int64, see `MaskOwners`.
    """

    ids: Tensor
    segments: list[PanopticSegment]
    segment_of_query: Tensor
    areas: Tensor


def mask_owners(scores: Tensor, mask_logits: Tensor, geometry: MaskGeometry) -> MaskOwners:
    """The query with the largest `scores[q] * sigmoid(mask_q)` at each output pixel, and areas per query.

    The Q masks never exist at output size, and nothing is read back to the host. Of equal products the lowest query
    wins. A query with a negative or NaN score takes no part. A NaN logit wins no pixel and is not inside.

    Args:
        scores: (Q,) one weight per query, negative to leave it out.
        mask_logits: (Q, h, w).
        geometry: how the logits' grid maps to the output.

    Raises:
        TypeError, ValueError: an argument has a wrong kind, shape or device; the text names it.
    """
    scores = checked_map('mask_owners', 'scores', scores, '(Q,)')
    mask_logits = checked_map('mask_owners', 'mask_logits', mask_logits, '(Q, h, w)')
    check_same('mask_owners', ('scores', scores), ('mask_logits', mask_logits))
    return MaskOwners(*torch.ops.frozenmm.mask_ensemble_panoptic(
        scores, mask_logits, geometry.padded, geometry.image, geometry.output))


def mask_ensemble_panoptic(probabilities: Tensor, mask_logits: Tensor, geometry: MaskGeometry, *,
                           thing_classes: Collection[int], score_threshold: float = 0.0,
                           overlap_threshold: float = 0.8) -> PanopticMap:
    """Panoptic segmentation of one image.

    A query's score and label are the maximum over all K+1 columns. It takes part unless its label is void or its score
    is not above `score_threshold`. Each pixel goes to its owner (`mask_owners`). In query order: a query is dropped if
    one of its three areas is 0 or owned / inside < `overlap_threshold`; stuff joins the segment of its class if there
    is one; else the query opens the next id. A segment consists of the owned pixels that are inside the mask.

    Args:
        probabilities: (Q, K+1) class probabilities, void last.
        mask_logits: (Q, h, w).
        geometry: how the logits' grid maps to the output.
        thing_classes: class indices below K whose segments are instances; the others are stuff.
        score_threshold: FC-CLIP's official configuration has 0.0, Mask2Former's 0.8.
        overlap_threshold: smallest part of a mask that must be left to it.

    Raises:
        TypeError, ValueError: an argument has a wrong kind, shape, device or value; the text names it.

    Source: FC-CLIP / Mask2Former `panoptic_inference`. The tables of Q areas and labels go to the host once per image.

    >>> logits = torch.tensor([[[9.0, -9.0]], [[-9.0, 9.0]]])           # two queries, one left and one right
    >>> classes = torch.tensor([[0.9, 0.0, 0.1], [0.0, 0.8, 0.2]])      # thing, stuff, void
    >>> found = mask_ensemble_panoptic(classes, logits, MaskGeometry.resize_to((1, 2)), thing_classes=[0])
    >>> found.ids.tolist(), [(s.category, s.is_thing) for s in found.segments]
    ([[1, 2]], [(0, True), (1, False)])
    """
    name = 'mask_ensemble_panoptic'
    probabilities = checked_map(name, 'probabilities', probabilities, '(Q, K+1)')
    void = probabilities.shape[1] - 1
    if void < 1:
        raise ValueError(f'{name}: probabilities must have a void column after at least one class, got shape '
                         f'{tuple(probabilities.shape)}.')
    things = set(checked_classes(name, thing_classes, void))
    best, labels = probabilities.max(dim=1)
    takes_part = (labels != void) & (best > score_threshold)
    maps = mask_owners(torch.where(takes_part, best, -1.0), mask_logits, geometry)
    table = torch.cat([maps.areas, labels[:, None]], dim=1).cpu().tolist()
    segments, ids = _place_queries(table, things, overlap_threshold)
    segment_of_query = torch.tensor(ids, dtype=torch.int32).to(maps.owner.device)
    # owner -1 reads some entry; `inside` is false there
    id_map = torch.where(maps.inside, segment_of_query[maps.owner.clamp_min(0)], 0)
    return PanopticMap(id_map, segments, segment_of_query, maps.areas)


def _place_queries(table: list[list[int]], things: set[int], overlap_threshold: float
                   ) -> tuple[list[PanopticSegment], list[int]]:
    """Segments and the id of each query (0: dropped) from rows (owned, inside, both, label)."""
    segments: list[PanopticSegment] = []
    ids = [0] * len(table)
    stuff_ids: dict[int, int] = {}
    for query, (owned, inside, both, label) in enumerate(table):
        if 0 in (owned, inside, both) or owned / inside < overlap_threshold:
            continue
        placed = stuff_ids.get(label)
        if placed is not None:
            segment = segments[placed - 1]
            segments[placed - 1] = segment._replace(area=segment.area + both)
            ids[query] = placed
            continue
        ids[query] = len(segments) + 1
        segments.append(PanopticSegment(ids[query], label, label in things, both))
        if label not in things:
            stuff_ids[label] = ids[query]
    return segments, ids


def panoptic_definition(scores: Tensor, mask_logits: Tensor, padded: list[int], image: list[int], output: list[int]
                        ) -> tuple[Tensor, Tensor, Tensor]:
    """Plain torch path of `frozenmm::mask_ensemble_panoptic`, in bands of output rows.

    Args:
        scores: (Q,) float32.
        mask_logits: (Q, h, w) float32.
        padded: see `MaskGeometry`, likewise the next two.
        image: at most `padded`.
        output: (H, W).

    Returns:
        owner (H, W), inside (H, W) and areas (Q, 3), see `MaskOwners`.
    """
    queries = scores.shape[0]
    device = mask_logits.device
    owner = torch.empty(tuple(output), dtype=torch.int32, device=device)
    inside = torch.empty(tuple(output), dtype=torch.bool, device=device)
    areas = torch.zeros((queries + 1, 3), dtype=torch.int64, device=device)
    takes_part = scores >= 0
    for first, end, logits in logit_bands(mask_logits, padded, image, output, 2 * queries):
        in_mask = (logits >= 0) & takes_part[:, None, None]
        products = logits.sigmoid_().mul_(scores[:, None, None])
        products = torch.where(products >= 0, products, -1.0)  # also for NaN
        best, winner = products.max(dim=0)
        winner_inside = in_mask.gather(0, winner[None])[0] & (best >= 0)
        winner = torch.where(best >= 0, winner, -1)
        owner[first:end] = winner
        inside[first:end] = winner_inside
        slots = (winner + 1).flatten()  # slot 0 collects pixels without an owner
        areas[:, 0].scatter_add_(0, slots, torch.ones_like(slots))
        areas[1:, 1] += in_mask.sum(dim=(1, 2))
        areas[:, 2].scatter_add_(0, slots, winner_inside.flatten().long())
    return owner, inside, areas[1:].clone()


def _panoptic_fake(scores: Tensor, mask_logits: Tensor, padded: list[int], image: list[int], output: list[int]
                   ) -> tuple[Tensor, Tensor, Tensor]:
    return (mask_logits.new_empty(tuple(output), dtype=torch.int32),
            mask_logits.new_empty(tuple(output), dtype=torch.bool),
            mask_logits.new_empty((scores.shape[0], 3), dtype=torch.int64))


define_op('mask_ensemble_panoptic(Tensor scores, Tensor mask_logits, int[] padded, int[] image, int[] output) '
          '-> (Tensor, Tensor, Tensor)', panoptic_definition, _panoptic_fake)
