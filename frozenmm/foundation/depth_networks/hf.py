"""Depth models of transformers: Depth-Anything v1 and v2, DPT and MiDaS, ZoeDepth, GLPN."""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.compat import require
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.foundation.depth_networks.base import DEPTH_KINDS, DepthNetwork, DepthPrediction, check_images
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.lookup import choice
from frozenmm.registry import MODELS

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_KINDS = {'dpt': 'affine_disparity', 'depth_anything': 'affine_disparity', 'zoedepth': 'metric', 'glpn': 'metric',
          'depth_pro': 'metric', 'prompt_depth_anything': 'metric'}
"""What a model type predicts unless its config says more."""


def prediction_kind(config: dict) -> str:
    """Kind of the prediction of a model with this config.json.

    Raises:
        UserError: an unknown model type.
    """
    model_type = config.get('model_type')
    if model_type not in _KINDS:
        raise UserError(f'config.json describes a model of type {model_type!r}; known depth models: {sorted(_KINDS)}. '
                         'Give `kind` to use another one')
    if model_type == 'depth_anything' and config.get('depth_estimation_type') == 'metric':
        return 'metric'
    return _KINDS[model_type]


@dataclass(frozen=True)
class _Preprocessing:
    """How a model wants its images; read from preprocessor_config.json, where the folder has one."""

    size: tuple[int, int]
    keep_aspect: bool
    multiple: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, folder: Path, config: dict, side: int | None) -> _Preprocessing:
        file = folder / 'preprocessor_config.json'
        given = json.loads(file.read_text(encoding='utf-8')) if file.is_file() else {}
        size = given.get('size') or {}
        fixed = config.get('model_type') == 'dpt' and not config.get('backbone_config')
        default = int(config.get('image_size', 384)) if fixed else 518
        height, width = (side or int(size.get(key, default)) for key in ('height', 'width'))
        normalised = given.get('do_normalize', True)
        # a plain DPT has a square table of positions and takes nothing else
        return cls((height, width), bool(given.get('keep_aspect_ratio', True)) and not fixed,
                   int(given.get('ensure_multiple_of') or (14 if 'anything' in str(config.get('model_type')) else 32)),
                   tuple(given.get('image_mean', _MEAN)) if normalised else (0.0, 0.0, 0.0),
                   tuple(given.get('image_std', _STD)) if normalised else (1.0, 1.0, 1.0))

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        if not self.keep_aspect:
            return self.size
        factor = min(self.size) / min(height, width) / self.multiple
        return max(1, round(height * factor)) * self.multiple, max(1, round(width * factor)) * self.multiple


@MODELS.register_module()
class HFDepth(DepthNetwork):
    """A depth model from a folder in transformers' layout.

    Args:
        folder: holds config.json and the weights; preprocessor_config.json, where it is there, gives size and
            normalisation of the input.
        kind: `'affine_depth'`, `'affine_disparity'` or `'metric'`; by default as the config says. DPT models finetuned
            on NYU or KITTI are metric, which their config does not say.
        side: shorter side of the network's input in pixels, rounded to whole patches; by default the model's own.
        precision: see `FrozenModule`.

    Raises:
        MissingFile: no such folder, or no config.json in it.
        UserError: an unknown model type or kind.
    """

    def __init__(self, folder: str | Path, *, kind: str | None = None, side: int | None = None,
                 precision: str = 'fp32') -> None:
        folder = Path(folder).expanduser()
        file = folder / 'config.json'
        if not file.is_file():
            raise MissingFile(f'depth model folder {folder.absolute()} holds no config.json; give a folder in '
                                    'the layout of transformers')
        with reading(file, 'the config of a depth model', 'fetch it again'):
            config = dict(json.loads(file.read_text(encoding='utf-8')))
        kind = kind or prediction_kind(config)
        choice('kind', kind, DEPTH_KINDS)
        name = f'{config.get("model_type")} {folder.name}'
        super().__init__(shared_network(('hf-depth', str(folder.resolve())), lambda: self._build(folder), name=name,
                                        precision=precision))
        with reading(folder / 'preprocessor_config.json', 'the preprocessing of a depth model', 'fetch it again'):
            self.kind, self.preprocessing = kind, _Preprocessing.read(folder, config, side)

    @staticmethod
    def _build(folder: Path) -> nn.Module:
        transformers = require('transformers', 'HFDepth')
        with reading(folder, 'a depth model', 'fetch the folder again'):
            return transformers.AutoModelForDepthEstimation.from_pretrained(folder, local_files_only=True,
                                                                            trust_remote_code=False)

    def predict(self, images: Tensor) -> DepthPrediction:
        """Depth or disparity (B, H, W), at least 1e-6."""
        images = check_images(images, 'HFDepth')
        size, wanted = images.shape[2:], self.preprocessing
        resized = F.interpolate(images, wanted.input_size(size[0], size[1]), mode='bicubic', align_corners=False,
                                antialias=True)
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (wanted.mean, wanted.std))
        values = self.run(lambda network, x: network(pixel_values=x).predicted_depth, (resized / 255 - mean) / std)
        values = F.interpolate(values[:, None], size, mode='bilinear', align_corners=False)[:, 0]
        return DepthPrediction(values.clamp(min=1e-6), self.kind)
