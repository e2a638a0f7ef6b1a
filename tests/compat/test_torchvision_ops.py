"""In fresh processes, because what is tested happens before torchvision is first imported."""
from __future__ import annotations

import subprocess
import sys

import pytest

PRELUDE = '''
import torch
from frozenmm.compat import torchvision_ops
'''


def run(code: str) -> str:
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', PRELUDE + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]  # the lines before are the log of what was filled in


def library_loads() -> bool:
    return run('from importlib.util import find_spec\nfrom pathlib import Path\n'
               'folder = Path(find_spec("torchvision").submodule_search_locations[0])\n'
               'print(torchvision_ops._library is None)') == 'True'


@pytest.fixture(scope='module', autouse=True)
def _needs_the_hole():
    pytest.importorskip('torchvision')
    if library_loads():
        pytest.skip('torchvision\'s own library loads here, so nothing is filled in')


def test_torchvision_timm_and_open_clip_import_and_nms_works():
    out = run('''
import timm, open_clip, torchvision
from torchvision.ops import batched_nms, nms
boxes = torch.tensor([[0., 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]])
scores = torch.tensor([0.5, 0.9, 0.7])
print(nms(boxes, scores, 0.5).tolist(), batched_nms(boxes, scores, torch.tensor([0, 1, 1]), 0.5).tolist())
''')
    assert out == '[1, 2] [1, 2, 0]'


def test_it_acts_once_and_survives_a_second_call():
    assert run('print(torchvision_ops.install(dict), hasattr(torch.ops.torchvision, "nms"))') == 'False True'


def test_it_steps_back_when_torchvision_was_imported_before():
    out = run('''
import sys, types
torchvision_ops._library = None
sys.modules["torchvision"] = types.ModuleType("torchvision")
print(torchvision_ops.install(dict))
''')
    assert out == 'False'
