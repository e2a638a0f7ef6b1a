"""The operators against mmcv's paths and the naive procedures, side by side in one run.

    OMP_NUM_THREADS=1 python benchmarks/ops.py                      # everything on the CPU, some ten minutes
    OMP_NUM_THREADS=1 python benchmarks/ops.py attention            # one part: attention, semantic, regions or models
    python benchmarks/ops.py --device cuda                         # on a GPU

What the parts measure is told in `ops_deform_attn.py`, `ops_mask.py` and `ops_models.py`. Each prints its table and
writes `benchmarks/results/ops_<part>[_cuda].json`. Absolute times depend on the machine and its load; ratios, taken by
turns in one process, hardly do.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import ops_deform_attn
import ops_mask
import ops_models
import ops_timing
import torch
from ops_timing import write_report

from frozenmm import env
from frozenmm.ops import backend

PARTS = {'cpu': ('attention', 'semantic', 'regions', 'models'), 'cuda': ('attention', 'masks')}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n\n')[0])
    parser.add_argument('parts', nargs='*', metavar='PART', help=f'default: all, which are {PARTS}')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--threads', type=int, default=1, help='of the semantic and regions parts')
    parser.add_argument('--size', choices=tuple(ops_mask.OUTPUTS), default='full', help='of the output of those parts')
    parser.add_argument('--quick', action='store_true', help='fewer repeats')
    parser.add_argument('--output', type=Path, default=ops_timing.RESULTS, help='folder of the reports')
    args = parser.parse_args()
    known = PARTS[args.device]
    if unknown := set(args.parts) - set(known):
        parser.error(f'no part {", ".join(sorted(unknown))} on {args.device}; there are {", ".join(known)}')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('this torch sees no CUDA device')
    if backend(args.device) != 'native':
        parser.error(f'the kernels for {args.device} are not loaded; run `FROZENMM_BUILD={args.device} '
                     'python -m frozenmm.ops.build`')
    seconds, rounds = (1.0, 2) if args.quick else (6.0, 3)
    runs = {'attention': lambda: ops_deform_attn.run(seconds, args.device),
            'semantic': lambda: ops_mask.run_semantic(rounds, args.threads, args.size),
            'regions': lambda: ops_mask.run_regions(rounds, args.threads, args.size),
            'masks': lambda: ops_mask.run_cuda(rounds),
            'models': lambda: ops_models.run(seconds)}
    for part in args.parts or known:
        print(f'== {part}, {env.instruction_set() if args.device == "cpu" else torch.cuda.get_device_name()}')
        suffix = ('_cuda' if args.device == 'cuda' else '') + (f'_{args.threads}threads' if args.threads > 1 else '')
        print(write_report(f'ops_{part}{suffix}', runs[part](), args.output))


if __name__ == '__main__':
    main()
