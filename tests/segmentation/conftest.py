"""What the tests of segmentation share."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

import frozenmm  # noqa: F401  (fills the holes of the installation before mmdet is imported)

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _text_embeddings_stay_here(tmp_path, monkeypatch):
    """Stored text embeddings go to a folder of the test, not to the user's cache."""
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))
