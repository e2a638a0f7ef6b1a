from __future__ import annotations

import pytest


@pytest.fixture(scope='module')
def browser():
    from chromium import start
    driver = start()
    yield driver
    driver.quit()
