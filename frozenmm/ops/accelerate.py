"""`accelerate(model)`: any built mmdet or mmseg model uses our operators, with the same parameters and results.

It changes the class of the modules that have a faster form here, in place: their parameters, buffers, hooks and names
stay, so state dicts, optimizers and `isinstance` checks do not notice. `restore(model)` undoes it.
"""
from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field

from mmengine.logging import print_log
from torch import Tensor, nn

from frozenmm.deprecation import moved_names
from frozenmm.errors import WrongKind
from frozenmm.ops.deformable_attention import AttentionLayers, attend_and_add

_FOREIGN = ('mmcv.ops.multi_scale_deform_attn', 'MultiScaleDeformableAttention')
_NAME = 'AcceleratedMultiScaleDeformableAttention'


@dataclass
class AccelerationReport:
    """What `accelerate` did, by names of modules in the model.

    Attributes:
        replaced: now run our operators.
        already: ran them before the call.
        skipped: look like candidates and were left alone, with the reason.
    """

    replaced: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line: how many modules, and what was skipped."""
        text = f'accelerate: {len(self.replaced)} deformable attention modules use frozenmm.ops'
        if self.already:
            text += f', {len(self.already)} did before'
        for name, reason in self.skipped.items():
            text += f'; {name} is left alone ({reason})'
        return text


def _foreign_class() -> type[nn.Module] | None:
    """Mmcv's class if this process has imported it; a model that holds one has."""
    module = sys.modules.get(_FOREIGN[0])
    return None if module is None else getattr(module, _FOREIGN[1])


def _accelerated_class() -> type[nn.Module]:
    """The subclass of mmcv's module with our forward, made once, found by pickle under its name in this module."""
    if _NAME in globals():
        return globals()[_NAME]
    foreign = _foreign_class()
    if foreign is None:
        import mmcv.ops.multi_scale_deform_attn as source  # pickle asks for the class in a fresh process
        foreign = getattr(source, _FOREIGN[1])

    def forward(self: AttentionLayers, query: Tensor, key: Tensor | None = None, value: Tensor | None = None,
                identity: Tensor | None = None, query_pos: Tensor | None = None,
                key_padding_mask: Tensor | None = None, reference_points: Tensor | None = None,
                spatial_shapes: Tensor | None = None, level_start_index: Tensor | None = None,
                residual: Tensor | None = None, **ignored: object) -> Tensor:
        identity = residual if identity is None else identity  # `residual` is mmcv's older name of it
        return attend_and_add(self, query, value, identity, query_pos, key_padding_mask, reference_points,
                              spatial_shapes, level_start_index)

    made = type(_NAME, (foreign, ), {'forward': forward, '__module__': __name__, '__qualname__': _NAME,
                                     '__doc__': 'mmcv\'s deformable attention module on the operators of frozenmm.'})
    globals()[_NAME] = made
    return made


_old_names = moved_names(__name__, removed_in='0.3', AccelerateReport=f'{__name__}.AccelerationReport')


def __getattr__(name: str) -> object:
    if name == _NAME:
        return _accelerated_class()
    return _old_names(name)


def accelerate(model: nn.Module) -> AccelerationReport:
    """Let every mmcv `MultiScaleDeformableAttention` below `model` run on our operator, in place.

    Covers DETR-type encoders and decoders and the pixel decoders of Mask2Former in mmdet and mmseg. Call it again after
    building new parts. Results agree to about 1e-6 relative in float32; under autocast they are nearer to float32 than
    mmcv's, because locations stay float32.

    Args:
        model: any module, on any device, before or after a checkpoint is loaded.

    Returns:
        What was replaced, by module name. It is logged as one line too.

    Raises:
        WrongKind: `model` is no `nn.Module`.

    >>> print(accelerate(nn.Sequential(nn.Linear(2, 2))))
    accelerate: 0 deformable attention modules use frozenmm.ops
    """
    if not isinstance(model, nn.Module):
        raise WrongKind(f'accelerate takes a built model (nn.Module), got {type(model).__name__}; build it first, e.g. '
                        'with MODELS.build(cfg.model)')
    report, foreign = AccelerationReport(), _foreign_class()
    for name, module in model.named_modules():
        if foreign is None or not isinstance(module, foreign):
            continue
        if type(module) is foreign and 'forward' not in vars(module):
            module.__class__ = _accelerated_class()
            report.replaced.append(name)
        elif _NAME in globals() and type(module) is globals()[_NAME]:
            report.already.append(name)
        else:
            report.skipped[name] = f'{type(module).__name__} may have a forward of its own'
    print_log(str(report), logger='current', level=logging.INFO)
    return report


def restore(model: nn.Module) -> list[str]:
    """Undo `accelerate` in place; returns the names of the modules that are mmcv's again."""
    names = []
    for name, module in model.named_modules():
        if _NAME in globals() and type(module) is globals()[_NAME]:
            module.__class__ = type(module).__mro__[1]
            names.append(name)
    return names
