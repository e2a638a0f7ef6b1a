"""Images in, depth out: the frozen depth networks on single pictures."""
from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from frozenmm.apis.base import Inferencer
from frozenmm.apis.image_pipeline import ImagePipeline, batch_of
from frozenmm.apis.label_pictures import picture_bytes
from frozenmm.apis.model_sources import build_model, load_weights, read_source
from frozenmm.compat.devices import resolve_device
from frozenmm.compat.files import write_whole
from frozenmm.compat.image_sources import NamedImage
from frozenmm.engine.explain import explained_building
from frozenmm.errors import UserError, WrongKind
from frozenmm.foundation.depth_networks import DepthNetwork
from frozenmm.registry import INFERENCERS, MODELS, installed
from frozenmm.visualization.depth import draw_depth


@dataclass(frozen=True)
class DepthMap:
    """Depth of one image.

    Attributes:
        values: (H, W) float32 at the image's size.
        kind: `'affine_depth'`, `'affine_disparity'` or `'metric'`, see `DepthPrediction`.
    """

    values: np.ndarray
    kind: str


@INFERENCERS.register_module()
class DepthInferencer(Inferencer):
    """Runs a depth network, or a depth estimator of mmseg with the test pipeline of its config, on pictures.

    For poses and a mesh from a video see `frozenmm.reconstruction`.

    Args:
        model: a built depth network; its config, e.g. `dict(type='frozenmm.HFDepth', folder='...')`; or a whole config,
            its file or its name.
        weights: checkpoint of the trained part of a whole config.
        device: where to compute, see `resolve_device`.
        trust_weights: open a checkpoint that holds pickled objects. It could run code of its author.

    Attributes:
        model: the depth network, or the depth estimator.

    Raises:
        WrongKind: the config builds something else.
        UserError: no such config, checkpoint or device; the network's weights are not there, the text says where they
            come from.
    """

    def __init__(self, model: DepthNetwork | Config | Mapping[str, Any] | str | Path, *,
                 weights: str | Path | None = None, device: str | torch.device = 'auto',
                 trust_weights: bool = False) -> None:
        self.device = resolve_device(device)
        self.pipeline: ImagePipeline | None = None
        if isinstance(model, Mapping) and not isinstance(model, Config) and 'type' in model:
            with explained_building():
                model = MODELS.build(dict(model))
            if not isinstance(model, DepthNetwork):
                raise WrongKind(f'the model must be a depth network, got {type(model).__name__}')
        elif not isinstance(model, DepthNetwork):
            cfg, weights = read_source(model, weights)
            model = build_model(cfg)
            if not isinstance(model, self.models()):
                raise WrongKind(f'the config builds a {type(model).__name__}; a depth network or a depth estimator of '
                                'mmseg is needed')
            if not isinstance(model, DepthNetwork):
                self.pipeline = ImagePipeline.of_config(cfg)
        if weights is not None and self.pipeline is None:
            raise UserError('a depth network brings its own weights; state them in its config')
        if weights is not None:
            load_weights(model, weights, trusted=trust_weights)
        self.model: Any = model.to(self.device).eval()

    @classmethod
    def models(cls) -> tuple[type, ...]:
        """Depth networks, and what predicts depth maps in mmseg."""
        if not (installed('mmseg') and installed('mmdet')):
            return (DepthNetwork, )
        from mmseg.models.segmentors.depth_estimator import DepthEstimator

        from frozenmm.reconstruction.mmseg_depth.estimators import FrozenDepthEstimator
        return DepthNetwork, DepthEstimator, FrozenDepthEstimator

    @property
    def network(self) -> nn.Module:
        """The depth network itself."""
        return getattr(self.model, 'network', self.model) if self.pipeline is not None else self.model

    @torch.no_grad()
    def predict(self, images: Sequence[NamedImage]) -> list[DepthMap]:
        """Depth of each image; sizes may differ."""
        return [self._network(image) if self.pipeline is None else self._estimator(image, self.pipeline)
                for image in images]

    def _network(self, image: NamedImage) -> DepthMap:
        pixels = torch.tensor(image.pixels).permute(2, 0, 1)[None].to(self.device)
        prediction = self.model.predict(pixels)
        return DepthMap(prediction.values[0].float().cpu().numpy(), prediction.kind)

    def _estimator(self, image: NamedImage, pipeline: ImagePipeline) -> DepthMap:
        (sample, ) = self.model.test_step(batch_of([pipeline(image)]))
        # an estimator turns disparity into depth; that it is metric is only known of a network that says so
        metric = getattr(self.network, 'kind', None) == 'metric'
        return DepthMap(sample.pred_depth_map.data[0].float().cpu().numpy(), 'metric' if metric else 'affine_depth')

    def draw(self, image: NamedImage, result: DepthMap, *, min_score: float | None = None) -> np.ndarray:
        """(H', W', 3) uint8 RGB, the picture beside its depth, near parts warm."""
        return draw_depth(image.pixels, result.values, nearer_is_larger=result.kind == 'affine_disparity')

    def write(self, folder: Path, image: NamedImage, result: DepthMap, *, min_score: float | None = None) -> list[Path]:
        """Write `NAME_depth.npy` (float32), `NAME_overlay.png` (drawn) and `NAME.json` (kind and range)."""
        paths = [folder / f'{image.name}{ending}' for ending in ('_depth.npy', '_overlay.png', '.json')]
        buffer = io.BytesIO()
        np.save(buffer, result.values)
        write_whole(paths[0], buffer.getvalue())
        write_whole(paths[1], picture_bytes(self.draw(image, result)))
        low, middle, high = (float(value) for value in np.percentile(result.values, (1, 50, 99)))
        write_whole(paths[2], json.dumps(dict(
            image=image.path or image.name, kind=result.kind, height=result.values.shape[0],
            width=result.values.shape[1], percentiles={'1': low, '50': middle, '99': high},
            file_name=paths[0].name), indent=1).encode())
        return paths

    def summary(self, result: DepthMap, *, min_score: float | None = None) -> str:
        """Kind and range of the depth."""
        low, high = np.percentile(result.values, (1, 99))
        return f'{result.kind}, 1 % to 99 %: {low:.3g} to {high:.3g}'
