"""COCO panoptic 2017, and the sizes and addresses of COCO's archives."""
from __future__ import annotations

from pathlib import Path

from frozenmm.datasets.panoptic_files import read_panoptic_file
from frozenmm.datasets.prepare.sources import SourceFile, unpack
from frozenmm.errors import MissingFile

PAGE = 'https://cocodataset.org/#download'
HOST = 'http://images.cocodataset.org'


def image_archives(into: str, *, all_splits: bool = False) -> tuple[SourceFile, ...]:
    """The archives of the 2017 images, unpacked into a folder; `all_splits`: both, whatever the splits asked for."""
    return (
        SourceFile('val2017.zip', '778 MB', PAGE, (f'{into}/val2017', ), f'{HOST}/zips/val2017.zip',
                   'md5:442b8da7639aecaf257c1dceb8ba8c80', into, '' if all_splits else 'val'),
        SourceFile('train2017.zip', '18 GB', PAGE, (f'{into}/train2017', ), f'{HOST}/zips/train2017.zip',
                   'md5:cced6f7f71b7629ddf16f17bbcfab6b2', into, '' if all_splits else 'train'))


FILES = (
    *image_archives('.'),
    SourceFile('annotations_trainval2017.zip', '241 MB', PAGE, ('annotations/instances_{split}2017.json', ),
               f'{HOST}/annotations/annotations_trainval2017.zip', 'md5:f4bbac642086de4f52a3fdda2de5fa2c'),
    SourceFile('panoptic_annotations_trainval2017.zip', '821 MB', PAGE, ('annotations/panoptic_{split}2017.json', ),
               f'{HOST}/annotations/panoptic_annotations_trainval2017.zip',
               'sha256:c05f76d2129b6b561eb70efe16e7006df62f73fb92889132d373b9d90e31a370'))


def convert(folder: Path, split: str) -> None:
    """Unpack the panoptic maps, which lie as an archive inside the archive, and check that every image is there.

    Raises:
        MissingFile: a picture or a map is missing; the text names the first one and their number.
    """
    annotations = folder / 'annotations'
    archive, maps = annotations / f'panoptic_{split}2017.zip', annotations / f'panoptic_{split}2017'
    mark = annotations / f'.{archive.name}.unpacking'
    if archive.is_file() and (mark.exists() or not maps.is_dir()):
        unpack(archive, annotations)
    content = read_panoptic_file(annotations / f'panoptic_{split}2017.json')
    for place, names in ((folder / f'{split}2017', [image.file_name for image in content.images]),
                         (maps, [image.map_name for image in content.images])):
        there = {path.name for path in place.iterdir()} if place.is_dir() else set()
        lacking = [name for name in names if name not in there]
        if lacking:
            raise MissingFile(f'{place.absolute()} lacks {len(lacking)} of {len(names)} files, e.g. '
                                    f'{lacking[0]}; delete the folder and run the same command again')
