from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import Tensor, nn

from frozenmm.foundation import FrozenModule, FrozenNetwork, fingerprint, frozen_modules, shared_network
from frozenmm.foundation import frozen_module as contract


class Small(nn.Module):
    """Has everything that training changes: weights, batch statistics, dropout."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in self.parameters():
                value.copy_(torch.randn(value.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.conv(x)))


class Model(nn.Module):
    """A trainable layer after a frozen one."""

    def __init__(self, frozen: FrozenModule) -> None:
        super().__init__()
        self.frozen = frozen
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.frozen(x))


@pytest.fixture
def image(generator: torch.Generator) -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=generator)


def test_nothing_changes_bit_for_bit_through_training_steps(image: Tensor) -> None:
    model = Model(FrozenModule(Small()))
    before = {key: value.clone() for key, value in model.frozen.network.state_dict().items()}
    reference = model.frozen(image)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(image).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in model.frozen.network.state_dict().items())
    assert torch.equal(model.frozen(image), reference)
    assert not model.frozen.network.training


def test_the_network_is_in_no_list_of_the_model() -> None:
    model = Model(FrozenModule(Small()))
    assert {name for name, _ in model.named_parameters()} == {'head.weight', 'head.bias'}
    assert list(model.buffers()) == []
    assert [type(module) for module in model.modules()] == [Model, FrozenModule, nn.Conv2d]
    assert set(model.state_dict()) == {'head.weight', 'head.bias', 'frozen.frozen_record'}


def test_a_deep_copy_shares_the_network(image: Tensor) -> None:
    model = Model(FrozenModule(Small()))
    clone = copy.deepcopy(model)
    assert clone.frozen.network is model.frozen.network
    assert clone.head.weight is not model.head.weight
    assert torch.equal(clone(image), model(image))


def test_an_averaged_model_does_not_copy_the_network() -> None:
    model = Model(FrozenModule(Small()))
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    assert average.module.frozen.network is model.frozen.network


def test_the_same_key_shares_one_network_while_it_is_alive() -> None:
    built = []

    def build() -> nn.Module:
        built.append(1)
        return Small()

    first = FrozenModule(shared_network(('small', 1), build, name='small'))
    second = FrozenModule(shared_network(('small', 1), build, name='small'))
    assert first.network is second.network and len(built) == 1
    other = FrozenModule(shared_network(('small', 1), build, name='small', precision='bf16'))
    assert other.network is not first.network and len(built) == 2
    del first, second
    gc.collect()
    shared_network(('small', 1), build, name='small')
    assert len(built) == 3


def test_a_checkpoint_of_the_same_network_loads_strictly() -> None:
    model, other = Model(FrozenModule(Small())), Model(FrozenModule(Small()))
    result = other.load_state_dict(model.state_dict(), strict=True)
    assert not result.missing_keys and not result.unexpected_keys
    assert torch.equal(other.head.weight, model.head.weight)


def test_a_checkpoint_of_another_network_is_refused_with_both_names() -> None:
    state = Model(FrozenModule(Small(), name='first tower')).state_dict()
    other = Model(FrozenModule(Small(seed=1), name='second tower'))
    with pytest.raises(ValueError, match='first tower .* at \'frozen\', but this model holds second tower'):
        other.load_state_dict(state)


def test_the_fingerprint_tells_values_names_and_types_apart() -> None:
    reference = fingerprint(Small())
    assert fingerprint(Small()) == reference and len(reference) == 16
    assert fingerprint(Small(seed=1)) != reference
    assert fingerprint(Small().double()) != reference
    assert fingerprint(nn.Sequential(Small())) != reference


def test_the_fingerprint_is_that_of_the_weights_as_loaded() -> None:
    def optimise(network: nn.Module) -> nn.Module:
        network.conv.weight.data *= 2
        return network

    reference = fingerprint(Small())
    assert FrozenNetwork(Small(), name='', precision='bf16').fingerprint == reference
    rewritten = FrozenNetwork(Small(), name='', optimise=optimise)
    assert rewritten.fingerprint == reference
    assert torch.equal(rewritten.module.conv.weight, 2 * Small().conv.weight)


@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
def test_precision_stays_under_autocast_and_half(image: Tensor, precision: str) -> None:
    frozen = FrozenModule(Small(), precision=precision)
    dtype = contract.PRECISIONS[precision]
    expected = frozen(image)
    assert expected.dtype == torch.float32
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(frozen(image), expected)
    for cast in (nn.Module.half, nn.Module.double):
        cast(frozen)
        assert frozen.network.conv.weight.dtype == dtype and frozen.precision == precision
    assert torch.equal(frozen(image), expected)


def test_a_detached_network_gives_no_gradient(image: Tensor) -> None:
    image.requires_grad_()
    assert not FrozenModule(Small())(image).requires_grad


def test_a_gradient_through_reaches_the_input_and_not_the_weights(image: Tensor) -> None:
    image.requires_grad_()
    frozen = FrozenModule(Small(), gradient='through')
    frozen(image).square().sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert all(value.grad is None for value in frozen.network.parameters())


def test_outputs_in_any_nesting_become_float32(image: Tensor) -> None:
    frozen = FrozenModule(Small(), precision='bf16')
    result = frozen.run(lambda network, x: {'maps': [network(x)], 'count': torch.arange(2)}, image)
    assert result['maps'][0].dtype == torch.float32 and result['count'].dtype == torch.int64


def test_frozen_modules_are_found_by_place() -> None:
    model = Model(FrozenModule(Small()))
    assert frozen_modules(model) == {'frozen': model.frozen}


def test_moving_to_meta_leaves_the_network() -> None:
    frozen = FrozenModule(Small())
    frozen.to('meta')
    assert frozen.network.conv.weight.device.type == 'cpu'


def test_input_on_another_device_is_refused(image: Tensor) -> None:
    with pytest.raises(ValueError, match='Small is on cpu, but its input is on meta; move the model'):
        FrozenModule(Small())(image.to('meta'))


@pytest.mark.parametrize('options, message', [
    (dict(gradient='both'), 'gradient must be one of .*got \'both\''),
    (dict(precision='int8'), 'precision must be one of .*got \'int8\''),
])
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrozenModule(Small(), **options)


def _trained(network: nn.Module) -> None:
    with torch.no_grad():
        network.conv.weight.add_(1e-3)


def test_a_changed_network_gets_another_record_and_is_refused_by_the_first(caplog):
    model, other = Model(FrozenModule(Small(), name='net')), Model(FrozenModule(Small(), name='net'))
    before = model.state_dict()
    _trained(model.frozen.network)
    after = model.state_dict()
    assert not torch.equal(before['frozen.frozen_record'], after['frozen.frozen_record'])
    with pytest.raises(ValueError, match='was made with the frozen network net'):
        other.load_state_dict(after)
    with pytest.raises(ValueError, match='was made with the frozen network net'):
        model.load_state_dict(before)
    other.load_state_dict(before)


@pytest.mark.parametrize('change', [lambda network: network.conv.weight.data.mul_(2), lambda network:
                                    network.norm.running_mean.add_(1), lambda network: network.conv.weight.data.zero_(),
                                    lambda network: setattr(network, 'conv', nn.Conv2d(3, 4, 3))])
@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_every_way_of_changing_weights_is_noticed(change, precision):
    frozen = FrozenModule(Small(), precision=precision)
    before = frozen.fingerprint
    change(frozen.network)
    assert frozen.fingerprint != before
    assert frozen.fingerprint == frozen.fingerprint


def test_a_trainable_parameter_inside_is_refused_when_it_runs_and_when_it_is_saved():
    frozen = FrozenModule(Small(), name='net', gradient='through')
    frozen.network.conv.adapter = nn.Parameter(torch.zeros(2))  # as LoRA puts them in
    for use in (lambda: frozen(torch.zeros(1, 3, 4, 4)), frozen.state_dict):
        with pytest.raises(ValueError, match='conv.adapter of the frozen network net requires gradients.*train a copy'):
            use()


def test_a_changed_network_is_no_longer_shared():
    first = FrozenModule(shared_network('a key', Small, name='net'))
    assert shared_network('a key', Small, name='net') is first._frozen
    _trained(first.network)
    second = FrozenModule(shared_network('a key', Small, name='net'))
    assert second._frozen is not first._frozen and fingerprint(second.network) == fingerprint(Small())


def test_a_checkpoint_without_record_is_loaded_with_a_warning(monkeypatch):
    said = []
    monkeypatch.setattr(contract, 'print_log', lambda text, **_: said.append(text))
    model = Model(FrozenModule(Small(), name='net'))
    state = {key: value for key, value in model.state_dict().items() if 'frozen_record' not in key}
    model.load_state_dict(state)
    assert len(said) == 1 and 'has no frozen.frozen_record, so it was not compared' in said[0]


@pytest.mark.parametrize('record', [torch.zeros(0, dtype=torch.uint8), torch.full((9, ), 255, dtype=torch.uint8),
                                    torch.ones(2, 2), torch.tensor(1), 'text', None, 7])
def test_a_garbage_record_is_a_sentence(record):
    model = Model(FrozenModule(Small(), name='net'))
    state = model.state_dict() | {'frozen.frozen_record': record}
    if record is None:
        model.load_state_dict(state)  # as good as none
        return
    with pytest.raises(ValueError, match="the entry 'frozen.frozen_record' of the checkpoint cannot be read"):
        model.load_state_dict(state)
