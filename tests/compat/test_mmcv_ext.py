"""The stand-in for mmcv's compiled module: what it answers, and when it is put in place."""
from __future__ import annotations

import subprocess
import sys

import pytest

from frozenmm.compat import mmcv_ext
from frozenmm.ops.mmcv_names import OPERATORS

pytestmark = pytest.mark.skipif(mmcv_ext.compiled_extension() is not None, reason='mmcv has compiled operators')


def test_operators_are_looked_up_when_they_are_asked_for():
    asked = []
    stand_in = mmcv_ext.StandIn('mmcv._ext', lambda: asked.append(1) or {'nms': print})
    assert asked == []
    assert stand_in.nms is print and asked == [1]


def test_mmcv_gets_ours():
    import mmcv.ops  # noqa: F401
    module = sys.modules['mmcv._ext']
    assert {name: getattr(module, name) for name in OPERATORS} == dict(OPERATORS)


def test_an_operator_without_stand_in_names_itself_when_called():
    operator = mmcv_ext.StandIn('mmcv._ext', dict).border_align_forward
    with pytest.raises(NotImplementedError, match='the operator \'border_align_forward\' exists only in compiled mmcv'):
        operator(1, 2)


def test_python_attributes_are_not_answered():
    with pytest.raises(AttributeError):
        _ = mmcv_ext.StandIn('mmcv._ext', dict).__wrapped__


def test_the_environment_report_of_mmcv_works_and_says_what_stands_in():
    from mmcv.utils import collect_env
    report = collect_env()
    assert 'no compiled operators' in report['MMCV Compiler'] and report['MMCV CUDA Compiler'] == 'not available'


def test_it_is_installed_once():
    assert sys.modules['mmcv._ext'].__spec__.loader is None
    assert mmcv_ext.install(dict) is False


def test_mmcv_still_knows_that_it_has_no_compiled_operators():
    from mmcv.utils import ext_loader
    assert ext_loader.check_ops_exist() is False


def test_a_real_extension_is_left_alone(tmp_path):
    """A package `mmcv` with a file like a compiled module: nothing is put in its place."""
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').touch()
    from importlib.machinery import EXTENSION_SUFFIXES
    (package / f'_ext{EXTENSION_SUFFIXES[0]}').touch()
    code = ('import sys; sys.path.insert(0, sys.argv[1])\nimport frozenmm\nfrom frozenmm.compat import mmcv_ext\n'
            'assert mmcv_ext.compiled_extension().name.startswith("_ext")\nassert "mmcv._ext" not in sys.modules')
    subprocess.run([sys.executable, '-c', code, str(tmp_path)], check=True)


@pytest.mark.parametrize('name', ['nms', 'roi_align_forward', 'roi_align_backward', 'sigmoid_focal_loss_forward',
                                  'sigmoid_focal_loss_backward', 'get_compiler_version', 'get_compiling_cuda_version'])
def test_operators_that_moved_are_found_for_one_release(name):
    with pytest.warns(FutureWarning, match=rf'mmcv_ext.{name} is now called frozenmm.ops\..*{name}; .* frozenmm 0.3'):
        assert getattr(mmcv_ext, name) is OPERATORS[name]
