"""COCO panoptic as an mmdet data set, for all classes or some, without panopticapi."""
from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from mmdet.datasets import BaseDetDataset

from frozenmm.datasets.annotation_pictures import shown_size
from frozenmm.datasets.panoptic_files import Category, PanopticFile, PanopticImage, match_categories, read_panoptic_file
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import DATASETS


@DATASETS.register_module()
class CocoPanoptic(BaseDetDataset):
    """Images with panoptic maps in COCO's format; its samples are those of `mmdet.CocoPanopticDataset`.

    Unlike mmdet's, it may show a part of the classes: the pixels of all others count as void. Labels follow the
    vocabulary's order. Load the maps with `frozenmm.LoadPanopticMaps`.

    Args:
        ann_file: the JSON file.
        vocabulary: the classes, by category name or id (see `match_categories`); all categories by default.
        **kwargs: for `mmdet.datasets.BaseDetDataset`: `data_root`, `data_prefix` (`img`, `seg`, and `sem` for semantic
            maps of the same names, which `frozenmm.LoadLabelMap(key='sem_map_path')` loads), `pipeline`, `filter_cfg`
            (`filter_empty_gt` drops images without any segment of the classes, `min_size`), `test_mode`, `indices`, ...

    Raises:
        MissingFile, UserError: see `read_panoptic_file` and `match_categories`.

    Attributes:
        kept, dropped: numbers of annotated segments that it shows, and of those that it does not, by reason.
    """

    kept: int
    dropped: Counter[str]

    def __init__(self, ann_file: str, *, vocabulary: VocabularySource | None = None, **kwargs: object) -> None:
        self.vocabulary = None if vocabulary is None else Vocabulary.read(vocabulary)
        super().__init__(ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        """One dictionary per image, as `mmdet.CocoPanopticDataset` makes them; sets the classes of the metainfo."""
        content = read_panoptic_file(self.ann_file)
        categories = self._use(content)
        self.kept, self.dropped = 0, Counter()
        labels = {category.id: index for index, category in enumerate(categories)}
        things = {category.id for category in categories if category.isthing}
        return [self._sample(image, labels, things) for image in content.images]

    def _use(self, content: PanopticFile) -> list[Category]:
        """The categories to show, in label order."""
        if self.vocabulary is None:
            # what the file does not say to be stuff is a thing
            categories = [replace(category, isthing=category.isthing is not False) for category in content.categories]
        else:
            categories = match_categories(self.vocabulary, content.categories)
        names = tuple(category.name for category in categories)
        palette = self._metainfo.get('palette')
        if palette and len(palette) == len(content.categories):
            places = {category.id: place for place, category in enumerate(content.categories)}
            self._metainfo['palette'] = [palette[places[category.id]] for category in categories]
        things = tuple(category.name for category in categories if category.isthing)
        self._metainfo.update(classes=names, thing_classes=things,
                              stuff_classes=tuple(name for name in names if name not in things),
                              category_ids=tuple(category.id for category in categories))
        return categories

    def _sample(self, image: PanopticImage, labels: dict[int, int], things: set[int]) -> dict:
        segments, instances = [], []
        for segment in image.segments:
            x, y, width, height = segment.bbox
            if segment.category_id not in labels:
                self.dropped['class not shown'] += 1
                continue
            label = labels[segment.category_id]
            # a crowd is a region of a thing class but no object: it is in the semantic map alone
            is_object = segment.category_id in things and not segment.is_crowd
            if segment.is_crowd and segment.category_id in things:
                self.dropped['crowd'] += 1
            else:
                self.kept += 1
            segments.append(dict(id=segment.id, category=label, is_thing=is_object))
            if is_object:
                instances.append(dict(bbox=[x, y, x + width, y + height], bbox_label=label, ignore_flag=0))
        folders = self.data_prefix
        seg = None if folders.get('seg') is None else str(Path(folders['seg'], image.map_name))
        semantic = None if folders.get('sem') is None else str(Path(folders['sem'], Path(image.map_name).name))
        picture = Path(folders.get('img') or '', image.file_name)
        width, height = (image.width, image.height) if image.width and image.height else shown_size(picture)
        return dict(img_path=str(picture), img_id=image.id, seg_map_path=seg, sem_map_path=semantic, height=height,
                    width=width, instances=instances, segments_info=segments,
                    listed_ids=[segment.id for segment in image.segments])

    def filter_data(self) -> list[dict]:
        """Drop small images and those without any segment, as `filter_cfg` says; nothing in test mode."""
        if self.test_mode or not self.filter_cfg:
            return self.data_list
        smallest, empty = self.filter_cfg.get('min_size', 0), self.filter_cfg.get('filter_empty_gt', False)
        return [sample for sample in self.data_list if min(sample['height'], sample['width']) >= smallest
                and (sample['segments_info'] or not empty)]
