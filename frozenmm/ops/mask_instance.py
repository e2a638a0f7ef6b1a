"""Instance masks straight from low-resolution mask logits, as packed bits or COCO run lengths."""
from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from frozenmm.errors import UserError

from .mask_bands import logit_bands
from .mask_geometry import MaskGeometry
from .mask_library import check_same, checked_classes, checked_map, define_op


class RunLengthMask(TypedDict):
    """A mask as pycocotools writes it: `size` [height, width] and compressed column-major `counts`."""

    size: list[int]
    counts: bytes


class InstanceMasks(NamedTuple):
    """Result of `mask_ensemble_instance`; N instances in descending order of class probability.

    Attributes:
        scores: (N,) float32, class probability times the mean sigmoid inside the mask.
        labels: (N,) int64 class indices.
        queries: (N,) int64, the query that each instance comes from.
        bits: (N, H, ceil(W / 8)) uint8; bit j (1 << j) of byte i is column 8 * i + j. See `unpack_masks`, `encode_rle`.
        areas: (N,) int64 pixels in the mask.
        boxes: (N, 4) int64 x0, y0, x1, y1, the smallest box around the mask, x1 and y1 exclusive; zeros if empty.
        size: (H, W).
    """

    scores: Tensor
    labels: Tensor
    queries: Tensor
    bits: Tensor
    areas: Tensor
    boxes: Tensor
    size: tuple[int, int]


def mask_ensemble_instance(probabilities: Tensor, mask_logits: Tensor, geometry: MaskGeometry, *, top_k: int = 100,
                           thing_classes: Collection[int] | None = None) -> InstanceMasks:
    """Instance segmentation of one image.

    The `top_k` best pairs (query, class) are taken (of equal ones the lowest query, then class), pairs of other than
    thing classes are dropped, and each pair gets the mask `[mask_q > 0]` at output size. Masks are 1 bit per pixel.

    Args:
        probabilities: (Q, K) class probabilities without void.
        mask_logits: (Q, h, w).
        geometry: how the logits' grid maps to the output.
        top_k: pairs to take before classes are dropped.
        thing_classes: classes to keep; None keeps all.

    Raises:
        TypeError, ValueError: an argument has a wrong kind, shape, device or value; the text names it.

    Source: FC-CLIP / Mask2Former `instance_inference`; boxes, which are zeros there, are derived from the masks.
    """
    name = 'mask_ensemble_instance'
    probabilities = checked_map(name, 'probabilities', probabilities, '(Q, K)')
    mask_logits = checked_map(name, 'mask_logits', mask_logits, '(Q, h, w)')
    check_same(name, ('probabilities', probabilities), ('mask_logits', mask_logits))
    if top_k < 1:
        raise UserError(f'{name}: top_k must be at least 1, got {top_k}.')
    classes = probabilities.shape[1]
    chosen, pairs = probabilities.flatten().sort(descending=True, stable=True)
    chosen, pairs = chosen[:top_k], pairs[:top_k]
    if thing_classes is not None:
        keep = torch.zeros(classes, dtype=torch.bool)
        keep[checked_classes(name, thing_classes, classes)] = True
        kept = keep.to(pairs.device)[pairs % classes]
        chosen, pairs = chosen[kept], pairs[kept]
    queries = pairs // classes
    bits, areas, sums, boxes = torch.ops.frozenmm.mask_ensemble_instance(
        mask_logits, queries, geometry.padded, geometry.image, geometry.output)
    # Parity: 1e-6 in the denominator, as officially
    scores = chosen * (sums / (areas + 1e-6))
    return InstanceMasks(scores, pairs % classes, queries, bits, areas, boxes, geometry.output)


def unpack_masks(bits: Tensor, width: int) -> Tensor:
    """Boolean masks (..., H, W) from packed bits (..., H, ceil(W / 8)).

    >>> unpack_masks(pack_masks(torch.tensor([[True, False, True]])), 3)
    tensor([[ True, False,  True]])

    Raises:
        ValueError: `width` does not belong to that many bytes.
    """
    _check_bits('unpack_masks', bits, width)
    shifts = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return ((bits[..., None] >> shifts) & 1).flatten(-2)[..., :width].bool()


def pack_masks(masks: Tensor) -> Tensor:
    """Packed bits (..., H, ceil(W / 8)) uint8 of boolean masks (..., H, W); the last byte is filled with zeros."""
    width = masks.shape[-1]
    padded = torch.nn.functional.pad(masks.to(torch.uint8), (0, -width % 8))
    shifts = torch.arange(8, dtype=torch.uint8, device=masks.device)
    return (padded.unflatten(-1, (-1, 8)) << shifts).sum(dim=-1, dtype=torch.uint8)


def encode_rle(bits: Tensor, width: int) -> list[RunLengthMask]:
    """COCO run-length encoding of packed masks, the same bytes as pycocotools writes.

    Args:
        bits: (N, H, ceil(W / 8)) uint8, on any device; copied to the host once.
        width: W.

    Raises:
        ValueError: wrong shape, or `width` does not belong to that many bytes.

    >>> encode_rle(pack_masks(torch.tensor([[[False, True, True]]])), 3)
    [{'size': [1, 3], 'counts': b'12'}]
    """
    _check_bits('encode_rle', bits, width)
    if bits.dim() != 3:
        raise ValueError(f'encode_rle: bits must have shape (N, H, ceil(W / 8)), got {tuple(bits.shape)}.')
    text, offsets = torch.ops.frozenmm.mask_rle(bits.cpu().contiguous(), width)
    data, ends = text.numpy().tobytes(), offsets.tolist()
    size = [bits.shape[1], width]
    return [RunLengthMask(size=list(size), counts=data[first:end]) for first, end in zip(ends, ends[1:])]


def _check_bits(function: str, bits: Tensor, width: int) -> None:
    if bits.dtype != torch.uint8 or bits.dim() < 2:
        raise ValueError(f'{function}: bits must be uint8 of shape (..., H, ceil(W / 8)), got {bits.dtype} '
                         f'{tuple(bits.shape)}.')
    if width < 1 or bits.shape[-1] != (width + 7) // 8:
        raise ValueError(f'{function}: width {width} needs {(width + 7) // 8} bytes per row, but bits has '
                         f'{bits.shape[-1]}; give the width of the output that made them.')


def instance_definition(mask_logits: Tensor, queries: Tensor, padded: list[int], image: list[int], output: list[int]
                        ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Plain torch path of `frozenmm::mask_ensemble_instance`, in bands of output rows.

    Args:
        mask_logits: (Q, h, w) float32.
        queries: (N,) int64.
        padded: see `MaskGeometry`, likewise the next two.
        image: at most `padded`.
        output: (H, W).

    Returns:
        bits (N, H, ceil(W / 8)), areas (N,), sums of the sigmoid inside (N,) and boxes (N, 4).
    """
    count, (height, width) = queries.shape[0], output
    device = mask_logits.device
    bits = torch.empty((count, height, (width + 7) // 8), dtype=torch.uint8, device=device)
    sums = torch.zeros(count, dtype=torch.float64, device=device)
    areas = torch.zeros(count, dtype=torch.int64, device=device)
    has_row = torch.zeros((count, height), dtype=torch.bool, device=device)
    has_column = torch.zeros((count, width), dtype=torch.bool, device=device)
    for first, end, logits in logit_bands(mask_logits.index_select(0, queries), padded, image, output, 2 * count):
        masks = logits > 0
        bits[:, first:end] = pack_masks(masks)
        areas += masks.sum(dim=(1, 2))
        sums += torch.where(masks, logits.sigmoid(), 0.0).sum(dim=(1, 2)).double()
        has_row[:, first:end] = masks.any(dim=2)
        has_column |= masks.any(dim=1)
    return bits, areas, sums.float(), _boxes(has_row, has_column)


def _boxes(has_row: Tensor, has_column: Tensor) -> Tensor:
    """(N, 4) half-open boxes from the rows (N, H) and columns (N, W) that hold a pixel of the mask."""
    spans = []
    for line in (has_column, has_row):
        filled = line.any(dim=1)
        cells = line.to(torch.uint8)  # argmax gives the first of equal values, but does not take bool
        first = cells.argmax(dim=1)
        end = cells.shape[1] - cells.flip(1).argmax(dim=1)
        spans.append((torch.where(filled, first, 0), torch.where(filled, end, 0)))
    (x0, x1), (y0, y1) = spans
    return torch.stack([x0, y0, x1, y1], dim=1)


def rle_definition(bits: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Plain path of `frozenmm::mask_rle`: texts of bits (N, H, ceil(W / 8)) in a row (bytes,), and offsets (N + 1,)."""
    texts = []
    for mask in bits:
        pixels = unpack_masks(mask, width).t().flatten()
        edges = (pixels[1:] != pixels[:-1]).nonzero().flatten() + 1
        runs = torch.diff(edges, prepend=edges.new_zeros(1), append=edges.new_full((1,), pixels.numel()))
        counts = runs.tolist()
        texts.append(_compressed([0, *counts] if bool(pixels[0]) else counts))
    offsets = torch.tensor([0, *(len(text) for text in texts)]).cumsum(0)
    return torch.tensor(list(b''.join(texts)), dtype=torch.uint8), offsets


def _compressed(counts: list[int]) -> bytes:
    """COCO's text form: from the fourth run on the difference to the run before last, 5 bits per character."""
    text = bytearray()
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            low, value = value & 31, value >> 5
            more = value != (-1 if low & 16 else 0)
            text.append((low | (32 if more else 0)) + 48)
    return bytes(text)


def _instance_fake(mask_logits: Tensor, queries: Tensor, padded: list[int], image: list[int], output: list[int]
                   ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count = queries.shape[0]
    return (mask_logits.new_empty((count, output[0], (output[1] + 7) // 8), dtype=torch.uint8),
            mask_logits.new_empty((count,), dtype=torch.int64), mask_logits.new_empty((count,)),
            mask_logits.new_empty((count, 4), dtype=torch.int64))


def _rle_fake(bits: Tensor, width: int) -> tuple[Tensor, Tensor]:
    length = torch.library.get_ctx().new_dynamic_size()
    return bits.new_empty((length,)), bits.new_empty((bits.shape[0] + 1,), dtype=torch.int64)


define_op('mask_ensemble_instance(Tensor mask_logits, Tensor queries, int[] padded, int[] image, int[] output) '
          '-> (Tensor, Tensor, Tensor, Tensor)', instance_definition, _instance_fake)
define_op('mask_rle(Tensor bits, int width) -> (Tensor, Tensor)', rle_definition, _rle_fake)
