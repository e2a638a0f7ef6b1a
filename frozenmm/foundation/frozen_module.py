"""The contract of everything frozen: weights and statistics that never change, whoever owns the module.

The network stands outside PyTorch's module tree. So it is in nobody's `parameters()`, `buffers()`, `state_dict()`,
`train()`, deep copy, DDP bucket or EMA average, whatever optimizer constructor or wrapper a project uses. In the state
dict a small record stands for it, and a checkpoint made with another network is refused.
"""
from __future__ import annotations

import copy
import hashlib
import json
import weakref
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from frozenmm.errors import UserError, reading
from frozenmm.foundation.lookup import choice

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
GRADIENTS = ('detached', 'through')
_RECORD = 'frozen_record'
T = TypeVar('T')


def fingerprint(network: nn.Module) -> str:
    """Sixteen hex digits that identify names, shapes, types and values of all weights and statistics."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f'{name}|{tuple(value.shape)}|{value.dtype}|'.encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


class FrozenNetwork:
    """A network in eval mode and fixed precision, with its name and fingerprint; shared by all modules that name it.

    Args:
        network: the network with the weights that the fingerprint is to identify.
        name: what errors and records call it.
        precision: `'fp32'`, `'bf16'` or `'fp16'`.
        optimise: rewrites the network, in eval mode, for speed without changing its function (folding of batch norm).
    """

    def __init__(self, network: nn.Module, *, name: str, precision: str = 'fp32',
                 optimise: Callable[[nn.Module], nn.Module] | None = None) -> None:
        choice('precision', precision, PRECISIONS)
        self.name = name
        self.dtype = PRECISIONS[precision]
        unchanged = precision == 'fp32' and optimise is None
        self._fingerprint = None if unchanged else fingerprint(network)
        network = network.requires_grad_(False).eval()
        self.module = (network if optimise is None else optimise(network)).to(self.dtype)
        self.device = next((value.device for value in network.state_dict().values()), torch.device('cpu'))
        self._compiled: Callable | None = None

    @property
    def fingerprint(self) -> str:
        """Digest of the weights as loaded, before any cast or rewriting; computed once, on first use."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.module)
        return self._fingerprint

    @property
    def compiled(self) -> Callable:
        """The network under `torch.compile`, compiled once."""
        if self._compiled is None:
            self._compiled = torch.compile(self.module)
        return self._compiled

    def move(self, apply: Callable[[Tensor], Tensor]) -> None:
        """Follow the device (never the dtype) that `Module._apply`'s function would give a tensor."""
        device = apply(torch.empty(0, dtype=self.dtype, device=self.device)).device
        if device != self.device and device.type != 'meta':
            self.module.to(device)
            self.device = device


_shared: weakref.WeakValueDictionary[Hashable, FrozenNetwork] = weakref.WeakValueDictionary()


def shared_network(key: Hashable, build: Callable[[], nn.Module], *, name: str, precision: str = 'fp32',
                   optimise: Callable[[nn.Module], nn.Module] | None = None) -> FrozenNetwork:
    """The process-wide network of a key: built by the first caller, shared by later ones while anyone uses it.

    Args:
        key: everything that decides weights and architecture (family, model, file, options).
        build: makes the network; called only when no module with this key and precision is alive.
        name: what errors and records call it.
        precision: `'fp32'`, `'bf16'` or `'fp16'`; networks of different precision are not shared.
        optimise: see `FrozenNetwork`.
    """
    key = (key, precision)
    network = _shared.get(key)
    if network is None:
        network = FrozenNetwork(build(), name=name, precision=precision, optimise=optimise)
        _shared[key] = network
    return network


class FrozenModule(nn.Module):
    """A module around a network that never changes.

    Args:
        network: the module to freeze, or a `FrozenNetwork` to share.
        name: what errors and records call it; taken from a `FrozenNetwork`.
        precision: `'fp32'`, `'bf16'` or `'fp16'`, kept whatever autocast or `.half()` says; outputs are float32.
        gradient: `'detached'` runs without autograd; `'through'` lets gradients reach the input, never the weights.
        compile: run the network under `torch.compile`.
    """

    _frozen: FrozenNetwork

    def __init__(self, network: nn.Module | FrozenNetwork, *, name: str = '', precision: str = 'fp32',
                 gradient: str = 'detached', compile: bool = False) -> None:
        super().__init__()
        choice('gradient', gradient, GRADIENTS)
        if not isinstance(network, FrozenNetwork):
            network = FrozenNetwork(network, name=name or type(network).__name__, precision=precision)
        # a plain attribute, so that nn.Module does not adopt the network as a child
        self.__dict__['_frozen'] = network
        self.gradient = gradient
        self.compile_network = compile

    @property
    def network(self) -> nn.Module:
        """The frozen network itself."""
        return self._frozen.module

    @property
    def name(self) -> str:
        """What errors and records call the network."""
        return self._frozen.name

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that identify the weights."""
        return self._frozen.fingerprint

    @property
    def precision(self) -> str:
        """`'fp32'`, `'bf16'` or `'fp16'`."""
        return next(key for key, dtype in PRECISIONS.items() if dtype == self._frozen.dtype)

    def run(self, function: Callable[..., T], *inputs: Tensor) -> T:
        """Call `function(network, *inputs)` under the contract: no autocast, fixed precision, gradient policy.

        Floating inputs are cast to the network's precision, floating outputs (in any nesting) to float32.
        """
        frozen = self._frozen
        for value in inputs:
            if value.device != frozen.device:
                raise ValueError(f'{self.name} is on {frozen.device}, but its input is on {value.device}; '
                                 'move the model or the batch with `.to(device)`')

        def cast(value: object, dtype: torch.dtype) -> object:
            return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        network = frozen.compiled if self.compile_network else frozen.module
        with torch.no_grad() if self.gradient == 'detached' else nullcontext():
            with torch.autocast(frozen.device.type, enabled=False):
                outputs = function(network, *(cast(value, frozen.dtype) for value in inputs))
            return tree_map(lambda value: cast(value, torch.float32), outputs)

    def forward(self, *inputs: Tensor) -> object:
        """The network's output for these tensors, under the contract of `run`."""
        return self.run(lambda network, *tensors: network(*tensors), *inputs)

    def _apply(self, fn: Callable, recurse: bool = True) -> FrozenModule:
        super()._apply(fn, recurse)
        self._frozen.move(fn)
        return self

    def __deepcopy__(self, memo: dict) -> FrozenModule:
        clone = type(self).__new__(type(self))
        memo[id(self)] = clone
        for key, value in self.__dict__.items():
            clone.__dict__[key] = value if key == '_frozen' else copy.deepcopy(value, memo)
        return clone

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        record = json.dumps({'name': self.name, 'fingerprint': self.fingerprint})
        # a tensor, because mmengine moves every entry of a state dict to the CPU
        destination[prefix + _RECORD] = torch.frombuffer(bytearray(record.encode()), dtype=torch.uint8)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        record = state_dict.pop(prefix + _RECORD, None)
        if record is not None:
            with reading(f'the entry {prefix + _RECORD!r} of the checkpoint', 'the record of a frozen network'):
                content = json.loads(bytes(record.cpu().tolist()).decode())
                self._check_record({key: str(content[key]) for key in ('name', 'fingerprint')}, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check_record(self, record: dict[str, str], prefix: str) -> None:
        if record['fingerprint'] != self.fingerprint:
            raise UserError(
                f'the checkpoint was made with the frozen network {record["name"]} (fingerprint '
                f'{record["fingerprint"]}) at {prefix.rstrip(".")!r}, but this model holds {self.name} (fingerprint '
                f'{self.fingerprint}); build the model with the same network and weights file')

    def extra_repr(self) -> str:
        """Name, precision and gradient policy, shown when the model is printed."""
        return f'{self.name}, precision={self.precision}, gradient={self.gradient}'


def frozen_modules(model: nn.Module) -> dict[str, FrozenModule]:
    """All frozen modules of a model by their place in it."""
    return {place: module for place, module in model.named_modules() if isinstance(module, FrozenModule)}
