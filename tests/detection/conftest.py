"""The tiny detectors of this room are importable by name, and mmengine's log of initial values stays quiet."""
from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import frozenmm  # noqa: E402, F401  (before mmdet, so that the holes of the installation are filled)


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)
