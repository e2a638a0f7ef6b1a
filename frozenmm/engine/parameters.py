"""Numbers of parameters, frozen networks included."""
from __future__ import annotations

from torch import nn

from frozenmm.foundation import frozen_modules


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Numbers of trained and of frozen parameters; networks that several modules share count once."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    still = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    networks = {id(module.network): module.network for module in frozen_modules(model).values()}
    still += sum(parameter.numel() for network in networks.values() for parameter in network.parameters())
    return trained, still
