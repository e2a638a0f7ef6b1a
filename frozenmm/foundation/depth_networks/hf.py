"""Depth models of transformers: Depth-Anything v1 and v2, DPT and MiDaS, ZoeDepth, GLPN."""
from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.compat import require
from frozenmm.foundation.depth_networks.base import DEPTH_KINDS, DepthNetwork, DepthPrediction, check_images
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.registry import MODELS

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_KINDS = {'dpt': 'affine_disparity', 'depth_anything': 'affine_disparity', 'zoedepth': 'metric', 'glpn': 'metric',
          'depth_pro': 'metric', 'prompt_depth_anything': 'metric'}
"""What a model type predicts unless its config says more."""


def prediction_kind(config: dict) -> str:
    """Kind of the prediction of a model with this config.json.

    Raises:
        ValueError: an unknown model type.
    """
    model_type = config.get('model_type')
    if model_type not in _KINDS:
        raise ValueError(f'config.json describes a model of type {model_type!r}; known depth models: {sorted(_KINDS)}. '
                         'Give `kind` to use another one')
    if model_type == 'depth_anything' and config.get('depth_estimation_type') == 'metric':
        return 'metric'
    return _KINDS[model_type]


@MODELS.register_module()
class HFDepth(DepthNetwork):
    """A depth model from a folder in transformers' layout.

    Args:
        folder: holds config.json and the weights.
        kind: `'affine_depth'`, `'affine_disparity'` or `'metric'`; by default as the config says. DPT models finetuned
            on NYU or KITTI are metric, which their config does not say.
        short_side: of the network's input in pixels, rounded to whole patches; the aspect is kept.
        multiple: sides of the input are multiples of it (14 for Depth-Anything, 32 otherwise).
        mean: of the normalisation, in 0..1.
        std: of the normalisation.
        precision: see `FrozenModule`.

    Raises:
        FileNotFoundError: no such folder, or no config.json in it.
        ValueError: an unknown model type or kind.
    """

    def __init__(self, folder: str | Path, *, kind: str | None = None, short_side: int = 518,
                 multiple: int | None = None, mean: tuple[float, float, float] = _MEAN,
                 std: tuple[float, float, float] = _STD, precision: str = 'fp32') -> None:
        folder = Path(folder).expanduser()
        file = folder / 'config.json'
        if not file.is_file():
            raise FileNotFoundError(f'depth model folder {folder.absolute()} holds no config.json; give a folder in '
                                    'the layout of transformers')
        config = json.loads(file.read_text(encoding='utf-8'))
        kind = kind or prediction_kind(config)
        if kind not in DEPTH_KINDS:
            raise ValueError(f'kind must be one of {list(DEPTH_KINDS)}, got {kind!r}')
        name = f'{config.get("model_type")} {folder.name}'
        super().__init__(shared_network(('hf-depth', str(folder.resolve())), lambda: self._build(folder), name=name,
                                        precision=precision))
        self.kind, self.short_side, self.mean, self.std = kind, short_side, mean, std
        self.multiple = multiple or (14 if 'depth_anything' in str(config.get('model_type')) else 32)

    @staticmethod
    def _build(folder: Path) -> nn.Module:
        transformers = require('transformers', 'HFDepth')
        return transformers.AutoModelForDepthEstimation.from_pretrained(folder, local_files_only=True)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Size (height, width) at which the network sees an image of this size."""
        factor = self.short_side / min(height, width) / self.multiple
        return tuple(max(1, round(side * factor)) * self.multiple for side in (height, width))  # type: ignore

    def predict(self, images: Tensor) -> DepthPrediction:
        """Depth or disparity (B, H, W), at least 1e-6."""
        images = check_images(images, 'HFDepth')
        size = images.shape[2:]
        resized = F.interpolate(images, self.input_size(*size), mode='bicubic', align_corners=False, antialias=True)
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (self.mean, self.std))
        values = self.run(lambda network, x: network(pixel_values=x).predicted_depth, (resized / 255 - mean) / std)
        values = F.interpolate(values[:, None], size, mode='bilinear', align_corners=False)[:, 0]
        return DepthPrediction(values.clamp(min=1e-6), self.kind)
