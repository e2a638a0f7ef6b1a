"""Raw layouts of public data sets and tiny models lie with the tests of their rooms."""
from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / 'datasets'), str(Path(__file__).parents[1] / 'segmentation')]
