"""Batch statistics of taps are those of all ranks together, gradients included."""
from __future__ import annotations

import os
import subprocess
import sys

TWO = '''
import os, sys
import torch
import frozenmm
from frozenmm.segmentation.plain_mask.fusion import TapNorm
rank = int(sys.argv[1])
torch.distributed.init_process_group('gloo', init_method='file://' + sys.argv[2], rank=rank, world_size=2)
generator = torch.Generator().manual_seed(0)
tokens = torch.randn(4, 6, 3, generator=generator) * 2 + 1
valid = torch.ones(4, 6, dtype=torch.bool)
valid[3, 2:] = False
whole = tokens[valid].clone().requires_grad_()
reference = torch.nn.BatchNorm1d(3)
expected = reference(whole)
expected.square().mul(torch.arange(3.0)).sum().backward()
part = slice(2 * rank, 2 * rank + 2)
mine = tokens[part].clone().requires_grad_()
norm = TapNorm(3)
found = norm(mine, valid[part])[valid[part]]
found.square().mul(torch.arange(3.0)).sum().backward()
count = int(valid[:2].sum())
of_mine = slice(0, count) if rank == 0 else slice(count, None)
torch.testing.assert_close(found, expected[of_mine])
torch.testing.assert_close(mine.grad[valid[part]], whole.grad[of_mine], rtol=1e-4, atol=1e-5)
torch.testing.assert_close(norm.running_mean, reference.running_mean)
torch.testing.assert_close(norm.running_var, reference.running_var)
torch.distributed.barrier()
print('equal', flush=True)
os._exit(0)  # gloo's threads sometimes abort the interpreter's own end, after everything above has been checked
'''


def test_two_processes_normalise_as_one(tmp_path):
    processes = [subprocess.Popen([sys.executable, '-W', 'ignore', '-c', TWO, str(rank), str(tmp_path / 'store')],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  env={**os.environ, 'OMP_NUM_THREADS': '1'}) for rank in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert all(process.returncode == 0 and 'equal' in text for process, text in zip(processes, outputs)), outputs
