"""Episodes: an image, and the classes that it is asked for by name. The data of few-shot and zero-shot segmentation."""
from __future__ import annotations

import difflib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from frozenmm.compat.files import write_whole
from frozenmm.datasets.annotation_pictures import read_picture
from frozenmm.datasets.semantic_maps import write_semantic_maps
from frozenmm.deprecation import grouped_arguments
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.registry import DATASETS, TRANSFORMS

IGNORE = 255
Options = TypeVar('Options')


def read_label_map(path: str | Path, *, binary: bool = False) -> np.ndarray:
    """A label map (H, W) uint8 of a PNG file, palette images by index; with `binary`, 1 where it is bright.

    Raises:
        MissingFile: no such file.
        UserError: neither one channel nor `binary`.
    """
    path = Path(path)
    labels = read_picture(path, mode='L' if binary else '', kind='a label map')
    if binary:
        return (labels > 127).astype(np.uint8)
    if labels.ndim != 2:
        raise UserError(f'{path.absolute()} has {labels.shape[-1]} channels; a label map has one, its values being '
                        'class numbers')
    if labels.dtype != np.uint8 and labels.size and not 0 <= labels.min() <= labels.max() <= IGNORE:
        raise UserError(f'{path.absolute()} holds values up to {labels.max()}; class numbers are 0..{IGNORE}')
    return labels.astype(np.uint8)


@dataclass(frozen=True)
class Asking:
    """What episodes ask for.

    Attributes:
        classes_per_episode: classes that an image is asked for in one episode. 1 gives an episode per image and class
            that it shows; K one per image, with up to K of those it shows, drawn anew each time in training; None one
            per image with all of them.
        negatives: names of classes that the image does not show, added to every episode, drawn anew each time in
            training. There a class comes as often as it is shown, so that a name alone does not tell whether it is; a
            test draws from all.
        pairs: `(stem of the image, class number)` to use instead of all pairs; needs `classes_per_episode=1`.
        count: keep this many episodes only, drawn with `seed`, so that every class comes equally often (a class with
            few images repeats them); all by default.
        seed: for `count`, and for the draws of a test set.
    """

    classes_per_episode: int | None = 1
    negatives: int = 0
    pairs: Sequence[tuple[str, int]] | None = None
    count: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.classes_per_episode is not None and self.classes_per_episode < 1 or self.negatives < 0:
            raise UserError('classes_per_episode must be at least 1 (or None for all) and negatives at least 0, got '
                            f'{self.classes_per_episode} and {self.negatives}')
        if self.pairs is not None and self.classes_per_episode != 1:
            raise UserError(f'pairs name one class each; set classes_per_episode=1, not {self.classes_per_episode}')


@dataclass(frozen=True)
class LabelMaps:
    """Where label maps come from and what is in them.

    Attributes:
        annotations: COCO file (instances or panoptic) from which the label maps are made on first use, see
            `write_semantic_maps`; categories are matched to the classes by name, or by `category_ids`.
        panoptic_folder: of the panoptic maps, below `data_root`.
        category_ids: COCO category of every class.
        min_pixels: an image shows a class that covers this many pixels at least.
        img_suffix: of the images.
        seg_map_suffix: of the label maps.
        binary: label maps are black and white and the class is told by the file, see `FSS1000Dataset`.
    """

    annotations: str | None = None
    panoptic_folder: str | None = None
    category_ids: Sequence[int] | None = None
    min_pixels: int = 1
    img_suffix: str = '.jpg'
    seg_map_suffix: str = '.png'
    binary: bool = False


ASKING, MAPS = ([field.name for field in fields(kind)] for kind in (Asking, LabelMaps))


def _options(kind: type[Options], given: Mapping[str, Any] | None, argument: str) -> Options:
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [key for key in given or {} if key not in known]
    if unknown:
        raise UserError(f'{argument} has the keys {unknown}; it takes {known}')
    return kind(**(given or {}))


@DATASETS.register_module()
class EpisodicSegDataset(BaseDataset):
    """Pairs of an image and one or more classes, over a folder of images and a folder of label maps.

    Label maps hold 0 for background, k for the k-th class of the table and 255 for pixels that do not count. What the
    pipeline's `LoadEpisodeMap` makes of them has 0, 1..K for the K classes of the episode, and 255.

    Args:
        classes: names of the class table; the first one has number 1.
        data_root: prefix of the folders.
        data_prefix: `img_path` and `seg_map_path`, the folders.
        class_ids: numbers of the classes that episodes ask for (the others are background); all by default.
        asking: fields of `Asking` that differ from their defaults: what an episode asks for, which episodes there are.
        maps: fields of `LabelMaps` that differ from their defaults: where label maps come from and what is in them.
        **kwargs: for mmengine's `BaseDataset`: `pipeline`, `test_mode`, `lazy_init`, `indices`, ...

    Raises:
        UserError: class numbers outside the table, values in a label map outside it, no episode at all, a pair whose
            image does not show its class.
        MissingFile: a missing folder or label map.
    """

    @grouped_arguments(removed_in='0.3', asking={name: name for name in ASKING}, maps={name: name for name in MAPS})
    def __init__(self, classes: Sequence[str], *, data_root: str = '', data_prefix: dict | None = None,
                 class_ids: Sequence[int] | None = None, asking: Mapping[str, Any] | None = None,
                 maps: Mapping[str, Any] | None = None, **kwargs: object) -> None:
        self.classes = tuple(classes)
        table = range(1, len(self.classes) + 1)
        self.class_ids = tuple(table if class_ids is None else class_ids)
        outside = [number for number in self.class_ids if number not in table]
        if outside or not self.class_ids:
            raise UserError(f'class_ids must be among 1..{len(self.classes)} (0 is background), got '
                            f'{outside or "none"}')
        self.asking = _options(Asking, asking, 'asking')
        self.maps = _options(LabelMaps, maps, 'maps')
        super().__init__(data_root=data_root, data_prefix=dict(data_prefix or dict(img_path='', seg_map_path='')),
                         metainfo=dict(classes=self.classes), **kwargs)

    def load_data_list(self) -> list[dict]:
        """One dictionary per episode: `img_path`, `seg_map_path`, `present` (classes shown), `asked` (to choose from).

        Raises: as the class says.
        """
        shown = self.presence()
        self._images_of = Counter(number for present in shown.values() for number in present)
        if self.asking.pairs is not None:
            episodes = self._from_pairs(shown)
        elif self.asking.classes_per_episode == 1:
            episodes = [(stem, [number]) for stem, present in shown.items() for number in present
                        if number in self.class_ids]
        else:
            wanted = {stem: [number for number in present if number in self.class_ids]
                      for stem, present in shown.items()}
            episodes = [(stem, asked) for stem, asked in wanted.items() if asked]
        if not episodes:
            raise UserError(f'no image in {self.data_prefix["img_path"]} shows any of the classes asked for '
                            f'({", ".join(self.names(self.class_ids)[:5])}, ...) on {self.maps.min_pixels} or more '
                            f'pixels; {len(shown)} images were looked at')
        if self.asking.count is not None:
            episodes = self._balanced(episodes)
        images, maps = Path(self.data_prefix['img_path']), Path(self.data_prefix['seg_map_path'])
        return [dict(img_path=str(images / f'{stem}{self.maps.img_suffix}'),
                     seg_map_path=str(maps / f'{stem}{self.maps.seg_map_suffix}'), present=list(shown[stem]),
                     asked=asked, binary=self.maps.binary, seg_fields=[], reduce_zero_label=False)
                for stem, asked in episodes]

    def presence(self) -> dict[str, list[int]]:
        """Which classes every image shows: stem to class numbers, sorted.

        Read from the label maps once and kept in `presence.json` beside them where that folder can be written.
        """
        maps = Path(self.data_prefix['seg_map_path'])
        if self.maps.annotations is not None:
            panoptic = None if self.maps.panoptic_folder is None else Path(self.data_root, self.maps.panoptic_folder)
            write_semantic_maps(Path(self.data_root, self.maps.annotations), maps, classes=self.classes,
                                category_ids=self.maps.category_ids, panoptic_folder=panoptic)
        if not maps.is_dir():
            raise MissingFile(f'the folder of label maps {maps.absolute()} does not exist')
        stems = sorted(path.name.removesuffix(self.maps.seg_map_suffix) for path in maps.iterdir()
                       if path.name.endswith(self.maps.seg_map_suffix))
        if not stems:
            raise MissingFile(f'there are no label maps *{self.maps.seg_map_suffix} in {maps.absolute()}')
        areas = self._stored_areas(maps, stems)
        return {stem: [int(number) for number, pixels in areas[stem].items() if pixels >= self.maps.min_pixels]
                for stem in stems}

    def names(self, class_ids: Iterable[int]) -> list[str]:
        """Names of class numbers."""
        return [self.classes[number - 1] for number in class_ids]

    def prepare_data(self, idx: int) -> object:
        """An episode through the pipeline; in training its classes are drawn anew."""
        results = self.get_data_info(idx)
        # a test set asks the same every time; mmengine seeds numpy in every worker
        rng = np.random.default_rng((self.asking.seed, idx)) if self.test_mode else np.random
        asked = list(results['asked'])
        if self.asking.classes_per_episode is not None and len(asked) > self.asking.classes_per_episode:
            asked = sorted(int(i) for i in rng.choice(asked, self.asking.classes_per_episode, replace=False))
        class_ids = [*asked, *self._negatives(results['present'], rng)]
        results.update(class_ids=class_ids, class_names=self.names(class_ids), must_show=len(asked))
        return self.pipeline(results)

    def _negatives(self, present: Sequence[int], rng: Any) -> list[int]:
        """Numbers of classes that an image with these ones does not show."""
        absent = [number for number in self.class_ids if number not in present
                  and (self.test_mode or self._images_of[number])]
        if not absent or not self.asking.negatives:
            return []
        often = np.array([1 if self.test_mode else self._images_of[number] for number in absent], float)
        drawn = rng.choice(absent, min(self.asking.negatives, len(absent)), replace=False, p=often / often.sum())
        return [int(number) for number in drawn]

    def _from_pairs(self, shown: dict[str, list[int]]) -> list[tuple[str, list[int]]]:
        episodes = []
        for stem, number in [(str(stem), int(number)) for stem, number in self.asking.pairs or []]:
            if stem not in shown:
                near = difflib.get_close_matches(stem, shown, 1)
                raise MissingFile(f'the pair ({stem}, {number}) names an image without label map in '
                                        f'{self.data_prefix["seg_map_path"]}'
                                        + (f'; nearest: {near[0]}' if near else ''))
            if number not in shown[stem]:
                raise UserError(f'the pair ({stem}, {number}): this image shows no {self.names([number])[0]} on '
                                f'{self.maps.min_pixels} or more pixels, only '
                                f'{self.names(shown[stem]) or "background"}; an episode without foreground cannot be '
                                'scored')
            episodes.append((stem, [number]))
        return episodes

    def _balanced(self, episodes: list[tuple[str, list[int]]]) -> list[tuple[str, list[int]]]:
        rng = np.random.default_rng(self.asking.seed)
        groups: dict[int, list] = {}
        for episode in episodes:
            groups.setdefault(episode[1][0], []).append(episode)
        shuffled = [[group[i] for i in rng.permutation(len(group))] for _, group in sorted(groups.items())]
        rounds = (group[turn % len(group)] for turn in itertools.count() for group in shuffled)
        return list(itertools.islice(rounds, self.asking.count))

    def _stored_areas(self, maps: Path, stems: list[str]) -> dict[str, dict[str, int]]:
        """Pixels of every class in every label map, by stem; from the file of the last time where it fits."""
        path = maps / 'presence.json'
        if path.is_file():
            with reading(path, 'the record of what label maps show', 'delete it; it is made again'):
                stored = json.loads(path.read_text())
                if stored['classes'] == len(self.classes) and list(stored['areas']) == stems:
                    return {stem: {str(int(key)): int(count) for key, count in shown.items()}
                            for stem, shown in stored['areas'].items()}
        print_log(f'looking through {len(stems)} label maps in {maps}', logger='current')
        areas = {stem: self._areas(maps / f'{stem}{self.maps.seg_map_suffix}') for stem in stems}
        try:
            write_whole(path, json.dumps(dict(classes=len(self.classes), areas=areas)))
        except OSError as error:
            print_log(f'{path} cannot be written ({error}); the label maps are looked through every time',
                      logger='current')
        return areas

    def _areas(self, path: Path) -> dict[str, int]:
        labels = read_label_map(path)
        values, counts = np.unique(labels, return_counts=True)
        outside = [int(value) for value in values if value != IGNORE and value > len(self.classes)]
        if outside:
            raise UserError(f'{path.absolute()} holds the values {outside}, but the class table has '
                             f'{len(self.classes)} classes (1..{len(self.classes)}, 0 background, {IGNORE} ignore)')
        return {str(value): int(count) for value, count in zip(values, counts) if 0 < value != IGNORE}


@TRANSFORMS.register_module()
class LoadEpisodeMap(BaseTransform):
    """The label map of an episode as `gt_seg_map`: 0 background, k + 1 for its k-th class, 255 for ignored pixels.

    Needs `seg_map_path` and `class_ids`. Values of the file are class numbers, unless `label_values` gives those of the
    episode's classes. The first `must_show` classes (none by default) are expected in the map.

    Raises:
        UserError: the map and the image differ in size, or a class that should be seen is not.
    """

    def transform(self, results: dict) -> dict:
        """The sample with its label map."""
        labels = read_label_map(results['seg_map_path'], binary=results.get('binary', False))
        shape = results.get('ori_shape')
        if shape is not None and tuple(shape[:2]) != labels.shape:
            raise UserError(f'{results["seg_map_path"]} is {labels.shape[0]}x{labels.shape[1]}, its image '
                             f'{results["img_path"]} {shape[0]}x{shape[1]} pixels')
        if results.get('binary', False):
            episode = labels  # the only class that it shows stands first
        else:
            table = np.zeros(256, np.uint8)
            table[IGNORE] = IGNORE
            values = results.get('label_values', results['class_ids'])
            table[values] = np.arange(1, len(values) + 1)
            episode = table[labels]
        for position in range(1, results.get('must_show', 0) + 1):
            if not (episode == position).any():
                name, number = results['class_names'][position - 1], results['class_ids'][position - 1]
                raise UserError(f'{results["seg_map_path"]} shows no pixel of {name!r} (class {number}) any '
                                 'more; the files changed after they were looked through, delete presence.json '
                                 'beside them')
        results['gt_seg_map'] = episode
        results['seg_fields'] = [*results.get('seg_fields', []), 'gt_seg_map']
        return results
