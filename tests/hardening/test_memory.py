"""Two hundred inferences leave nothing behind."""
from __future__ import annotations

import gc
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 200
WARM_UP = 40
MEGABYTES = 24
"""Growth that is let pass: allocators keep some pages. A leak of one picture's features per call would be far more."""


def resident_bytes() -> int:
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def living_tensors() -> int:
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())


@pytest.fixture(params=['detector', 'fusioner', 'open vocabulary'])
def chosen(request):
    from frozenmm.apis import DetectionInferencer, FusionerInferencer, OpenVocabularyInferencer
    torch.manual_seed(0)
    if request.param == 'detector':
        return DetectionInferencer(Config.fromfile(ROOT / 'configs/quickstart/dino_frozen_scenes.py'))
    if request.param == 'fusioner':
        return FusionerInferencer(Config.fromfile(ROOT / 'configs/fusioner/fusioner_lite0_minilm_scenes.py'), ['cat'])
    sys.path.insert(0, str(ROOT / 'tests' / 'segmentation'))
    from tiny_segmentors import fc_clip

    from frozenmm.apis.image_pipeline import ImagePipeline
    from frozenmm.apis.open_vocabulary_inferencer import PLAIN_PIPELINE
    found = OpenVocabularyInferencer(fc_clip(seed=3), ['cat', 'dog'])
    found.pipeline = ImagePipeline([dict(step, scale=(64, 64)) if 'scale' in step else step for step in PLAIN_PIPELINE])
    return found


@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='needs /proc')
def test_two_hundred_inferences_leave_nothing_behind(chosen, tmp_path, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))
    random = np.random.default_rng(0)
    start = tensors = 0
    for number in range(ROUNDS):
        if number == WARM_UP:
            start, tensors = resident_bytes(), living_tensors()
        (result, ) = chosen(random.integers(0, 256, (48, 64, 3), dtype=np.uint8), out_dir=tmp_path / 'out')
        del result
    assert living_tensors() <= tensors + 2
    assert resident_bytes() - start < MEGABYTES * 2**20
