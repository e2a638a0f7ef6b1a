"""What the tests of the foundation share: recorded cases, tiny towers, the embedded text encoder."""
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from frozenmm.errors import MissingPackage


@dataclass
class Case:
    """A recorded case: parameters, tolerance, and its tensors by role."""

    params: dict
    tolerance: dict[str, float]
    inputs: dict[str, Tensor]
    weights: dict[str, Tensor]
    outputs: dict[str, Tensor]

    def check(self, name: str, found: Tensor) -> None:
        torch.testing.assert_close(found, self.outputs[name], **self.tolerance)


@pytest.fixture
def golden_case(golden_dir: Path) -> Callable[[str, str], Case]:
    def read(system: str, name: str) -> Case:
        folder = golden_dir / system / name
        description = json.loads((folder / 'case.json').read_text())
        tensors = load_file(folder / 'tensors.safetensors')
        roles: dict[str, dict[str, Tensor]] = {'in': {}, 'w': {}, 'out': {}}
        for key, value in tensors.items():
            role, _, rest = key.partition('.')
            roles[role][rest] = value
        return Case(description['params'], description['tolerance'], roles['in'], roles['w'], roles['out'])

    return read


@pytest.fixture
def tiny_clip() -> dict:
    """Sizes of a CLIP ViT that runs in a millisecond."""
    return dict(input_resolution=24, patch_size=4, width=32, layers=2, heads=4, output_dim=24)


@pytest.fixture
def weights_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of its own, and no network."""
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('FROZENMM_OFFLINE', '1')
    return tmp_path / 'home' / 'weights'


@pytest.fixture(scope='session')
def minilm():
    """The embedded text encoder, loaded once."""
    pytest.importorskip('transformers')
    from frozenmm.foundation.text_towers.hf import MiniLMTextTower
    try:
        return MiniLMTextTower()
    except MissingPackage as error:
        pytest.skip(str(error))
