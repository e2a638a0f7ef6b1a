"""How sure a frozen dense regressor is: a trained cap on its output that gives a generalised Gaussian per pixel."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.errors import UserError
from frozenmm.foundation.lookup import choice
from frozenmm.registry import MODELS

RESIDUALS = ('power', 'product')
OUTPUTS = ('softplus', 'relu')


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.PReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@MODELS.register_module()
class UncertaintyCap(nn.Module):
    """The network of BayesCap: from a regressor's output to the mean, inverse scale and shape of its distribution.

    Args:
        in_channels: of the output that it gets, which should be about 1 in size.
        channels: width in between.
        num_blocks: residual blocks.
        kernel: of the first and last convolutions.
        output: `'softplus'`, or `'relu'` as in the official code, which can leave pixels without any gradient.

    Source: BayesCap (Upadhyay et al., ECCV 2022); the sizes by default are the official ones (2,568,920 parameters for
    one channel).
    """

    def __init__(self, in_channels: int = 1, *, channels: int = 64, num_blocks: int = 16, kernel: int = 9,
                 output: str = 'softplus') -> None:
        super().__init__()
        self.output = choice('output', output, OUTPUTS)
        if kernel % 2 == 0:
            raise UserError(f'kernel must be odd, got {kernel}')
        near = kernel // 2

        def wide(given: int, made: int) -> nn.Conv2d:
            return nn.Conv2d(given, made, kernel, padding=near)

        def distribution() -> nn.Sequential:
            return nn.Sequential(wide(channels, channels), nn.PReLU(), wide(channels, channels), nn.PReLU(),
                                 wide(channels, 1))

        self.first = nn.Sequential(wide(in_channels, channels), nn.PReLU())
        self.blocks = nn.Sequential(*(_Residual(channels) for _ in range(num_blocks)))
        self.join = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.mean = wide(channels, in_channels)
        self.inverse_scale, self.shape = distribution(), distribution()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (B, C, H, W), inverse scale and shape (B, 1, H, W), neither negative, of values (B, C, H, W)."""
        first = self.first(values)
        x = first + self.join(self.blocks(first))
        positive = F.softplus if self.output == 'softplus' else F.relu
        return self.mean(x), positive(self.inverse_scale(x)), positive(self.shape(x))


@MODELS.register_module()
class GeneralisedGaussianLoss(nn.Module):
    """Trains an `UncertaintyCap`: keep the mean, and fit the distribution of the errors.

    With a' = inverse scale + `scale_floor` and b' = shape + `shape_floor`, over the pixels that are known:
    `identity_weight * mean|mean - values| + fit_weight * mean(r - log a' + lgamma(1/b') - log b')`.

    Args:
        residual: `'power'`, r = (|mean - truth| a')^b' of the generalised Gaussian; or `'product'`, |mean - truth| a'
            b', which the official code computes.
        identity_weight: factor of the first term; `fit_weight` of the second.
        fit_weight: see above.
        scale_floor: see above; likewise `shape_floor`. The official code's example has 1e-5 and 1e-2.
        shape_floor: see above.
        clamp: bounds of r; the official ones.

    Source: BayesCap; the term is the negative logarithm of the density but for the constant log 2.
    """

    def __init__(self, *, residual: str = 'power', identity_weight: float = 1.0, fit_weight: float = 0.05,
                 scale_floor: float = 1e-5, shape_floor: float = 1e-2,
                 clamp: tuple[float, float] = (1e-4, 1e3)) -> None:
        super().__init__()
        self.residual = choice('residual', residual, RESIDUALS)
        self.identity_weight, self.fit_weight = identity_weight, fit_weight
        self.scale_floor, self.shape_floor, self.clamp = scale_floor, shape_floor, clamp

    def forward(self, distribution: tuple[Tensor, Tensor, Tensor], values: Tensor, truth: Tensor,
                known: Tensor | None = None) -> dict[str, Tensor]:
        """`loss_identity` and `loss_fit`, scalars.

        Args:
            distribution: what the cap gave for the values.
            values: (B, C, H, W) of the frozen model.
            truth: (B, C, H, W).
            known: (B, 1, H, W) bool, pixels that count; all by default.
        """
        mean, inverse, shape = (part.float() for part in distribution)
        inverse, shape = inverse + self.scale_floor, shape + self.shape_floor
        error = (mean - truth).abs()
        if self.residual == 'power':
            # the power of 0 has no gradient; the bound below would cut it anyway
            fit = (error * inverse).clamp(min=1e-8) ** shape
        else:
            fit = error * inverse * shape
        fit = fit.clamp(*self.clamp) - inverse.log() + torch.lgamma(1 / shape) - shape.log()
        inside = torch.ones_like(inverse) if known is None else known.to(inverse)
        count = (inside.sum() * mean.shape[1]).clamp(min=1)
        return {'loss_identity': self.identity_weight * ((mean - values).abs() * inside).sum() / count,
                'loss_fit': self.fit_weight * (fit * inside).sum() / count}

    def scale_and_shape(self, inverse_scale: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
        """Scale alpha and shape beta, with the floors under which the loss saw them."""
        return 1 / (inverse_scale.float() + self.scale_floor), shape.float() + self.shape_floor


def deviation(scale: Tensor, shape: Tensor) -> Tensor:
    """Standard deviation of generalised Gaussians: alpha sqrt(Gamma(3/beta) / Gamma(1/beta)), finite throughout.

    Args:
        scale: (...) alpha.
        shape: (...) beta; below 0.1 taken as 0.1, where the deviation is 1.5e13 scales already.
    """
    shape = shape.float().clamp(min=0.1)
    return scale.float() * (0.5 * (torch.lgamma(3 / shape) - torch.lgamma(1 / shape))).exp()


def fitted_to(truth: Tensor, values: Tensor, known: Tensor) -> Tensor:
    """The truth in the values' scale and shift: c * truth + d with the least squares over the known pixels.

    Args:
        truth: (B, 1, H, W); likewise values, of a model whose depth is known up to scale and shift.
        values: see above.
        known: (B, 1, H, W) bool; an image with less than two known pixels, or a constant truth, gets their mean.
    """
    weight = known.double().flatten(1)
    x, y = truth.double().flatten(1), values.double().flatten(1)
    count = weight.sum(1, keepdim=True).clamp(min=1)
    mean_x, mean_y = (x * weight).sum(1, keepdim=True) / count, (y * weight).sum(1, keepdim=True) / count
    spread = (weight * (x - mean_x) ** 2).sum(1, keepdim=True)
    slope = (weight * (x - mean_x) * (y - mean_y)).sum(1, keepdim=True) / spread.clamp(min=1e-12)
    return (mean_y + slope * (x - mean_x)).view_as(truth).to(values.dtype)
