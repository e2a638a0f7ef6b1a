"""The raw layouts of public data sets lie one folder up, where tests of configs find them too."""
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
