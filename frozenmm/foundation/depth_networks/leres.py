"""LeReS as a frozen depth network, from the official files. Weights: non-commercial use (AdelaiDepth)."""
from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.errors import MissingFile
from frozenmm.foundation.depth_networks.base import DepthNetwork, DepthPrediction, check_images
from frozenmm.foundation.depth_networks.leres_network import STAGES, LeReSNetwork
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.lookup import choice
from frozenmm.foundation.state_match import load_strictly
from frozenmm.foundation.weights import build_network, random_seed, weights_folder, weights_key
from frozenmm.registry import MODELS

INPUT_SIDE = 448
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILES = {'resnext101': 'res101.pth', 'resnet50': 'res50.pth'}
"""Names of the official files by encoder; the AdelaiDepth repository (folder LeReS) says where they lie."""


def official_state(checkpoint: dict) -> dict[str, Tensor]:
    """The depth network's part of an official checkpoint, in the names of `LeReSNetwork`.

    The file holds `depth_model`, `shift_model` and `focal_model`; keys of the first begin with `depth_model.` once
    more, some files with `module.` before it.
    """
    state = checkpoint.get('depth_model', checkpoint)
    for prefix in ('module.', 'depth_model.'):
        if state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix):]: value for key, value in state.items()}
    return state


@MODELS.register_module()
class LeReS(DepthNetwork):
    """Affine-invariant depth by LeReS.

    Args:
        encoder: `'resnext101'` or `'resnet50'`.
        weights: path of an official file (`res101.pth`, `res50.pth`); None for the one in the cache folder;
            `'random'`.
        precision: see `FrozenModule`.

    Raises:
        UserError: unknown encoder, or a file that does not fit it.
        MissingFile: no such file.
    """

    kind = 'affine_depth'

    def __init__(self, encoder: str = 'resnext101', *, weights: str | Path | None = None,
                 precision: str = 'fp32') -> None:
        choice('encoder', encoder, STAGES)
        network = shared_network(('leres', encoder, weights_key(weights)), lambda: self._build(encoder, weights),
                                 name=f'LeReS {encoder}', precision=precision)
        super().__init__(network)

    @staticmethod
    def _build(encoder: str, weights: str | Path | None) -> nn.Module:
        name = f'LeReS {encoder}'
        if random_seed(weights) is not None:
            return build_network(lambda: LeReSNetwork(encoder), weights, None, name=name)
        path = Path(weights).expanduser() if weights is not None else weights_folder() / FILES[encoder]
        if not path.is_file():
            raise MissingFile(
                f'{name} needs the official file {FILES[encoder]}, and {path.absolute()} does not exist. Fetch it as '
                'github.com/aim-uofa/AdelaiDepth (LeReS) describes, then put it there or give its path as `weights`')
        network = LeReSNetwork(encoder)
        load_strictly(network, official_state(load_checkpoint_file(path)), name=name, source=str(path))
        return network

    def predict(self, images: Tensor) -> DepthPrediction:
        """Depth (B, H, W), at least 0.01 in every image, and the encoder's stride-32 map.

        The image is squashed to 448x448. The minimum is subtracted per image; the official code, which only knows
        single images, does so over the batch.
        """
        images = check_images(images, 'LeReS')
        size = images.shape[2:]
        squashed = F.interpolate(images, (INPUT_SIDE, INPUT_SIDE), mode='bilinear', align_corners=False) / 255
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (MEAN, STD))
        depth, features = self.run(lambda network, x: network(x), (squashed - mean) / std)
        depth = depth - depth.amin((1, 2, 3), keepdim=True) + 0.01
        resized = F.interpolate(depth, size, mode='bilinear', align_corners=False)[:, 0]
        return DepthPrediction(resized, self.kind, features)
