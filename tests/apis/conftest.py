"""What the tests of the inferencers share: the tiny segmentation models, and a cache folder of the test."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

import frozenmm  # noqa: F401  (fills the holes of the installation before mmdet is imported)

sys.path.insert(0, str(Path(__file__).parents[1] / 'segmentation'))


@pytest.fixture(autouse=True)
def _text_embeddings_stay_here(tmp_path, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))
