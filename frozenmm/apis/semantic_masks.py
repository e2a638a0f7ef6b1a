"""Pixels of named classes (sky, people, cars), for the reconstruction to leave out."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from frozenmm.compat.config_files import read_config_file
from frozenmm.compat.devices import resolve_device
from frozenmm.compat.image_sources import NamedImage
from frozenmm.errors import UserError
from frozenmm.foundation.lookup import lookup

SURROUNDINGS = 'ade20k_150'
"""Vocabulary that stands beside the words in an open-vocabulary model, so that not every pixel must be one of them."""


class SemanticMask:
    """Marks the pixels that a segmentation model gives to some classes.

    Args:
        words: classes to mark.
        model: what `frozenmm.apis.inferencer` takes for open vocabularies, or the config file of an mmseg model.
        weights: checkpoint of the trained part.
        device: where to compute, see `resolve_device`.
        trust_weights: open a checkpoint that holds pickled objects.

    Raises:
        UserError: no word, or one that the mmseg model does not know, with the nearest ones.
    """

    def __init__(self, words: Sequence[str], *, model: str = 'open-vocabulary', weights: str | Path | None = None,
                 device: str = 'auto', trust_weights: bool = False) -> None:
        words = [word.strip() for word in words if word.strip()]
        if not words:
            raise UserError('a mask needs at least one class, such as "sky, person"')
        self.name = f'{model} {weights} {", ".join(words)}'
        make = _mmseg_labels if _is_mmseg(model) else _open_labels
        self._labels, self._chosen = make(words, model, weights=weights, device=device, trust_weights=trust_weights)

    def __call__(self, images: np.ndarray, report: Callable[[str, int, int], None] | None = None) -> np.ndarray:
        """Bool (F, H, W) of RGB images (F, H, W, 3) uint8."""
        found = []
        for index, image in enumerate(images):
            found.append(np.isin(self._labels(image), self._chosen))
            if report is not None:
                report('masks', index + 1, len(images))
        return np.stack(found)


def _is_mmseg(model: str) -> bool:
    path = Path(model)
    return path.suffix == '.py' and path.is_file() and 'EncoderDecoder' in str(read_config_file(path).get('model'))


def _mmseg_labels(words: Sequence[str], model: str, *, weights: str | Path | None, device: str,
                  trust_weights: bool) -> tuple[Callable[[np.ndarray], np.ndarray], list[int]]:
    from mmseg.apis import inference_model, init_model

    from frozenmm.apis.image_pipeline import class_names
    from frozenmm.apis.model_sources import load_weights
    network = init_model(model, None, device=str(resolve_device(device)))
    meta = {} if weights is None else load_weights(network, weights, trusted=trust_weights)
    classes = list(class_names(read_config_file(model), meta))
    if not classes:
        raise UserError(f'neither the data set of {model} nor its checkpoint names its classes; state them as '
                        "test_dataloader.dataset.metainfo=dict(classes=('sky', ...))")
    chosen = [classes.index(lookup(word, classes, 'class')) for word in words]

    def labels(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            result = inference_model(network, np.ascontiguousarray(image[..., ::-1]))
        return result.pred_sem_seg.data[0].cpu().numpy()

    return labels, chosen


def _open_labels(words: Sequence[str], model: str, *, weights: str | Path | None, device: str,
                 trust_weights: bool) -> tuple[Callable[[np.ndarray], np.ndarray], list[int]]:
    from frozenmm.apis.choose import inferencer
    from frozenmm.foundation.vocabulary import Vocabulary
    around = [entry for entry in Vocabulary.read(SURROUNDINGS).names if entry.lower() not in
              {word.lower() for word in words}]
    chosen = inferencer(model, [*words, *around], weights=weights, device=device, task='semantic',
                        trust_weights=trust_weights)

    def labels(image: np.ndarray) -> np.ndarray:
        result = chosen.predict([NamedImage('frame', image)])[0]
        return result.pred_sem_seg.sem_seg[0].numpy()

    return labels, list(range(len(words)))
