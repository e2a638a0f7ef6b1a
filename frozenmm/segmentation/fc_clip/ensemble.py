"""Ensemble of the trained (in-vocabulary) and the frozen (out-of-vocabulary) classification of masks."""
from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-8  # official; keeps the logarithm of an impossible class finite


def geometric_ensemble(in_logits: Tensor, out_logits: Tensor, seen: Tensor, *, alpha: float = 0.4, beta: float = 0.8,
                       valid: Tensor | None = None, compat: bool = False, sharpness: float = 1.0,
                       remembered: Tensor | None = None) -> Tensor:
    """Log probabilities from both classifications: their geometric mean, weighted by whether a class was trained.

    Source: FC-CLIP equation 7. The default works in log space and is finite where the official product of powers
    underflows to NaN; wherever the official values are finite, both agree.

    Args:
        in_logits: (B, Q, K+1) of the trained branch, void last.
        out_logits: (B, Q, K) of the frozen branch.
        seen: (K,) bool, classes of the training vocabulary.
        alpha: share of the frozen branch for seen classes.
        beta: share of the frozen branch for unseen classes.
        valid: (B, Q) bool; where False the frozen branch has nothing to say and gets no share.
        compat: the official arithmetic, NaN included.
        sharpness: see `with_void`.
        remembered: (B, Q, K) that examples of classes add to the weighted mean where `valid`; not in the paper.

    Returns:
        (B, Q, K+1) float32: log(P + 1e-8), void last; void's probability is that of the trained branch.
    """
    in_logits, out_logits = in_logits.float(), out_logits.float()
    mix = _official_mix if compat else _log_mix
    mixed = mix(in_logits[..., :-1], out_logits, seen, alpha, beta, valid)
    if remembered is not None:
        mixed = mixed + (remembered if valid is None else remembered * valid[..., None])
    return with_void(mixed, in_logits, sharpness=sharpness)


def with_void(class_logits: Tensor, in_logits: Tensor, *, sharpness: float = 1.0) -> Tensor:
    """Class probabilities from any logits, void as the trained branch has it.

    A query is void in the panoptic result if void is more probable than every single class. So flat class
    probabilities (few training images, the vectors of ConSE) make objects void even where the trained branch is sure
    that there is one; a sharpness above 1 mends that.

    Args:
        class_logits: (B, Q, K).
        in_logits: (B, Q, K+1) of the trained branch, void last.
        sharpness: power that the class probabilities are raised to before they are normalised; 1 officially.

    Returns:
        (B, Q, K+1) float32: log(P + 1e-8), void last.
    """
    void = in_logits.float().softmax(-1)[..., -1:]
    classes = (sharpness * class_logits.float().log_softmax(-1)).softmax(-1) if sharpness != 1 \
        else class_logits.float().softmax(-1)
    return torch.log(torch.cat([classes * (1 - void), void], -1) + EPS)


def _log_mix(in_logits: Tensor, out_logits: Tensor, seen: Tensor, alpha: float, beta: float,
             valid: Tensor | None) -> Tensor:
    trained, frozen = in_logits.log_softmax(-1), out_logits.log_softmax(-1)
    share = torch.where(seen, alpha, beta).to(trained)
    mixed = (1 - share) * trained + share * frozen
    return mixed if valid is None else torch.where(valid[..., None], mixed, trained)


def _official_mix(in_logits: Tensor, out_logits: Tensor, seen: Tensor, alpha: float, beta: float,
                  valid: Tensor | None) -> Tensor:
    # Parity: powers before the logarithm, and products with a 0/1 mask (-inf * 0 is NaN); guarded by test_ensemble.py
    trained, frozen = in_logits.softmax(-1), out_logits.softmax(-1)
    mask = seen.to(trained)
    inside = 1.0 if valid is None else valid[..., None].to(trained)

    def log_product(share: float) -> Tensor:
        return (trained**(1 - share * inside) * frozen**(share * inside)).log()

    return log_product(alpha) * mask + log_product(beta) * (1 - mask)
