"""Ship a trained demonstration depth network: python tools/export_depth.py CONFIG CHECKPOINT [--metrics FILE.json].

Writes the decoder into the zoo's folder and enters it into the index. The metrics are those that tools/test.py --out
wrote for this checkpoint.
"""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm_command.parsing import run_reported

DATA = 'generated rooms (frozenmm.GeneratedRooms), with photographs that come with scikit-image on their surfaces'
WHAT = ('Demonstration depth network: frozen EfficientNet-Lite0 and a small decoder, trained on some hundred generated '
        'rooms; depth up to scale and shift, coarse on real photographs.')
CONFIG = 'configs/frozen_recon/depth_lite0_rooms.py'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='the config that trained it')
    parser.add_argument('checkpoint', help='file of the training')
    parser.add_argument('--metrics', help='JSON file of tools/test.py --out')
    parser.add_argument('--trained-at', help='git revision that trained it; by default the present one')
    parser.add_argument('--trust', action='store_true', help='open a checkpoint that holds pickled objects')


def run(args: argparse.Namespace) -> None:
    from frozenmm.demo.light_depth import SHIPPED
    from frozenmm.engine.launch import load_config
    from frozenmm.engine.weights import load_weights
    from frozenmm.registry import MODELS
    from frozenmm.zoo.export import Description, Origin, enter, export_checkpoint
    cfg = load_config(args.config)
    model = MODELS.build({'_scope_': cfg.default_scope, **cfg.model})
    load_weights(model, args.checkpoint, trusted=args.trust)
    metrics = json.loads(Path(args.metrics).read_text(encoding='utf-8')) if args.metrics else {}
    path = export_checkpoint(SHIPPED, model, cfg, Origin(DATA, metrics, args.trained_at), part='decode_head.decoder')
    enter(SHIPPED, path, Description('depth', CONFIG, WHAT, 'Apache-2.0', 'generated from photographs inside '
                                     'scikit-image', f'python tools/train.py {CONFIG}'))
    print(path)


if __name__ == '__main__':
    run_reported('export_depth.py', __doc__ or '', add_arguments, run)
