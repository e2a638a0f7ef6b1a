"""`optimize(model)`: what makes any model of mmdet or mmseg faster in inference, results unchanged to about 1e-5.

Three means, all by the class of modules, in place: parameters, buffers, hooks and names stay, so checkpoints load and
save as before, and training or a gradient computes as before.

- deformable attention runs on our operators (`accelerate`);
- a batch norm is folded into the convolution before it, whose weights are kept channels-last;
- attention of mmcv does not make the attention weights that nobody reads.

`torch.compile` is no part of it: it compiles anew for every size of pictures, which takes minutes on a CPU.
"""
from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from frozenmm.errors import WrongKind
from frozenmm.ops import loader
from frozenmm.ops.accelerate import accelerate_own
from frozenmm.ops.accelerate import restore as restore_operators

_ATTENTION = ('mmcv.cnn.bricks.transformer', 'MultiheadAttention.forward')
_RESNETS = ('mmdet.models.backbones.resnet', 'mmseg.models.backbones.resnet')
_CONV_MODULE = ('mmcv.cnn.bricks.conv_module', 'ConvModule.forward')
_SEQUENTIAL = ('torch.nn.modules.container', 'Sequential.forward')


@dataclass
class OptimizationReport:
    """What `optimize` did, by names of modules in the model.

    Attributes:
        operators: deformable attention that now runs our operators.
        folded: batch norms that are now part of the convolution before them.
        attention: attention that no longer makes its weights.
        already: what an earlier call had done.
        skipped: what was left alone, with the reason.
    """

    operators: list[str] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)
    attention: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line."""
        text = (f'optimize: {len(self.operators)} deformable attentions on our operators, {len(self.folded)} batch '
                f'norms folded, {len(self.attention)} attentions without weights')
        if self.already:
            text += f', {len(self.already)} done before'
        for name, reason in self.skipped.items():
            text += f'; {name} is left alone ({reason})'
        return text


class FoldedConv2d(nn.Conv2d):
    """A convolution that does the work of the batch norm behind it, outside training and without a gradient."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Conv2d`, and as the norm behind it if that is passed through."""
        norm = self.__dict__['_norm'][0]
        if not _passes(norm):
            return super().forward(input)
        sources = [tensor for tensor in (self.weight, self.bias, norm.weight, norm.bias, norm.running_mean,
                                         norm.running_var) if tensor is not None]
        state = [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version, tensor.dtype)
                 for tensor in sources]
        if self.__dict__.get('_state') != state:  # weights were loaded or moved since
            self.__dict__['_state'], self.__dict__['_folded'] = state, _fold(self, norm)
        return self._conv_forward(input, *self.__dict__['_folded'])


class PassedNorm2d(nn.BatchNorm2d):
    """A batch norm that the convolution before it has done."""

    def forward(self, input: Tensor) -> Tensor:
        """The input itself, where `FoldedConv2d` does the work."""
        return input if _passes(self) else super().forward(input)


class LeanAttention(nn.MultiheadAttention):
    """Attention inside mmcv's module, which reads the result only."""

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention`, without weights; forwards to it."""
        return super().forward(*args, **{**kwargs, 'need_weights': False})


def _passes(norm: nn.BatchNorm2d) -> bool:
    """Whether a folded norm is passed through now; a compiler must see the plain modules."""
    return not (norm.training or torch.is_grad_enabled() or torch.compiler.is_compiling())


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of both together, in float64 until the end."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError('a batch norm without statistics cannot be folded')
    scale = (variance.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean.double() if conv.bias is None else conv.bias.double() - mean.double()
    bias = shift * scale if norm.bias is None else shift * scale + norm.bias.double()
    weight = (conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype)
    return weight.contiguous(memory_format=torch.channels_last), bias.to(conv.weight.dtype)


def optimize(model: nn.Module, *, quiet: bool = False) -> OptimizationReport:
    """Make a model faster in inference, in place; `restore(model)` undoes it bit for bit.

    Call it before or after a checkpoint is loaded; it may be called again. Frozen networks of towers are not touched.

    Args:
        model: any module, on any device.
        quiet: log for debugging only.

    Returns:
        What was done, and what was not and why. It is logged as one line too.

    Raises:
        WrongKind: `model` is no `nn.Module`.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    >>> print(optimize(model).folded, restore(model))
    ['1'] ['0', '1']
    """
    if not isinstance(model, nn.Module):
        raise WrongKind(f'optimize takes a built model (nn.Module), got {type(model).__name__}; build it first, e.g. '
                        'with MODELS.build(cfg.model)')
    report = OptimizationReport()
    _use_operators(model, report)
    _fold_norms(model, report)
    module: Any
    for name, module in model.named_modules():
        if isinstance(module, LeanAttention):
            report.already.append(name)
        elif _forward_of(module) == _ATTENTION and type(module.attn) is nn.MultiheadAttention:
            module.attn.__class__ = LeanAttention
            report.attention.append(f'{name}.attn' if name else 'attn')
    print_log(str(report), logger='current', level=logging.DEBUG if quiet else logging.INFO)
    return report


def restore(model: nn.Module) -> list[str]:
    """Undo `optimize` and `accelerate` in place; returns the names of the modules that are as they were."""
    names = []
    for name, module in model.named_modules():
        if isinstance(module, (FoldedConv2d, PassedNorm2d, LeanAttention)):
            module.__class__ = type(module).__mro__[1]
            for key in ('_norm', '_state', '_folded'):
                module.__dict__.pop(key, None)
            names.append(name)
    return names + restore_operators(model)


def _use_operators(model: nn.Module, report: OptimizationReport) -> None:
    found = accelerate_own(model)
    report.operators, report.already = found.replaced, list(found.already)
    report.skipped.update(found.skipped)
    if not any(library.loaded for library in loader.load().values()):
        report.skipped['deformable attention'] = 'no compiled kernels are loaded'


def _forward_of(module: nn.Module) -> tuple[str, str]:
    """Where the forward of a module comes from: what is known of it holds for subclasses that inherit it only."""
    forward = type(module).forward
    return forward.__module__, getattr(forward, '__qualname__', '')


def _pairs(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Name of a norm, the module before it and the norm, wherever code is known to call them in turn."""
    module: Any
    for name, module in model.named_modules():
        place, function = _forward_of(module)
        if place in _RESNETS:
            for number in '123':
                before, norm = getattr(module, f'conv{number}', None), getattr(module, f'norm{number}_name', None)
                if before is not None and norm is not None and hasattr(module, norm):
                    yield f'{name}.{norm}'.lstrip('.'), before, getattr(module, norm)
        elif (place, function) == _CONV_MODULE:
            if module.with_norm and tuple(module.order[:2]) == ('conv', 'norm') and \
                    module.efficient_conv_bn_eval_forward is None:
                yield f'{name}.{module.norm_name}'.lstrip('.'), module.conv, module.norm
        elif (place, function) == _SEQUENTIAL:
            children = list(module.named_children())
            for (_, before), (key, norm) in zip(children, children[1:]):
                yield f'{name}.{key}'.lstrip('.'), before, norm


def _fold_norms(model: nn.Module, report: OptimizationReport) -> None:
    pairs = [(name, conv, norm) for name, conv, norm in _pairs(model)
             if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    uses: dict[int, set[int]] = {}
    for _, conv, norm in pairs:
        uses.setdefault(id(conv), set()).add(id(norm))
        uses.setdefault(id(norm), set()).add(id(conv))
    for name, conv, norm in pairs:
        if isinstance(conv, FoldedConv2d) and isinstance(norm, PassedNorm2d):
            if name not in report.folded:
                report.already.append(name)
        elif len(uses[id(conv)]) > 1 or len(uses[id(norm)]) > 1:
            report.skipped[name] = 'it shares its convolution with other norms'
        elif type(conv) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d or norm.running_mean is None:
            report.skipped[name] = f'a {type(norm).__name__} behind a {type(conv).__name__}'
        elif conv.padding_mode != 'zeros' or conv._forward_hooks or 'forward' in vars(conv) or 'forward' in vars(norm):
            report.skipped[name] = 'hooks or another forward read what lies between'
        else:
            conv.__class__, norm.__class__ = FoldedConv2d, PassedNorm2d
            conv.__dict__['_norm'] = (norm, )  # in a tuple, so that it is no child of the convolution
            report.folded.append(name)
