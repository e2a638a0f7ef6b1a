"""Images and words in, a map of these words out: semantic segmentation with a Fusioner."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from frozenmm.apis.base import Inferencer
from frozenmm.apis.image_pipeline import ImagePipeline, batch_of
from frozenmm.apis.model_sources import open_model, read_source
from frozenmm.apis.results import Result
from frozenmm.apis.semantic_inferencer import map_result
from frozenmm.compat.devices import resolve_device
from frozenmm.compat.image_sources import NamedImage
from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import INFERENCERS
from frozenmm.segmentation.fusioner.segmentor import FusionerSegmentor


@INFERENCERS.register_module()
class FusionerInferencer(Inferencer):
    """Segments words with a Fusioner; pixels that fit none of them stay empty.

    Args:
        model: a config; the path of a config file; or the name of a config or of a checkpoint that comes with frozenmm.
        vocabulary: the classes, whatever `Vocabulary.read` understands; by default those of the config.
        weights: checkpoint of the trained part; None takes the zoo's where `model` names one of its checkpoints.
        device: where to compute, see `resolve_device`.
        trust_weights: open a checkpoint that holds pickled objects. It could run code of its author.

    Raises:
        UserError: no such config, checkpoint or device; unusable vocabulary, a config of another model, or weights of
            another model.
    """

    def __init__(self, model: Config | Mapping | str | Path, vocabulary: VocabularySource | None = None, *,
                 weights: str | Path | None = None, device: str | torch.device = 'auto',
                 trust_weights: bool = False) -> None:
        device = resolve_device(device)
        words = None if vocabulary is None else Vocabulary.read(vocabulary)
        cfg, weights = read_source(model, weights)
        cfg = Config(_without_cache(cfg.to_dict()))
        self.model: Any
        self.model, _ = open_model(cfg, weights, kinds=self.models(), wanted='a FusionerSegmentor', device=device,
                                   trusted=trust_weights)
        self.pipeline = ImagePipeline.of_config(cfg)
        if words is not None:
            self.set_vocabulary(words)

    @classmethod
    def models(cls) -> tuple[type, ...]:
        """Fusioner."""
        return (FusionerSegmentor, )

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes in use.

        Raises:
            UserError: there are none.
        """
        found = self.model.decode_head.vocabulary
        if found is None:
            raise UserError('there is no vocabulary: give `vocabulary=[...]` or call set_vocabulary([...])')
        return found

    def set_vocabulary(self, vocabulary: VocabularySource) -> None:
        """Look for these classes from now on."""
        self.model.set_vocabulary(vocabulary)

    @torch.no_grad()
    def predict(self, images: Sequence[NamedImage]) -> list[Result]:
        """Samples with `pred_sem_seg.sem_seg` (1, H, W): class index, -1 where no word fits; and `classes`."""
        words = tuple(self.vocabulary)
        results = []
        # images of different sizes do not share a batch in mmseg's preprocessor
        for image in images:
            item = self.pipeline(image)
            item['data_samples'].set_metainfo(dict(class_names=tuple(entry.name for entry in words)))
            (sample, ) = self.model.test_step(batch_of([item]))
            results.append(map_result(sample.pred_sem_seg.data.cpu().long() - 1, image, words))
        return results


def _without_cache(node: Any) -> Any:
    """The config with feature caches switched off: single pictures do not come back."""
    if isinstance(node, Mapping):
        changed = {key: _without_cache(value) for key, value in node.items()}
        if str(changed.get('type', '')).rpartition('.')[2] == 'CachedTower':
            changed['mode'] = 'off'
        return changed
    if isinstance(node, (list, tuple)):
        return type(node)(_without_cache(value) for value in node)
    return node
