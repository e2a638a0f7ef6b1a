"""The contract of everything frozen: weights and statistics that never change, whoever owns the module.

The network stands outside PyTorch's module tree. So it is in nobody's `parameters()`, `buffers()`, `state_dict()`,
`train()`, deep copy, DDP bucket or EMA average, whatever optimizer constructor or wrapper a project uses. In the state
dict a small record stands for it, and a checkpoint made with another network is refused.
"""
from __future__ import annotations

import copy
import hashlib
import logging
import weakref
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from typing import TypeVar

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from frozenmm.errors import UserError
from frozenmm.foundation.lookup import choice
from frozenmm.foundation.state_records import as_record, read_record

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
GRADIENTS = ('detached', 'through')
_RECORD = 'frozen_record'
_RECORD_SIZE = 256
T = TypeVar('T')


def fingerprint(network: nn.Module) -> str:
    """Sixteen hex digits that identify names, shapes, types and values of all weights and statistics."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f'{name}|{tuple(value.shape)}|{value.dtype}|'.encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _checksum(network: nn.Module) -> list[int]:
    """Sums of all weights' and statistics' bits: one pass over the memory, so that a change is found quickly."""
    sums = [_bits(value.detach()).sum(dtype=torch.int64) for _, value in sorted(network.state_dict().items())
            if value.device.type != 'meta']
    return torch.stack([value.to(sums[0].device) for value in sums]).tolist() if sums else []


def _bits(value: Tensor) -> Tensor:
    value = torch.view_as_real(value) if value.is_complex() else value
    if not value.is_floating_point():
        return value
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return value.contiguous().view(kinds[value.element_size()])


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
        self._sums = _checksum(self.module)
        self.device = next((value.device for value in network.state_dict().values()), torch.device('cpu'))
        self._compiled: Callable | None = None

    @property
    def fingerprint(self) -> str:
        """Digest of the weights as loaded, before any cast or rewriting; a digest of what they are if they changed."""
        if not self.unchanged:
            print_log(f'the weights of the frozen network {self.name} have changed since they were loaded; its '
                      'fingerprint changes with them, and checkpoints fit no other model of this network. Train a '
                      'copy: copy.deepcopy(tower.network)', logger='current', level=logging.WARNING)
            self._fingerprint, self._sums = None, _checksum(self.module)
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.module)
        return self._fingerprint

    @property
    def unchanged(self) -> bool:
        """Whether weights and statistics are those of the fingerprint, by a check of their bits' sums."""
        return self._sums == _checksum(self.module)

    def refuse_training(self) -> None:
        """Refuse parameters that somebody has made trainable, or has put in (adapters).

        Raises:
            UserError: one requires a gradient.
        """
        wanted = next((name for name, value in self.module.named_parameters() if value.requires_grad), None)
        if wanted is not None:
            raise UserError(f'{wanted} of the frozen network {self.name} requires gradients, but the network is shared '
                            'and never trained; train a copy: copy.deepcopy(tower.network)')

    @property
    def compiled(self) -> Callable:
        """The network under `torch.compile`, compiled once."""
        if self._compiled is None:
            self._compiled = torch.compile(self.module)
        return self._compiled

    def move(self, apply: Callable[[Tensor], Tensor]) -> None:
        """Go where `Module._apply`'s function takes a tensor: to a device or into shared memory, never to a dtype."""
        applied = apply(torch.empty(0, dtype=self.dtype, device=self.device))
        device = applied.device
        if device.type == 'cpu' and applied.is_shared():
            self.module.share_memory()
        if device != self.device and device.type != 'meta':
            self.module.to(device)
            self.device = device


_shared: weakref.WeakValueDictionary[Hashable, FrozenNetwork] = weakref.WeakValueDictionary()


def shared_network(key: Hashable, build: Callable[[], nn.Module], *, name: str, precision: str = 'fp32',
                   optimise: Callable[[nn.Module], nn.Module] | None = None) -> FrozenNetwork:
    """The process-wide network of a key: built by the first caller, shared by later ones while anyone uses it.

    A network whose weights somebody has changed stays with its users and is built anew for later ones.

    Args:
        key: everything that decides weights and architecture (family, model, file, options).
        build: makes the network; called only when no module with this key and precision is alive.
        name: what errors and records call it.
        precision: `'fp32'`, `'bf16'` or `'fp16'`; networks of different precision are not shared.
        optimise: see `FrozenNetwork`.
    """
    key = (key, precision)
    network = _shared.get(key)
    if network is None or not network.unchanged:
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
        frozen.refuse_training()
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

    @property
    def frozen_record(self) -> Tensor:
        """Name and fingerprint as bytes of JSON: what stands for the network in a state dict.

        An attribute, because `torch.distributed.checkpoint` looks every key of a state dict up on the model.

        Raises:
            UserError: a weight of the network requires gradients.
        """
        self._frozen.refuse_training()
        # padded to one size, because a distributed checkpoint loads into what is there, and another name's record must
        # arrive to be refused
        return as_record({'name': self.name, 'fingerprint': self.fingerprint}, multiple=_RECORD_SIZE)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + _RECORD] = self.frozen_record

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        record = state_dict.pop(prefix + _RECORD, None)
        if record is None:
            print_log(f'the checkpoint has no {prefix + _RECORD}, so it was not compared with the frozen network '
                      f'{self.name}', logger='current', level=logging.WARNING)
        else:
            content = read_record(record, prefix + _RECORD)
            self._check_record({key: str(content.get(key)) for key in ('name', 'fingerprint')}, prefix)
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
