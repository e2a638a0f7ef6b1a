"""The best model for words that this machine has: official weights, else CLIP without training, else ours to try."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from frozenmm.compat.fetch import offline
from frozenmm.errors import MissingPackage, UserError
from frozenmm.foundation.image_towers.clip import MODELS_BY_NAME
from frozenmm.foundation.image_towers.dino import dino_model
from frozenmm.foundation.image_towers.open_clip import open_clip_model, published_file
from frozenmm.foundation.image_towers.sam import SAM_MODELS
from frozenmm.foundation.weights import WeightFile, download, weights_folder
from frozenmm.registry import installed
from frozenmm.zoo import default_checkpoint

_TRAINED = (('fc_clip', 'fc_clip_convnext-l_8xb2-369k_coco-panoptic', ('fcclip_cocopan.pth', )),
            ('frozen_seg', 'frozen_seg_convnext-l_sam-b_official-weights', ()))
"""Converter, config, and names of the official file beside `CONFIG.pth`."""
_UNTRAINED = (('proxyclip_clip-b16_coco-object', ('CLIP ViT-B/16', 'DINO ViT-B/8')),
              ('naclip_clip-b16_coco-object', ('CLIP ViT-B/16', )))
"""Config, and the frozen networks that it needs, the better one first."""
_ANSWER = 'words-without-download'


@dataclass(frozen=True)
class WordModel:
    """A model that looks for words.

    Attributes:
        model: name of a config or of a checkpoint of the zoo.
        remark: what it is, in a line.
        weights: its checkpoint; None where nothing of it is trained, or the zoo has it.
        missing: files of frozen networks that are not on this machine, by name.
    """

    model: str
    remark: str
    weights: Path | None = None
    missing: tuple[tuple[str, WeightFile], ...] = ()


def best_word_model(*, task: str | None = None, memory: bool = False,
                    ask: Callable[[str], bool] | None = None) -> WordModel:
    """The best model for words that there is, or that may be fetched.

    Args:
        task: what it must be able to do, see `OpenVocabularyInferencer`; training-free models make semantic maps only.
        memory: whether it must take a memory of examples.
        ask: whether to fetch what a question names; asked once, a no is remembered. None never fetches.

    Raises:
        UserError: official weights in the cache folder cannot be converted.
    """
    found = list(_candidates(task, memory))
    ready = next((entry for entry in found if not entry.missing), None)
    if ready is not None:
        return ready
    wanted = next((entry for entry in found if all(file.url for _, file in entry.missing)), None)
    if wanted is not None and ask is not None and not offline() and _agreed(wanted, ask):
        try:
            for name, file in wanted.missing:
                download(file, weights_folder() / file.file_name, name=name)
            return wanted
        except UserError as error:  # the next best is better than nothing
            return _demonstration(f'{error}; ')
    return _demonstration()


def _candidates(task: str | None, memory: bool) -> Iterator[WordModel]:
    for system, config, names in _TRAINED:
        weights = _official(system, config, names)
        if weights is not None:
            yield WordModel(config, f'{config} with {weights}', weights, _missing(
                ('CLIP ConvNeXt-L', 'SAM ViT-B') if system == 'frozen_seg' else ('CLIP ConvNeXt-L', )))
    if memory or task not in (None, 'all', 'semantic') or not installed('mmseg'):
        return
    for config, networks in _UNTRAINED:
        yield WordModel(config, f'{config}: {" and ".join(networks)} without training, semantic maps; '
                        'what fits no word is background', missing=_missing(networks))


def _official(system: str, config: str, names: tuple[str, ...]) -> Path | None:
    """Converted official weights in the cache folder, converted first if they are official ones."""
    folder = weights_folder()
    target = folder / f'{config}.safetensors'
    source = next((folder / name for name in (f'{config}.pth', *names) if (folder / name).is_file()), None)
    if not target.is_file() and source is not None:
        from frozenmm.convert.command import convert_file
        convert_file(system, source, target)
    return target if target.is_file() else None


def _file(network: str) -> WeightFile | None:
    if network == 'CLIP ViT-B/16':
        return MODELS_BY_NAME['ViT-B/16'].weights
    if network == 'DINO ViT-B/8':
        return dino_model('dino_vitb8')[2]
    return SAM_MODELS['vit_b'][1] if network == 'SAM ViT-B' else published_file(
        *open_clip_model('convnext_large_d_320', None))


def _missing(networks: tuple[str, ...]) -> tuple[tuple[str, WeightFile], ...]:
    found = []
    for network in networks:
        try:
            file = _file(network)
        except MissingPackage:  # the model says which when it is built; what is ready goes first
            file = WeightFile('', 0, '', name=f'{network} without its package')
        if file is not None and not (weights_folder() / file.file_name).is_file():
            found.append((network, file))
    return tuple(found)


def _agreed(model: WordModel, ask: Callable[[str], bool]) -> bool:
    note = weights_folder() / _ANSWER
    if note.is_file():
        return False
    parts = ' and '.join(f'{name} ({file.megabytes} MB, licence: {file.license})' for name, file in model.missing)
    total = sum(file.megabytes for _, file in model.missing)
    if ask(f'{model.model} finds far more than the demonstration model that comes with frozenmm. It needs {parts}. '
           f'Fetch {total} MB into {weights_folder()}?'):
        return True
    note.parent.mkdir(parents=True, exist_ok=True)
    note.touch()
    return False


def _demonstration(why: str = '') -> WordModel:
    entry = default_checkpoint('open-vocabulary')
    clip = MODELS_BY_NAME['ViT-B/16'].weights
    return WordModel(entry.name, f'{why}{entry.name} is a demonstration model: it names what ImageNet or COCO names '
                     f'and little else. A real one: `frozenmm zoo fetch clip:ViT-B/16` ({clip.megabytes} MB), or '
                     f'official FC-CLIP weights as {weights_folder() / _TRAINED[0][2][0]}')
