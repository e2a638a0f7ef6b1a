"""Results of open-vocabulary models as files: a drawn picture, a panoptic PNG, JSON, and COCO run lengths."""
from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frozenmm.compat import require
from frozenmm.compat.files import write_whole
from frozenmm.compat.image_sources import NamedImage
from frozenmm.datasets.panoptic_files import segment_colours
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.visualization.segment_map import segment_map
from frozenmm.visualization.segments import Region, draw_segments


def overlay(image: NamedImage, sample: Any, vocabulary: Vocabulary, *, min_score: float = 0.0,
            legend: bool = True) -> np.ndarray:
    """(H', W', 3) uint8 RGB, the picture with its segments; those below the score are not drawn."""
    ids, segments = segment_map(sample)
    regions = [Region(info['id'], info['category_id'], info['score']) for info in segments
               if info['score'] is None or info['score'] >= min_score]
    colours = [entry.color for entry in vocabulary]
    palette = None if any(colour is None for colour in colours) else [colour for colour in colours if colour]
    return draw_segments(image.pixels, ids, regions, vocabulary.names, palette=palette, legend=legend)


def write_results(folder: Path, image: NamedImage, sample: Any, vocabulary: Vocabulary, *,
                  min_score: float = 0.0) -> list[Path]:
    """Write the results of one image; every file appears complete or not at all.

    `NAME_overlay.png` is the drawn picture. `NAME_panoptic.png` holds segment ids as R + 256 G + 65536 B, 0 for
    nothing. `NAME.json` lists the segments of that map, in COCO's panoptic format. `NAME_rle.json` is COCO's result
    format, one entry per instance with any pixel, or per segment where instances were not asked for.

    Args:
        folder: made if it is not there.
        image: the picture.
        sample: the model's data sample.
        vocabulary: the classes that its labels index.
        min_score: segments below it are not drawn; the files hold all.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids, segments = segment_map(sample)
    paths = [folder / f'{image.name}{ending}' for ending in ('_overlay.png', '_panoptic.png', '.json', '_rle.json')]
    write_whole(paths[0], png(overlay(image, sample, vocabulary, min_score=min_score)))
    write_whole(paths[1], png(segment_colours(ids)))
    entries = [{**info, 'category_id': vocabulary.ids[info['category_id']], 'category': vocabulary.names[
        info['category_id']], 'iscrowd': 0, 'bbox': _box(ids == info['id'])} for info in segments]
    content = dict(image=image.path or image.name, height=int(ids.shape[0]), width=int(ids.shape[1]),
                   file_name=paths[1].name, segments_info=entries,
                   categories=[dict(id=entry.id, name=entry.name, isthing=None if entry.isthing is None
                                    else int(entry.isthing)) for entry in vocabulary])
    write_whole(paths[2], json.dumps(content, indent=1).encode())
    write_whole(paths[3], json.dumps(_run_lengths(image, sample, ids, segments, vocabulary)).encode())
    return paths


def _run_lengths(image: NamedImage, sample: Any, ids: np.ndarray, segments: Sequence[dict[str, Any]],
                 vocabulary: Vocabulary) -> list[dict[str, Any]]:
    if 'pred_instances' in sample:
        found = sample.pred_instances.cpu()
        rows = [(mask, int(label), float(score))
                for mask, label, score in zip(found.masks.numpy(), found.labels, found.scores)]
    else:
        rows = [(ids == info['id'], info['category_id'], info['score']) for info in segments]
    encode = require('pycocotools.mask', 'COCO run lengths').encode
    entries = []
    for mask, label, score in rows:
        if not mask.any():  # a query may win a class and no pixel
            continue
        run = encode(np.asfortranarray(mask.astype(np.uint8)))
        entries.append(dict(image_id=image.name, category_id=vocabulary.ids[label], category=vocabulary.names[label],
                            score=score, bbox=_box(mask),
                            segmentation=dict(size=[int(side) for side in run['size']], counts=run['counts'].decode())))
    return entries


def _box(mask: np.ndarray) -> list[int]:
    """x, y, width, height of a mask; zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return [0, 0, 0, 0]
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of (H, W, 3) uint8 RGB."""
    buffer = io.BytesIO()
    require('PIL.Image', 'writing images').fromarray(pixels).save(buffer, 'PNG')
    return buffer.getvalue()
