"""`accelerate(model)`: deformable attention of mmcv and of transformers runs on our operators, results unchanged.

It changes the class of the modules that have a faster form here, in place: their parameters, buffers, hooks and names
stay, so state dicts, optimizers and `isinstance` checks do not notice. `restore(model)` undoes it.

Detectors and inferencers of frozenmm call `accelerate_own` on what they have built. The alternative, to exchange mmcv's
function for everybody in the process, would change models that never asked for it.
"""
from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from mmengine.logging import print_log
from torch import Tensor, nn

from frozenmm.deprecation import moved_names
from frozenmm.errors import WrongKind
from frozenmm.ops import loader
from frozenmm.ops.deformable_attention import AttentionLayers, attend_and_add
from frozenmm.ops.mmcv_names import ms_deform_attn_forward

_CLASS = 'MultiScaleDeformableAttention'
_MMCV = 'mmcv.ops.multi_scale_deform_attn'
_TRANSFORMERS = 'transformers.models.'
_TRANSFORMERS_ARGUMENTS = ('self', 'value', 'value_spatial_shapes', 'value_spatial_shapes_list', 'level_start_index',
                           'sampling_locations', 'attention_weights', 'im2col_step')
_NAME = f'Accelerated{_CLASS}'


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
        if not (self.replaced or self.already or self.skipped):
            return f'{text}; looked for {_CLASS} of mmcv and of transformers'
        if self.already:
            text += f', {len(self.already)} did before'
        for name, reason in self.skipped.items():
            text += f'; {name} is left alone ({reason})'
        return text


def _forward_of_mmcv(self: AttentionLayers, query: Tensor, key: Tensor | None = None, value: Tensor | None = None,
                     identity: Tensor | None = None, query_pos: Tensor | None = None,
                     key_padding_mask: Tensor | None = None, reference_points: Tensor | None = None,
                     spatial_shapes: Tensor | None = None, level_start_index: Tensor | None = None,
                     residual: Tensor | None = None, **ignored: object) -> Tensor:
    identity = residual if identity is None else identity  # `residual` is mmcv's older name of it
    return attend_and_add(self, query, value, identity, query_pos, key_padding_mask, reference_points,
                          spatial_shapes, level_start_index)


def _forward_of_transformers(self: nn.Module, value: Tensor, value_spatial_shapes: Tensor,
                             value_spatial_shapes_list: list[tuple[int, int]], level_start_index: Tensor,
                             sampling_locations: Tensor, attention_weights: Tensor, im2col_step: int) -> Tensor:
    return ms_deform_attn_forward(value, value_spatial_shapes, level_start_index, sampling_locations,
                                  attention_weights, im2col_step)


def _is_foreign(kind: type) -> bool:
    return kind.__name__ == _CLASS and (kind.__module__ == _MMCV or kind.__module__.startswith(_TRANSFORMERS))


def _known_forward(kind: type[nn.Module]) -> Callable[..., Tensor] | None:
    """Our forward for a class of mmcv or transformers; None where it is neither, or takes other arguments."""
    if not _is_foreign(kind):
        return None
    if kind.__module__ == _MMCV:
        return _forward_of_mmcv
    taken = tuple(inspect.signature(kind.forward).parameters)
    return _forward_of_transformers if taken == _TRANSFORMERS_ARGUMENTS else None


def _accelerated_name(module: str) -> str:
    """The name in this module of the faster class, by which pickle finds it again."""
    return _NAME if module == _MMCV else f'{_NAME}__{module.replace(".", "__")}'


def _accelerated_class(foreign: type[nn.Module]) -> type[nn.Module]:
    """The subclass of a foreign class with our forward, made once."""
    name = _accelerated_name(foreign.__module__)
    if name not in globals():
        globals()[name] = type(name, (foreign, ), {
            'forward': _known_forward(foreign), '__module__': __name__, '__qualname__': name,
            '__doc__': f'{foreign.__module__}.{_CLASS} on the operators of frozenmm.'})
    return globals()[name]


_old_names = moved_names(__name__, removed_in='0.3', AccelerateReport=f'{__name__}.AccelerationReport')


def __getattr__(name: str) -> object:
    if name.startswith(_NAME):  # pickle asks for the class in a fresh process
        source = importlib.import_module(name.removeprefix(f'{_NAME}__').replace('__', '.') if name != _NAME else _MMCV)
        return _accelerated_class(getattr(source, _CLASS))
    return _old_names(name)


def accelerate(model: nn.Module) -> AccelerationReport:
    """Let every deformable attention of mmcv or transformers below `model` run on our operator, in place.

    Covers DETR-type encoders and decoders and the pixel decoders of Mask2Former in mmdet and mmseg, and the models of
    transformers whose `MultiScaleDeformableAttention` is that of Deformable DETR (Deformable DETR, Grounding DINO,
    RT-DETR, ...). Call it again after building new parts. Results agree to about 1e-6 relative in
    float32; under autocast they are nearer to float32 than mmcv's, because locations stay float32.

    Args:
        model: any module, on any device, before or after a checkpoint is loaded.

    Returns:
        What was replaced, by module name. It is logged as one line too.

    Raises:
        WrongKind: `model` is no `nn.Module`.

    >>> print(accelerate(nn.Sequential(nn.Linear(2, 2))).replaced)
    []
    """
    report = _accelerate(model)
    print_log(str(report), logger='current', level=logging.INFO)
    return report


def accelerate_own(model: nn.Module) -> AccelerationReport:
    """`accelerate` for models that frozenmm builds itself: quietly, and only where compiled kernels are loaded.

    So `FROZENMM_OPS=torch` leaves mmcv's own path in place.
    """
    if not any(library.loaded for library in loader.load().values()):
        return AccelerationReport()
    report = _accelerate(model)
    if report.replaced:
        print_log(str(report), logger='current', level=logging.DEBUG)
    return report


def _accelerate(model: nn.Module) -> AccelerationReport:
    if not isinstance(model, nn.Module):
        raise WrongKind(f'accelerate takes a built model (nn.Module), got {type(model).__name__}; build it first, e.g. '
                        'with MODELS.build(cfg.model)')
    report = AccelerationReport()
    for name, module in model.named_modules():
        kind = type(module)
        if _is_accelerated(kind):
            report.already.append(name)
        elif _known_forward(kind) is not None and 'forward' not in vars(module):
            module.__class__ = _accelerated_class(kind)
            report.replaced.append(name)
        elif any(_is_foreign(parent) for parent in kind.__mro__):
            report.skipped[name] = f'{kind.__name__} may have a forward of its own'
    return report


def _is_accelerated(kind: type) -> bool:
    return kind.__module__ == __name__ and kind.__name__.startswith(_NAME)


def restore(model: nn.Module) -> list[str]:
    """Undo `accelerate` in place; returns the names of the modules that are foreign again."""
    names = []
    for name, module in model.named_modules():
        if _is_accelerated(type(module)):
            module.__class__ = type(module).__mro__[1]
            names.append(name)
    return names
