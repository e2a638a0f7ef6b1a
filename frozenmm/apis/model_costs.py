"""What a config costs: trained and frozen parameters, multiply-adds of one image, bytes of a checkpoint."""
from __future__ import annotations

import inspect
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from frozenmm.apis.choose import find_inferencer, inferencer
from frozenmm.apis.model_sources import build_model, model_class
from frozenmm.compat.image_sources import NamedImage
from frozenmm.engine.parameters import count_parameters
from frozenmm.foundation import FrozenModule
from frozenmm.registry import MODELS

WORDS = ['cat', 'cup', 'ground']


@dataclass(frozen=True)
class Costs:
    """Of one config.

    Attributes:
        trained: parameters that learn.
        frozen: parameters that do not; a network that several modules share counts once.
        checkpoint_bytes: of the state dict, which is what a checkpoint holds beside optimizer and log.
        macs: multiply-adds of one image, convolutions and matrix products only (deformable sampling is not counted);
            None for a model without inferencer.
    """

    trained: int
    frozen: int
    checkpoint_bytes: int
    macs: int | None


def model_costs(cfg: Config, *, size: tuple[int, int] = (480, 640), random_towers: bool = False) -> Costs:
    """Build the model of a config and measure.

    Args:
        cfg: the config.
        size: height and width of the image, before the config's own resizing.
        random_towers: give towers random weights, so that nothing needs to be fetched.

    Raises:
        UserError: weights of a tower are not here.
    """
    if random_towers:
        cfg = Config(_with_random_weights(cfg.to_dict(), cfg.get('default_scope', 'mmdet')))
    chosen = None if find_inferencer(model_class(cfg)) is None else inferencer(cfg, device='cpu')
    model: nn.Module = build_model(cfg) if chosen is None else chosen.model  # type: ignore[attr-defined]
    trained, frozen = count_parameters(model)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    macs = None
    if chosen is not None:
        model.requires_grad_(False)  # the counter hooks into autograd wherever a parameter asks for it
        if hasattr(chosen, 'set_vocabulary'):
            chosen.set_vocabulary(WORDS)
        with FlopCounterMode(display=False) as counter:
            chosen.predict([NamedImage('image', np.zeros((*size, 3), np.uint8))])
        macs = counter.get_total_flops() // 2
    return Costs(trained, frozen, buffer.getbuffer().nbytes, macs)


def costs_table(rows: Mapping[str, Costs | str]) -> str:
    """A Markdown table; a string in place of costs says why there are none."""
    lines = ['| config | trained | frozen | multiply-adds | checkpoint |', '| --- | --- | --- | --- | --- |']
    for name, row in rows.items():
        if isinstance(row, str):
            lines.append(f'| `{name}` | not built: {row} | | | |')
        else:
            macs = '-' if row.macs is None else f'{row.macs / 1e9:.2f} G'
            lines.append(f'| `{name}` | {row.trained / 1e6:.2f} M | {row.frozen / 1e6:.2f} M | {macs} | '
                         f'{row.checkpoint_bytes / 1e6:.1f} MB |')
    return '\n'.join(lines)


def _with_random_weights(node: Any, scope: str) -> Any:
    """The config with `weights='random'` in every frozen module that takes weights and has none from a package."""
    if isinstance(node, Mapping):
        changed = {key: _with_random_weights(value, scope) for key, value in node.items()}
        if isinstance(changed.get('type'), str):
            with DefaultScope.overwrite_default_scope(scope):
                kind = MODELS.get(changed['type'])
            if inspect.isclass(kind) and issubclass(kind, FrozenModule) and kind.__name__ not in _EMBEDDED \
                    and 'weights' in inspect.signature(kind.__init__).parameters:
                changed['weights'] = 'random'
        return changed
    if isinstance(node, (list, tuple)):
        return type(node)(_with_random_weights(value, scope) for value in node)
    return node


_EMBEDDED = ('EfficientNetLiteTower', 'MiniLMTextTower')
