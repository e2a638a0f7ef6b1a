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

from frozenmm.apis.base import Inferencer
from frozenmm.compat.image_sources import NamedImage
from frozenmm.apis.result_files import png
from frozenmm.compat.files import write_whole
from frozenmm.engine.explain import explained_registry_misses
from frozenmm.foundation.depth_networks import DepthNetwork
from frozenmm.registry import INFERENCERS, MODELS
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
    """Runs a depth network on pictures; for poses and a mesh from a video see `frozenmm.reconstruction`.

    Args:
        network: a built depth network, or its config, e.g. `dict(type='frozenmm.HFDepth', folder='...')`.
        device: where to compute.

    Raises:
        TypeError: the config builds something else.
        FileNotFoundError: the network's weights are not there; the text says where they come from.
    """

    def __init__(self, network: DepthNetwork | Mapping[str, Any], *, device: str | torch.device = 'cpu') -> None:
        if not isinstance(network, DepthNetwork):
            with explained_registry_misses():
                network = MODELS.build(dict(network))
            if not isinstance(network, DepthNetwork):
                raise TypeError(f'network must be a depth network, got {type(network).__name__}')
        self.network = network.to(device)
        self.device = torch.device(device)

    def predict(self, images: Sequence[NamedImage]) -> list[DepthMap]:
        """Depth of each image; sizes may differ."""
        found = []
        for image in images:
            pixels = torch.tensor(image.pixels).permute(2, 0, 1)[None].to(self.device)
            prediction = self.network.predict(pixels)
            found.append(DepthMap(prediction.values[0].float().cpu().numpy(), prediction.kind))
        return found

    def draw(self, image: NamedImage, result: DepthMap, *, min_score: float = 0.0) -> np.ndarray:
        """(H', W', 3) uint8 RGB, the picture beside its depth, near parts warm."""
        return draw_depth(image.pixels, result.values, nearer_is_larger=result.kind == 'affine_disparity')

    def write(self, folder: Path, image: NamedImage, result: DepthMap, *, min_score: float = 0.0) -> list[Path]:
        """Write `NAME_depth.npy` (float32), `NAME_overlay.png` (drawn) and `NAME.json` (kind and range)."""
        paths = [folder / f'{image.name}{ending}' for ending in ('_depth.npy', '_overlay.png', '.json')]
        buffer = io.BytesIO()
        np.save(buffer, result.values)
        write_whole(paths[0], buffer.getvalue())
        write_whole(paths[1], png(self.draw(image, result)))
        low, middle, high = (float(value) for value in np.percentile(result.values, (1, 50, 99)))
        write_whole(paths[2], json.dumps(dict(
            image=image.path or image.name, kind=result.kind, height=result.values.shape[0],
            width=result.values.shape[1], percentiles={'1': low, '50': middle, '99': high},
            file_name=paths[0].name), indent=1).encode())
        return paths

    def summary(self, result: DepthMap, *, min_score: float = 0.0) -> str:
        """Kind and range of the depth."""
        low, high = np.percentile(result.values, (1, 99))
        return f'{result.kind}, 1 % to 99 %: {low:.3g} to {high:.3g}'
