"""Pictures and maps of a built data set: are they there, whole, of one size, and full of the classes that it names?"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from frozenmm.compat.image_files import read_image_file
from frozenmm.datasets.annotation_pictures import check_same_size, read_picture, stored_size
from frozenmm.datasets.checks.findings import Survey
from frozenmm.datasets.label_maps import label_classes, void_of
from frozenmm.datasets.panoptic_files import read_panoptic_map
from frozenmm.errors import UserError

QUICK = 32
"""Pictures whose pixels are looked at before a training."""
LISTED = 20000
"""Of larger data sets, this many samples are asked for their files."""


def innermost(dataset: Any) -> Iterator[Any]:
    """The data sets below wrappers such as RepeatDataset and ConcatDataset."""
    below = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if below[0] is None:
        yield dataset
    for part in below:
        if part is not None:
            yield from innermost(part)


def check_samples(dataset: Any, survey: Survey, *, count: int | None = QUICK) -> None:
    """Look at the files of a data set.

    Args:
        dataset: one with mmengine's `get_data_info`; others are left alone. Where it says `pictures_in_memory`, no file
            is looked for; its `ignore_index`, as mmseg has it, is void.
        survey: takes counts and findings.
        count: pictures whose pixels are read, evenly spread; None for all.
    """
    if not hasattr(dataset, 'get_data_info') or not len(dataset):
        return
    total = len(dataset)
    survey.images = survey.images or total
    if hasattr(dataset, 'kept'):  # a class that counts while it reads
        survey.kept += dataset.kept
        survey.dropped += dataset.dropped
    meta = getattr(dataset, 'metainfo', None) or {}
    if 'thing_classes' in meta and not meta['thing_classes'] and hasattr(dataset, 'kept'):
        survey.note(getattr(dataset, 'ann_file', survey.name), 'every class is stuff; what should be found object by '
                                                               'object needs isthing 1')
    if getattr(dataset, 'pictures_in_memory', False):
        return
    listed = np.unique(np.linspace(0, total - 1, min(total, LISTED)).astype(int)).tolist()
    _check_files([dataset.get_data_info(index) for index in listed], survey)
    chosen = np.unique(np.linspace(0, total - 1, min(total, total if count is None else count)).astype(int)).tolist()
    classes = len(meta.get('classes') or ())
    seen = _Seen()
    for index in chosen:
        info = {'void_labels': [getattr(dataset, 'ignore_index', 255)], **dataset.get_data_info(index)}
        try:
            _check_pixels(info, survey, classes, seen)
        except UserError as error:
            survey.fail(info.get('img_path') or survey.name, str(error), '')
    if survey.dropped['no pixel']:
        survey.note(getattr(dataset, 'ann_file', survey.name),
                    f'{survey.dropped["no pixel"]} listed segments have no pixel in the maps of {len(chosen)} images')
    _count_maps(survey, seen, total)
    _look_for_classes(survey, seen, meta.get('classes') or (), whole=len(chosen) == total)


@dataclass
class _Seen:
    """What the label maps that were looked at hold.

    Attributes:
        labelled: number of maps with any class, and without.
        classes: labels that occur.
        void: whether the value for void does.
    """

    labelled: Counter[bool] = field(default_factory=Counter)
    classes: set[int] = field(default_factory=set)
    void: bool = False


def _look_for_classes(survey: Survey, seen: _Seen, names: Sequence[str], *, whole: bool) -> None:
    """A model that is shown one class of several learns to say it everywhere."""
    if len(names) < 2 or len(seen.classes) != 1:
        return
    only = names[next(iter(seen.classes))] if next(iter(seen.classes)) < len(names) else ''
    text = f'of {len(names)} classes only {only!r} has pixels in the {seen.labelled.total()} label maps looked at'
    if seen.void:
        survey.fail(survey.name, f'{text}, and the rest is void (255 in maps of 8 bits)',
                    'where 255 is meant as a class, write its number in its place')
    else:
        survey.warn(survey.name, text, '' if whole else '`frozenmm check-data --full` looks at all of them')


def _check_files(infos: list[Mapping[str, Any]], survey: Survey) -> None:
    for key, kind in (('img_path', 'pictures'), ('seg_map_path', 'maps')):
        paths = [Path(info[key]) for info in infos if isinstance(info.get(key), str)]
        absent = [path for path in paths if not path.is_file()]
        if absent:
            survey.fail(absent[0], f'{len(absent)} of {len(paths)} {kind} are not there', 'is the folder complete, and '
                        'do data_root and data_prefix lead to it?')


def _check_pixels(info: Mapping[str, Any], survey: Survey, classes: int, seen: _Seen) -> None:
    picture = info.get('img_path')
    if not isinstance(picture, str) or not Path(picture).is_file():
        return  # said already
    read_image_file(Path(picture))
    label_map = info.get('seg_map_path')
    if not isinstance(label_map, str) or not Path(label_map).is_file():
        if 'height' in info:
            _check_stated_size(info, survey)
        return
    if 'segments_info' in info:
        _check_segments(info, survey)
        return
    stored = read_picture(Path(label_map), kind='a label map')
    check_same_size(info, stored.shape[:2])
    _warn_of_turn(info, survey)
    # an episode asks for some classes of its map and takes all other values for background
    episode = 'asked' in info or 'class_ids' in info
    found = [] if episode else label_classes(stored, info, classes)
    seen.labelled[episode or bool(found)] += 1
    seen.classes.update(found)
    seen.void |= not episode and bool((stored == void_of(stored, label_map)).any())


def _check_segments(info: Mapping[str, Any], survey: Survey) -> None:
    listed = info.get('listed_ids') or [part['id'] for part in info['segments_info']]
    ids = read_panoptic_map(info['seg_map_path'], listed)
    check_same_size(info, ids.shape)
    _warn_of_turn(info, survey)
    present = set(np.unique(ids).tolist())
    lost = sum(part['id'] not in present for part in info['segments_info'])
    if lost:
        survey.kept -= lost
        survey.dropped['no pixel'] += lost


def _check_stated_size(info: Mapping[str, Any], survey: Survey) -> None:
    """Boxes need a picture of the stated size."""
    check_same_size({**info, 'seg_map_path': None}, (info['height'], info['width']))
    _warn_of_turn(info, survey)


def _warn_of_turn(info: Mapping[str, Any], survey: Survey) -> None:
    """Sizes do not tell whether a half turn, or a quarter turn of a square, was there when it was annotated."""
    width, height, turn = stored_size(Path(info['img_path']))
    if turn > 1 and (turn < 5 or width == height):
        survey.warn(info['img_path'], f'its EXIF entry turns it (orientation {turn})',
                    'look at the picture sheet whether its annotations are turned too')


def _count_maps(survey: Survey, looked_at: _Seen, total: int) -> None:
    labelled = looked_at.labelled
    seen = sum(labelled.values())
    if not seen:
        return
    survey.kept += total - round(total * labelled[False] / seen)
    if labelled[False]:
        survey.dropped['map without any class'] += round(total * labelled[False] / seen)
    if not labelled[True]:
        survey.fail(survey.name, f'none of {seen} label maps has a pixel of a class', 'look at the values of the maps')

