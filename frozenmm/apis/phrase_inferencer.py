"""Pictures and phrases in, the mask of each phrase out: F-LMM on any frozen multimodal model."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement, InstanceData

from frozenmm.apis.base import Inferencer
from frozenmm.apis.coco_entries import named_classes
from frozenmm.apis.model_sources import open_model, read_source
from frozenmm.apis.results import Result
from frozenmm.compat.devices import resolve_device
from frozenmm.compat.image_sources import NamedImage
from frozenmm.errors import UserError
from frozenmm.registry import INFERENCERS
from frozenmm.segmentation.f_lmm.grounder import FrozenLMMGrounder
from frozenmm.segmentation.f_lmm.refiner import box_around


@INFERENCERS.register_module()
class PhraseInferencer(Inferencer):
    """The mask of every phrase on every picture, as instances whose classes are the phrases.

    Args:
        model: a config of `frozenmm.FrozenLMMGrounder`, its file or name, or None where the weights bring it.
        vocabulary: the phrases; all stand in one text, so each may colour what the others find.
        weights: checkpoint of the trained part.
        device: where to compute, see `resolve_device`.
        trust_weights: open a checkpoint that holds pickled objects. It could run code of its author.

    Raises:
        UserError: no such config, checkpoint or device, or another model.
    """

    def __init__(self, model: Config | Mapping | str | Path | None, vocabulary: Sequence[str] = (), *,
                 weights: str | Path | None = None, device: str | torch.device = 'auto',
                 trust_weights: bool = False) -> None:
        cfg, weights = read_source(model, weights)
        self.model: Any
        self.model, _ = open_model(cfg, weights, kinds=self.models(), wanted='a FrozenLMMGrounder',
                                   device=resolve_device(device), trusted=trust_weights)
        self.phrases = list(vocabulary)

    @classmethod
    def models(cls) -> tuple[type, ...]:
        """F-LMM."""
        return (FrozenLMMGrounder, )

    def set_vocabulary(self, phrases: Sequence[str]) -> None:
        """Look for other phrases from now on."""
        with self.turn:
            self.phrases = list(phrases)

    @torch.no_grad()
    def predict(self, images: Sequence[NamedImage]) -> list[Result]:
        """Instances of each picture; an instance's score is the mean probability inside its mask.

        Raises:
            UserError: no phrase was given.
        """
        if not self.phrases:
            raise UserError('there is no phrase to look for; give `vocabulary=[...]`, or call `set_vocabulary([...])`')
        device, results = self.model.layer_weights.device, []
        for image in images:
            picture = torch.from_numpy(image.pixels.copy()).permute(2, 0, 1).to(device)
            probability = self.model.ground(picture, self.phrases)[1].sigmoid().cpu()
            masks = probability > 0.5
            scores = (probability * masks).flatten(1).sum(1) / masks.flatten(1).sum(1).clamp(min=1)
            found = InstanceData(masks=masks, scores=scores, labels=torch.arange(len(masks)),
                                 bboxes=torch.stack([box_around(mask) for mask in masks]))
            shown = found[masks.flatten(1).any(1)]
            results.append(Result.of(BaseDataElement(pred_instances=shown), image, named_classes(self.phrases)))
        return results
