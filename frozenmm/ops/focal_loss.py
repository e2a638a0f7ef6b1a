"""Focal losses with the arguments of mmcv's compiled functions.

Source: Lin et al., Focal Loss for Dense Object Detection (ICCV 2017), equations 4 and 5.
"""
from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Fill `output` (N, K) with the focal loss of every logit; mmdet asks for it on CUDA only.

    Args:
        input: (N, K) logits.
        target: (N,) int64 class index, K for background.
        weight: (K,) factor by target class, or empty.
        output: (N, K).
        gamma: focusing exponent.
        alpha: weight of positives.
    """
    positive, log_p, log_n = _sigmoid_terms(input, target)
    loss = torch.where(positive, -alpha * (log_n.exp())**gamma * log_p, -(1 - alpha) * (log_p.exp())**gamma * log_n)
    output.copy_(loss * _by_target(weight, target))


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float,
                                alpha: float) -> None:
    """Fill `grad_input` (N, K) with the derivative of `sigmoid_focal_loss_forward` by its logits."""
    positive, log_p, log_n = _sigmoid_terms(input, target)
    p, n = log_p.exp(), log_n.exp()
    grad = torch.where(positive, alpha * n**gamma * (gamma * p * log_p - n),
                       -(1 - alpha) * p**gamma * (gamma * n * log_n - p))
    grad_input.copy_(grad * _by_target(weight, target))


def _sigmoid_terms(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which logits are positives, log p and log (1 - p)."""
    positive = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    return positive, functional.logsigmoid(logits), functional.logsigmoid(-logits)


def _by_target(weight: Tensor, target: Tensor) -> Tensor | float:
    if weight.numel() == 0:
        return 1.0
    return torch.cat([weight, weight.new_ones(1)])[target][:, None]


def softmax_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Fill `output` (N,) with the focal loss of every row.

    Args:
        input: (N, K) probabilities, rows that sum to 1.
        target: (N,) int64 class index; a negative one has no loss.
        weight: (K,) factor by target class, or empty.
        output: (N,).
        gamma: focusing exponent.
        alpha: weight of the loss.
    """
    p, log_p, factor = _softmax_terms(input, target, weight)
    output.copy_(-alpha * (1 - p)**gamma * log_p * factor)


def softmax_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor,
                                gamma: float, alpha: float) -> None:
    """Fill `grad_input` (N, K) with the derivative of `softmax_focal_loss_forward` by the logits of the softmax.

    Args:
        input: (N, K) probabilities.
        target: (N,) int64.
        weight: (K,) or empty.
        buff: (N,), filled with p times the derivative by p.
        grad_input: (N, K).
        gamma: focusing exponent.
        alpha: weight of the loss.
    """
    p, log_p, factor = _softmax_terms(input, target, weight)
    rest = 1 - p
    # gamma * rest^(gamma - 1) * p * log p goes to 0 where the row is certain, whatever gamma is
    steep = torch.where(rest > 0, gamma * rest.clamp(min=torch.finfo(p.dtype).tiny)**(gamma - 1) * p * log_p, 0.0)
    buff.copy_(alpha * (steep - rest**gamma) * factor)
    one_hot = target[:, None] == torch.arange(input.shape[1], device=input.device)
    grad_input.copy_(buff[:, None] * (one_hot.to(input.dtype) - input))


def _softmax_terms(probabilities: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probability of the target, its logarithm, and the row's factor: its weight, 0 without a target."""
    known = target >= 0
    index = target.clamp(min=0)
    p = probabilities.gather(1, index[:, None])[:, 0]
    factor = known.to(p.dtype) if weight.numel() == 0 else weight[index] * known
    return p, p.clamp(min=torch.finfo(torch.float32).tiny).log(), factor
