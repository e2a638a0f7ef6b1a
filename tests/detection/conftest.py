"""What the tests of this room share."""
from __future__ import annotations

import logging

import pytest

import frozenmm  # noqa: F401  (before mmdet, so that the holes of the installation are filled)


@pytest.fixture(autouse=True)
def _quiet():
    """Silence mmengine's long list of initial values."""
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)
