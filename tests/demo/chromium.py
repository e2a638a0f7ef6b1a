"""A real headless Chromium for tests of pages."""
from __future__ import annotations

import shutil

import pytest

pytest.importorskip('selenium', reason='the tests in a browser need requirements/demo.txt')
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.support.ui import WebDriverWait

BROWSER = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
DRIVER = shutil.which('chromedriver')
INSTALLED = pytest.mark.skipif(not (BROWSER and DRIVER), reason='needs the packages chromium and chromium-driver')
PATIENCE = 120


def start() -> webdriver.Chrome:
    """A browser that draws in software, so that 3D pages work without a graphics card."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--window-size=1300,1000',
                     '--no-proxy-server', '--use-angle=swiftshader', '--enable-unsafe-swiftshader'):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(PATIENCE)
    return driver


def wait(browser: webdriver.Chrome, condition):
    return WebDriverWait(browser, PATIENCE, ignored_exceptions=[StaleElementReferenceException]).until(
        lambda _: condition())
