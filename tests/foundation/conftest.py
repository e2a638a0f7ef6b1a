"""What the tests of the foundation share."""
from __future__ import annotations

import pytest

from frozenmm.compat import MissingDependency


@pytest.fixture(scope='session')
def minilm():
    """The embedded text encoder, loaded once."""
    pytest.importorskip('transformers')
    from frozenmm.foundation.text_towers.hf import MiniLMTextTower
    try:
        return MiniLMTextTower()
    except MissingDependency as error:
        pytest.skip(str(error))
