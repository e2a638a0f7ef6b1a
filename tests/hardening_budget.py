"""How much the hardening tests do: a little in `make test`, more with `FROZENMM_HARDENING=1`."""
from __future__ import annotations

import os

MORE = os.environ.get('FROZENMM_HARDENING', '') not in ('', '0')
MOMENTS = 20 if MORE else 5
"""At how many random moments a process is killed."""
FACTOR = 6 if MORE else 1
"""By which the numbers of fuzzed inputs are multiplied."""
