"""Preparing SAM's automatic masks for a data set: one small file per image, to be interrupted and resumed at will."""
from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from frozenmm import registry
from frozenmm.compat.devices import resolve_device
from frozenmm.compat.files import write_whole
from frozenmm.compat.image_files import list_images, read_image_file
from frozenmm.datasets.progress import Progress
from frozenmm.datasets.self_made import make_missing_files
from frozenmm.engine.explain import explained_building
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.foundation.lookup import lookup
from frozenmm.foundation.mask_prompters import MaskPrompter, SAMPrompter
from frozenmm.registry import DATASETS
from frozenmm.segmentation.frozen_seg.automatic_masks import AutomaticMasks
from frozenmm.segmentation.frozen_seg.mask_files import SAMMaskFolder, read_masks, write_masks

PROMPTABLE = ('vit_h', 'vit_l', 'vit_b', 'vit_t', 'demo')
"""Names of the models that make masks."""
MANIFEST = 'sam_masks.json'
DEMO_OPTIONS: dict[str, Any] = dict(points_per_side=16, iou_threshold=0.5, stability_threshold=0.6)
"""What suits the demonstration model, whose predicted IoU is lower than SAM's."""


@dataclasses.dataclass
class Preparation:
    """What became of the images of a run.

    Attributes:
        made: number of files written.
        found: number of files that were there and whole.
        empty: number of made files without any mask.
        failed: reason by image.
    """

    made: int = 0
    found: int = 0
    empty: int = 0
    failed: dict[str, str] = dataclasses.field(default_factory=dict)


def build_prompter(model: str, weights: str | None = None, device: str = 'auto') -> MaskPrompter:
    """One of `PROMPTABLE` by name.

    Raises:
        UserError: an unknown name or device, or its weights are not at hand; the text says where they come from.
    """
    found = resolve_device(device)
    name = lookup(model, PROMPTABLE, 'promptable model')
    demo = dict(type='frozenmm.DemoSAMPrompter', weights=weights)  # by name: that room may have been removed
    return (registry.MODELS.build(demo) if name == 'demo' else SAMPrompter(name, weights)).to(found)


def find_images(source: str | Path, split: str = 'test') -> list[Path]:
    """The images of a config's data set, or of a folder and those below it.

    Args:
        source: a config file, or a folder.
        split: which data loader of the config.

    Raises:
        MissingFile: neither, or a folder without images.
        UserError: two images whose masks would have the same file name; a config without that data loader.
    """
    path = Path(source)
    if path.is_dir():
        images = list_images(path, below=True)
    elif path.suffix == '.py':
        images = list(_of_config(path, split))
    else:
        raise MissingFile(f'{path.resolve()} is neither a folder of images nor a config (.py)')
    by_name: dict[str, Path] = {}
    for image in images:
        other = by_name.setdefault(image.stem, image)
        if other != image:
            raise UserError(f'{other} and {image} would share one file of masks, {image.stem}.safetensors; prepare '
                            'them into different folders')
    return list(by_name.values())


def _of_config(path: Path, split: str) -> Iterator[Path]:
    from frozenmm.engine.launch import load_config
    cfg: Config = load_config(path)
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        raise UserError(f'{path} has no {split}_dataloader')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    make_missing_files(loader)
    with explained_building():
        dataset = DATASETS.build(loader.dataset)
    for index in range(len(dataset)):
        yield Path(dataset.get_data_info(index)['img_path'])


def prepare_sam_masks(images: Sequence[Path], generator: AutomaticMasks, folder: str | Path) -> Preparation:
    """Make the masks of images that have none; files that are there and whole stay.

    Args:
        images: paths.
        generator: makes the masks.
        folder: gets `NAME.safetensors` per image, and `sam_masks.json`, which says how they were made.

    Returns:
        What was done; an image that cannot be read is in `failed` and does not end the run.

    Raises:
        UserError: the folder holds masks of another model or of other options.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, generator)
    files = SAMMaskFolder(folder)
    report, progress = Preparation(), Progress(len(images))
    for image in images:
        path = files.path(image)
        if path.is_file() and problem(path) is None:
            report.found += 1
        else:
            try:
                masks = generator(read_image_file(image))
            except (ValueError, OSError) as error:
                report.failed[str(image)] = str(error)
            else:
                write_masks(path, masks)
                report.made += 1
                report.empty += len(masks.logits) == 0
        progress.add(1, f'{report.made} made, {report.found} were there, {len(report.failed)} failed')
    return report


def write_manifest(folder: Path, generator: AutomaticMasks) -> None:
    """Say how the masks of a folder are made.

    Raises:
        UserError: those that are there were made otherwise.
    """
    wanted = dict(model=generator.prompter.name, fingerprint=generator.prompter.fingerprint,
                  options=dataclasses.asdict(generator.options))
    path = folder / MANIFEST
    if path.is_file():
        with reading(path, 'a record of how masks were made', 'name another folder'):
            found = dict(json.loads(path.read_text(encoding='utf-8')))
        if found != wanted:
            differing = sorted(key for key in wanted if found.get(key) != wanted[key])
            raise UserError(f'{folder} holds masks made with another {", ".join(differing)}: '
                            f'{ {key: found.get(key) for key in differing} }, not '
                            f'{ {key: wanted[key] for key in differing} }; name another folder, or remove this one')
        return
    write_whole(path, json.dumps(wanted, indent=1).encode())


def problem(path: Path) -> str | None:
    """What is wrong with a file of masks; None for a good one."""
    try:
        masks = read_masks(path)
    except (ValueError, OSError) as error:
        return str(error)
    if not torch.isfinite(masks.logits).all():
        return f'{path} holds infinite or undefined logits'
    return None


def verify_sam_masks(images: Sequence[Path], folder: str | Path) -> dict[str, str]:
    """What is wrong, by image: a missing or damaged file, or one whose image has another size.

    Args:
        images: paths.
        folder: of the masks.

    Raises:
        MissingFile: no such folder.
    """
    files, wrong = SAMMaskFolder(folder), {}
    for image in images:
        path = files.path(image)
        found = problem(path) if path.is_file() else f'{path} is missing'
        if found is None:
            size, shown = read_masks(path).size, read_image_file(image).shape[:2]
            if size != shown:
                found = f'{path} is for an image of {size[0]}x{size[1]} pixels, but it has {shown[0]}x{shown[1]}'
        if found is not None:
            wrong[str(image)] = found
    return wrong
