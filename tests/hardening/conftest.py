"""How much the hardening tests do: a little in `make test`, more with `FROZENMM_HARDENING=1`."""
from __future__ import annotations

import os

import pytest

MORE = os.environ.get('FROZENMM_HARDENING', '') not in ('', '0')
"""Set by hand: `FROZENMM_HARDENING=1 python -m pytest tests/hardening`."""


@pytest.fixture
def moments() -> int:
    """At how many random moments a process is killed."""
    return 20 if MORE else 5
