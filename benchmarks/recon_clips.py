"""Score recorded clips with several modes and seeds, each in a fresh process, two threads.

    python benchmarks/recon_clips.py --shared ../shared [--modes tracks direct] [--seeds 0 1 2] [--clips NAME ...]

A mode without randomness (direct) runs with the first seed only. Writes benchmarks/results/recon_e2e.json; other
rows in it stay.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm.compat.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results' / 'recon_e2e.json'
COLUMNS = ('ate_m', 'rotation_deg', 'abs_rel', 'delta1', 'focal_error_percent', 'seconds')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shared', type=Path, default=ROOT.parent / 'shared', help='holds golden/ and data/')
    parser.add_argument('--modes', nargs='+', default=['tracks', 'direct'])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--clips', nargs='+', default=['kitchen_f000', 'kitchen_wide20', 'photo_room'])
    return parser.parse_args()


def score(shared: Path, clip: str, mode: str, seed: int) -> dict[str, object]:
    """One row: a run and its score."""
    case = shared / 'golden' / 'frozen_recon' / f'e2e_clip__{clip}'
    environment = {**os.environ, 'OMP_NUM_THREADS': '2'}
    with tempfile.TemporaryDirectory() as folder:
        result, scores = Path(folder) / 'result.npz', Path(folder) / 'score.json'
        subprocess.run([sys.executable, ROOT / 'benchmarks' / 'recon_e2e.py', case, '--data', shared / 'data', '--save',
                        result, '--mode', mode, '--seed', str(seed)], check=True, env=environment, capture_output=True)
        subprocess.run([sys.executable, shared / 'score_recon.py', case, result, '--json', scores], check=True,
                       capture_output=True)
        return {'clip': clip, 'mode': mode, 'seed': seed, **json.loads(scores.read_text())}


def main() -> None:
    args = parse_args()
    known = json.loads(RESULTS.read_text())['rows'] if RESULTS.is_file() else []
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout
    print('| clip | mode | seed | ' + ' | '.join(COLUMNS) + ' |')
    for mode in args.modes:
        for clip in args.clips:
            for seed in args.seeds if mode != 'direct' else args.seeds[:1]:
                row = {**score(args.shared, clip, mode, seed), 'commit': commit.strip()}
                known = [r for r in known if (r['clip'], r['mode'], r['seed']) != (clip, mode, seed)] + [row]
                print(f'| {clip} | {mode} | {seed} | ' + ' | '.join(f'{row[name]:.4g}' for name in COLUMNS) + ' |',
                      flush=True)
                content = {'machine': f'{os.cpu_count()} CPU cores, 2 threads', 'rows': known}
                write_whole(RESULTS, json.dumps(content, indent=1) + '\n')


if __name__ == '__main__':
    main()
