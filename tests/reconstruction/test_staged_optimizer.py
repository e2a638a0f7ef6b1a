from __future__ import annotations

import dataclasses

import pytest
import torch

from frozenmm.reconstruction.staged_optimizer import OFFICIAL_STAGES, StagedOptimizer, StagedSettings
from frozenmm.reconstruction.stored_state import StoredState

SHORT = tuple(dataclasses.replace(stage, iterations=6) for stage in OFFICIAL_STAGES)


def _clip(generator, frames=3):
    noise = torch.rand(1, 3, 8, 12, generator=generator)
    images = torch.nn.functional.interpolate(noise, (40, 60), mode='bilinear', align_corners=False)
    images = torch.cat([images.roll(i, 3) for i in range(frames)])
    return images, torch.rand(frames, 40, 60, generator=generator) * 0.1 + 1


def test_the_loss_falls_and_the_seed_decides(generator):
    images, depth = _clip(generator)
    first = StagedOptimizer(images, depth, settings=StagedSettings(SHORT, seed=3)).run()
    second = StagedOptimizer(images, depth, settings=StagedSettings(SHORT, seed=3)).run()
    assert torch.equal(first.losses, second.losses)
    assert first.losses[-1, 0] < first.losses[0, 0]
    assert torch.isfinite(first.depth).all() and torch.isfinite(first.poses_w2c).all()


@pytest.mark.parametrize('compat', [False, True])
def test_two_frames_run_to_the_end(generator, compat):
    images, depth = _clip(generator, 2)
    result = StagedOptimizer(images, depth, settings=StagedSettings(SHORT, compat=compat)).run()
    assert torch.isfinite(result.losses).all()


def test_progress_is_reported_for_every_evaluation(generator):
    seen = []
    images, depth = _clip(generator, 2)
    loop = StagedOptimizer(images, depth, settings=StagedSettings(SHORT))
    loop.run(report=lambda index, total, losses: seen.append((index, total)))
    assert seen == [(i, 18) for i in range(18)]


def test_a_killed_run_ends_as_an_undisturbed_one(generator, tmp_path):
    images, depth = _clip(generator)
    stages = tuple(dataclasses.replace(stage, iterations=100) for stage in OFFICIAL_STAGES)
    settings = StagedSettings(stages, compat=True)
    store = StoredState(tmp_path, 'clip')

    def kill(index, total, losses):
        if index == 270:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StagedOptimizer(images, depth, settings=settings).run(report=kill, store=store)
    seen = []
    resumed = StagedOptimizer(images, depth, settings=settings).run(
        report=lambda index, total, losses: seen.append(index), store=store)
    whole = StagedOptimizer(images, depth, settings=settings).run()
    assert seen == list(range(250, 300))
    assert torch.equal(resumed.losses, whole.losses) and torch.equal(resumed.depth, whole.depth)


def test_bad_input_is_explained(generator):
    images, depth = _clip(generator, 2)
    with pytest.raises(ValueError, match='of the same size'):
        StagedOptimizer(images, depth[:, :30])
    with pytest.raises(ValueError, match='at least 2 frames'):
        StagedOptimizer(images[:1], depth[:1])
    with pytest.raises(ValueError, match="motion must be one of .*got 'eulr'"):
        StagedOptimizer(images, depth, settings=StagedSettings(motion='eulr'))
