"""Checkpoints of detectors without frozen maps: their encoder attention grows by the levels that they lack."""
from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from torch import Tensor


def widen_levels(state: dict[str, Tensor], own: dict[str, Tensor], levels: int, heads: int) -> list[str]:
    """Put weights for fewer encoder levels into tensors for all levels; new levels keep their initialisation.

    Args:
        state: the checkpoint's tensors below the detector; changed in place.
        own: the detector's tensors.
        levels: levels of the detector itself, the first ones of its encoder.
        heads: attention heads of the encoder.

    Returns:
        Keys that were widened; none if the checkpoint has all levels already.
    """
    embed = state.get('level_embed')
    total = len(own['level_embed'])
    if embed is None or len(embed) != levels or total == levels:
        return []
    widened = []
    for key, value in own.items():
        # rows of the attention's linear layers are ordered by head, level, and the rest
        groups = 1 if key == 'level_embed' else heads
        if key != 'level_embed' and not (key.startswith('encoder.') and '.self_attn.' in key
                                         and key.split('.')[-2] in ('sampling_offsets', 'attention_weights')):
            continue
        if key not in state or len(state[key]) * total != len(value) * levels:
            continue
        grown = value.detach().clone().to(state[key].dtype)
        view = grown.view(groups, total, -1, *value.shape[1:])
        view[:, :levels] = state[key].to(value.device).view(groups, levels, -1, *value.shape[1:])
        state[key] = grown
        widened.append(key)
    return widened


def grow_encoder(detector: Any, state_dict: dict[str, Tensor], prefix: str, *, levels: int) -> None:
    """Let the weights of a detector without frozen maps grow in a state dict that is about to be loaded.

    Args:
        detector: one with a deformable encoder and `level_embed`.
        state_dict: changed in place.
        prefix: of the detector's keys.
        levels: its own levels.
    """
    state = {key[len(prefix):]: value for key, value in state_dict.items() if key.startswith(prefix)}
    heads = detector.encoder.layers[0].self_attn.num_heads
    widened = widen_levels(state, dict(detector.named_parameters()), levels, heads)
    state_dict.update({prefix + key: state[key] for key in widened})
    if widened:
        print_log(f'the checkpoint knows {levels} encoder levels: attention to {len(detector.level_embed) - levels} '
                  'frozen maps starts from its initialisation', logger='current')
