"""Folders of prepared SAM masks, one file per image: our own format and the official one."""
from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save

from frozenmm.compat.files import write_whole
from frozenmm.errors import MissingFile, reading
from frozenmm.segmentation.frozen_seg.official_masks import official_name, read_official_masks
from frozenmm.segmentation.frozen_seg.sam_masks import LARGEST, SAMMasks, check_choice


class SAMMaskFolder:
    """Prepared masks, one file per image: `<image file name without ending>.safetensors`, or `.pkl` as officially.

    Args:
        folder: where they lie.
        choice: `'largest'` (official) or `'best'`, see `SAMMasks`.
        count: masks to use per image.

    Raises:
        MissingFile: no such folder.
        UserError: unknown choice.
    """

    def __init__(self, folder: str | Path, *, choice: str = 'largest', count: int = LARGEST) -> None:
        check_choice(choice)
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise MissingFile(f'the folder of prepared SAM masks {self.folder.resolve()} does not exist; prepare '
                              f'the masks first: {command(self.folder)}; or leave `sam_masks` out of the model')
        self.choice = choice
        self.count = count

    def path(self, image: str | Path) -> Path:
        """The file that holds an image's masks."""
        return self.folder / f'{Path(image).stem}.safetensors'

    def load(self, image: str | Path) -> SAMMasks:
        """The masks of an image.

        Raises:
            MissingFile: none were prepared for it; the text names the expected file and the command.
            UserError: the file is damaged or holds something else.
        """
        path, official = self.path(image), self.folder / official_name(image)
        if path.exists():
            masks = read_masks(path)
        elif official.exists():
            masks = read_official_masks(official)
        else:
            raise MissingFile(f'no SAM masks were prepared for the image {image}: {path.resolve()} does '
                              f'not exist, nor {official.name}; prepare masks for the whole data set, which '
                              f'leaves those that are there: {command(self.folder, Path(image).parent)}; or '
                              'pass the masks with the data sample')
        return masks.select(self.choice, self.count)


def command(folder: Path, images: Path | str = 'CONFIG_OR_FOLDER_OF_IMAGES') -> str:
    """The command that prepares the masks of a folder."""
    return f'python tools/prepare_sam_masks.py {images} --model vit_h --out {folder}'


def write_masks(path: str | Path, masks: SAMMasks) -> None:
    """Store masks in one step: logits in float16 at their own resolution, image size in the header."""
    tensors = {'logits': masks.logits.half().cpu().contiguous()}
    if masks.predicted_iou is not None:
        tensors['predicted_iou'] = masks.predicted_iou.float().cpu().contiguous()
    write_whole(Path(path), save(tensors, metadata={'image_size': json.dumps(list(masks.size))}))


def read_masks(path: str | Path) -> SAMMasks:
    """What `write_masks` stored.

    Raises:
        UnreadableFile: the file is damaged or holds something else.
    """
    with reading(path, 'prepared SAM masks', 'prepare the image again'), safe_open(path, 'pt') as file:
        height, width = json.loads((file.metadata() or {})['image_size'])
        scores = file.get_tensor('predicted_iou') if 'predicted_iou' in file.keys() else None
        return SAMMasks(file.get_tensor('logits'), (int(height), int(width)), scores)
