"""Adapters behind frozen towers that a frozen teacher keeps from forgetting what training does not show."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.errors import UserError
from frozenmm.registry import MODELS


class ResidualBranch(nn.Module):
    """z + scale * W2 GELU(W1 z), with W2 = 0 at the start, so that it begins as the identity.

    Args:
        channels: width C of the vectors.
        hidden: width in between; C by default.
        scale: of what is added.
    """

    def __init__(self, channels: int, *, hidden: int | None = None, scale: float = 0.1) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Linear(channels, hidden or channels)
        self.second = nn.Linear(hidden or channels, channels)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (..., C) to the same shape."""
        return vectors + self.scale * self.second(F.gelu(self.first(vectors)))


@MODELS.register_module()
class ResidualTeacher(BaseModule):
    """Holds a trained adapter to the frozen features before it, through a branch that may say where they differ.

    The loss is `weight * mean(1 - cos(z + 0.1 W2 GELU(W1 z), teacher))`. The branch is used in training only: what the
    adapter learns for its task and the teacher does not know goes through it, and the rest stays.
    In mmseg it is the `auxiliary_head` of a model whose neck is a `TaughtAdapter`; elsewhere call `distance`, with text
    vectors and their frozen ones likewise.

    Args:
        in_channels: width C of both maps.
        student: place of the adapter's map among those of the neck.
        teacher: place of the frozen map; the last by default.
        hidden: see `ResidualBranch`; likewise scale.
        loss_weight: factor of the loss.
        init_cfg: see mmengine's `BaseModule`.

    Source: FROSTER (Huang et al., ICLR 2024), residual feature distillation; there it stands behind a tuned CLIP for
    videos, here behind an adapter for any frozen tower. The start at zero and the weight 2 are theirs.
    """

    def __init__(self, in_channels: int, *, student: int = 0, teacher: int = -1, hidden: int | None = None,
                 scale: float = 0.1, loss_weight: float = 2.0, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.branch = ResidualBranch(in_channels, hidden=hidden, scale=scale)
        self.student, self.teacher, self.loss_weight = student, teacher, loss_weight

    def init_weights(self) -> None:
        """Nothing: the branch starts as the identity."""

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar, of vectors (..., C) of the adapter and of the frozen teacher, which gets no gradient."""
        with torch.autocast(student.device.type, enabled=False):
            taught = self.branch(student.float())
            return self.loss_weight * (1 - F.cosine_similarity(taught, teacher.detach().float(), dim=-1)).mean()

    def loss(self, inputs: Sequence[Tensor], batch_data_samples: Sequence[object] = (),
             train_cfg: Mapping[str, object] | None = None) -> dict[str, Tensor]:
        """`loss_teacher` of maps (B, C, h, w), the adapter's and the frozen one among them.

        Raises:
            UserError: the two maps have different shapes.
        """
        student, teacher = inputs[self.student], inputs[self.teacher]
        if student.shape != teacher.shape:
            raise UserError(f'map {self.student} has the shape {tuple(student.shape)} and its teacher, map '
                            f'{self.teacher}, {tuple(teacher.shape)}; name the map that the adapter was given')
        return {'loss_teacher': self.distance(student.movedim(1, -1), teacher.movedim(1, -1))}


@MODELS.register_module()
class TaughtAdapter(BaseModule):
    """A neck that puts a trained adapter behind one frozen map and hands the frozen map on beside it.

    The adapter is `map + W2 GELU(W1 map)` in every cell and starts as the identity.

    Args:
        in_channels: widths of the backbone's maps.
        adapt: place of the map that is adapted.
        hidden: width in the adapter.
        init_cfg: see mmengine's `BaseModule`.

    Raises:
        UserError: there is no map at `adapt`.
    """

    def __init__(self, in_channels: Sequence[int], *, adapt: int = -1, hidden: int = 64,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if not -len(in_channels) <= adapt < len(in_channels):
            raise UserError(f'adapt must be the place of one of the {len(in_channels)} maps, got {adapt}')
        self.adapt = adapt % len(in_channels)
        self.branch = ResidualBranch(in_channels[adapt], hidden=hidden, scale=1.0)

    def init_weights(self) -> None:
        """Nothing: the adapter starts as the identity."""

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The maps (B, C, h, w), one of them adapted, and behind them that one as it came, for `ResidualTeacher`."""
        frozen = inputs[self.adapt]
        maps = list(inputs)
        maps[self.adapt] = self.branch(frozen.movedim(1, -1)).movedim(-1, 1)
        return (*maps, frozen)
