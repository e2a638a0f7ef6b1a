"""From the taps of a frozen tower to one sequence: batch norm, lateral projection, learned factor, sum."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn

from frozenmm.foundation.lookup import choice

LATERALS = ('mlp', 'linear', 'none')


@dataclass(frozen=True)
class FusionOptions:
    """How taps become one sequence.

    Attributes:
        lateral: `'mlp'` (half as wide inside), `'linear'` or `'none'`.
        residual: add the lateral projection to its input.
        batch_norm: normalise every tap first.

    Raises:
        UnknownName: another kind of projection.
    """

    lateral: str = 'mlp'
    residual: bool = True
    batch_norm: bool = True

    def __post_init__(self) -> None:
        choice('lateral', self.lateral, LATERALS)


class TapNorm(nn.Module):
    """Batch norm over the channels of tokens, its statistics those of valid tokens on all ranks, in float32.

    Parameters and buffers are named as those of `nn.BatchNorm1d`; it is none, because what turns models into ones with
    synchronised norms would replace it by one that counts padding.

    Args:
        channels: C.
        eps: added to the variance.
        momentum: share of a batch in the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer('running_mean', torch.zeros(channels))
        self.register_buffer('running_var', torch.ones(channels))
        self.register_buffer('num_batches_tracked', torch.tensor(0))

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalised tokens.

        Args:
            tokens: (B, T, C).
            valid: (B, T) bool, tokens that count; all by default.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.float()
            mean, variance = self._statistics(tokens, valid) if self.training else (self.running_mean, self.running_var)
            return (tokens - mean) * ((variance + self.eps).rsqrt() * self.weight) + self.bias

    def _statistics(self, tokens: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        weight = tokens.new_ones(tokens.shape[:2]) if valid is None else valid.to(tokens.dtype)
        total = _over_ranks(torch.cat([torch.einsum('btc,bt->c', tokens, weight), weight.sum()[None]]))
        count = total[-1].clamp(min=1)
        mean = total[:-1] / count
        variance = _over_ranks(torch.einsum('btc,bt->c', (tokens - mean).square(), weight)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        return mean, variance


def _over_ranks(value: Tensor) -> Tensor:
    """The sum over all ranks, with gradient."""
    if get_world_size() == 1:
        return value
    from torch.distributed.nn.functional import all_reduce
    return all_reduce(value)


class TapFusion(nn.Module):
    """Taps to one sequence.

    Source: PMT (arXiv 2603.25398), lateral connections.

    Args:
        in_channels: width of every tap.
        channels: width of the sequence; a tap of another width passes a linear layer after its norm.
        options: see `FusionOptions`.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, options: FusionOptions) -> None:
        super().__init__()
        self.residual = options.residual
        self.norms = nn.ModuleList([TapNorm(width) for width in in_channels] if options.batch_norm else [])
        self.inputs = nn.ModuleList([nn.Identity() if width == channels else nn.Linear(width, channels)
                                     for width in in_channels])
        self.laterals = nn.ModuleList([_lateral(channels, options.lateral) for _ in in_channels])
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(channels)) for _ in in_channels])

    def forward(self, taps: Sequence[Tensor], valid: Tensor | None = None) -> Tensor:
        """One sequence (B, T, channels) from taps (B, T, C_i).

        Args:
            taps: in the order of `in_channels`.
            valid: (B, T) bool, tokens that count in the statistics.
        """
        total: Tensor | None = None
        for place, tokens in enumerate(taps):
            if len(self.norms):
                tokens = self.norms[place](tokens, valid)
            tokens = self.inputs[place](tokens)
            lateral = self.laterals[place](tokens)
            lateral = (lateral + tokens if self.residual else lateral) * self.scales[place]
            total = lateral if total is None else total + lateral
        if total is None:
            raise ValueError('there are no taps to fuse')
        return total


def _lateral(channels: int, kind: str) -> nn.Module:
    if kind == 'mlp':
        return nn.Sequential(nn.Linear(channels, channels // 2), nn.GELU(), nn.Linear(channels // 2, channels))
    return nn.Linear(channels, channels) if kind == 'linear' else nn.Identity()
