"""The demonstration model that stands in for SAM: its tower and prompter. Weights: Apache-2.0, made by this project.

It was trained on generated scenes alone (`configs/frozen_seg/demo_sam_lite0_scenes.py`). It lets everything around SAM
run offline and small; it is no replacement for SAM's weights.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from typing_extensions import Unpack

from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.demo.sam.network import DemoSAMHead, DemoSAMNetwork
from frozenmm.foundation.frozen_module import fingerprint, shared_network
from frozenmm.foundation.image_tower import ImageTower, RawFeatures, TowerInput, TowerOptions
from frozenmm.foundation.image_towers.efficientnet_lite import INPUT, embedded_weights
from frozenmm.foundation.image_towers.efficientnet_lite_network import EfficientNetLite, fold
from frozenmm.foundation.mask_prompters import MaskPrompter
from frozenmm.foundation.weights import build_network, random_seed, weights_key, weights_note
from frozenmm.registry import MODELS
from frozenmm.structures import TowerFeatures

STRIDES = {'mask': 4, 'neck': 8, 'coarse': 16}
_SHIPPED = 'demo-sam-lite0-*.safetensors'


def shipped_weights() -> Path:
    """The file of the trained part that comes with frozenmm.

    Raises:
        FileNotFoundError: it is not there; the text says how to make it.
    """
    folder = Path(__file__).parents[2] / 'zoo' / 'weights'
    files = sorted(folder.glob(_SHIPPED))
    if not files:
        raise FileNotFoundError(f'{folder / _SHIPPED} is missing; check frozenmm out or install it again, or train the '
                                'demonstration model: python tools/train.py '
                                'configs/frozen_seg/demo_sam_lite0_scenes.py')
    return files[-1]


def build_demo_sam(weights: str | Path | None, sizes: Mapping[str, Any], *, trunk: str | Path | None = None,
                   name: str = 'demonstration SAM') -> DemoSAMNetwork:
    """The network.

    Args:
        weights: file of the trained part; None for the shipped one; `'random'`.
        sizes: options of `DemoSAMHead`.
        trunk: weights of EfficientNet-Lite0; None for the embedded package; `'random'`.
        name: what errors call it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file belongs to other sizes or to another trunk.
    """
    body = build_network(EfficientNetLite, embedded_weights() if trunk is None else trunk, None,
                         name=f'{name}, EfficientNet-Lite0')
    path = shipped_weights() if weights is None else weights
    if random_seed(path) is None:
        _check_trunk(Path(path), body, name)
    # not on the meta device: the frequencies of the positions are drawn by the network itself
    head = build_network(lambda: DemoSAMHead(**sizes), path, None, name=f'{name}, trained part', on_meta=False)
    return DemoSAMNetwork(body, head)


def _check_trunk(path: Path, trunk: nn.Module, name: str) -> None:
    if path.suffix != '.safetensors' or not path.is_file():
        return  # a training checkpoint checks its tower itself; a missing file is told by `build_network`
    base = load_checkpoint_file(path).get('meta', {}).get('base_models')
    if isinstance(base, Mapping) and base and fingerprint(trunk) not in base.values():
        named = ', '.join(f'{key} (fingerprint {value})' for key, value in base.items())
        raise ValueError(f'the weights {path} of {name} were trained on the frozen network {named}, but the '
                         f'EfficientNet-Lite0 at hand has the fingerprint {fingerprint(trunk)}; use the weights of the '
                         'pinned package')


def _fold_trunk(network: nn.Module) -> nn.Module:
    fold(cast(DemoSAMNetwork, network).trunk)
    return network


@MODELS.register_module()
class DemoSAMTower(ImageTower):
    """Image features of the demonstration model: the map `'neck'` (64 channels, stride 8), where SAM's would stand.

    Args:
        weights: file of the trained part; None for the shipped one; `'random'`.
        model: options of `DemoSAMHead`, for other sizes than the shipped ones.
        trunk: weights of EfficientNet-Lite0; None for the embedded package; `'random'`.
        precision: see `FrozenModule`.
        **options: of `ImageTower`; `resize_mode` is `'pad'`, `size` 256 and `out_maps` `('neck',)` by default. The
            decoder of `DemoSAMPrompter` also needs `'mask'` (stride 4) and `'coarse'` (stride 16).
    """

    def __init__(self, weights: str | Path | None = None, *, model: Mapping[str, Any] | None = None,
                 trunk: str | Path | None = None, precision: str = 'fp32', **options: Unpack[TowerOptions]) -> None:
        name = 'demonstration SAM' + weights_note(weights)
        sizes = dict(model or {})
        network = shared_network(
            ('DemoSAM', weights_key(weights), weights_key(trunk), tuple(sorted(sizes.items()))),
            lambda: build_demo_sam(weights, sizes, trunk=trunk, name=name), name=name, precision=precision,
            optimise=_fold_trunk)
        head = cast(DemoSAMNetwork, network.module).head
        width, fine = head.neck.reduce.linear.in_features, head.neck.reduce.linear.out_features
        options = {'resize_mode': 'pad', 'out_maps': ('neck', ), **options}
        super().__init__(network, input=TowerInput(INPUT.stats, 256, INPUT.patch, 'bilinear'), strides=STRIDES,
                         channels={'mask': fine, 'neck': width, 'coarse': width}, **options)

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        """See `ImageTower.extract`. There is no class token; image tokens are means of the last map's cells."""
        return RawFeatures(maps=network(pixels))


@MODELS.register_module()
class DemoSAMPrompter(MaskPrompter):
    """The demonstration model that stands in for SAM where its weights are not at hand; trained on generated scenes.

    Args:
        weights, model, trunk, precision: see `DemoSAMTower`.
        size: side of the input in pixels, a multiple of 32; 256 is that of training.
    """

    def __init__(self, weights: str | Path | None = None, *, model: Mapping[str, Any] | None = None,
                 trunk: str | Path | None = None, size: int | None = None, precision: str = 'fp32') -> None:
        super().__init__(DemoSAMTower(weights, model=model, trunk=trunk, precision=precision, size=size,
                                      out_maps=('mask', 'neck', 'coarse')))

    def decode(self, features: TowerFeatures, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """See `MaskPrompter.decode`."""
        names = list(features.maps)

        def run(network: nn.Module, places: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor]:
            head = cast(DemoSAMNetwork, network).head
            logits, predicted = head.decode(dict(zip(names, maps)), places[None], labels[None])
            return logits[0], predicted[0]

        return self.tower.run(run, points / self.tower.size, *features.maps.values())
