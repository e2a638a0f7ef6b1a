"""Put the trained part of a model into the zoo: python tools/export_checkpoint.py NAME CONFIG CHECKPOINT --task ... .

The file lands in frozenmm/zoo/weights with its hash in the name, and its entry in frozenmm/zoo/index.json.
"""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm_command.parsing import run_reported


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', help='of the checkpoint in the zoo')
    parser.add_argument('config', help='config file, relative to the repository')
    parser.add_argument('checkpoint', help='trained weights')
    parser.add_argument('--task', required=True, help='open-vocabulary, semantic, detection, depth or proposals')
    parser.add_argument('--data', required=True, help='what it was trained on')
    parser.add_argument('--metrics', required=True, help='JSON file of an object with what was measured')
    parser.add_argument('--what', required=True, help='one sentence: what it can do and what not')
    parser.add_argument('--data-terms', required=True, help='terms of the training data')
    parser.add_argument('--make', required=True, help='the command that trains it')
    parser.add_argument('--license', default='Apache-2.0', help='of these weights')
    parser.add_argument('--trained-at', help='git revision that trained it; default: the present one')
    parser.add_argument('--alias', nargs='*', default=[], help='other names')
    parser.add_argument('--trust', action='store_true', help='open a checkpoint that holds pickled objects')


def run(args: argparse.Namespace) -> None:
    from frozenmm.apis.model_sources import build_model, load_weights
    from frozenmm.engine.launch import load_config
    from frozenmm.errors import reading
    from frozenmm.zoo.export import Description, Origin, enter, export_checkpoint
    with reading(args.metrics, 'a JSON file of metrics'):
        metrics = dict(json.loads(Path(args.metrics).read_text(encoding='utf-8')))
    cfg = load_config(args.config)
    model = build_model(cfg)
    load_weights(model, args.checkpoint, trusted=args.trust)
    path = export_checkpoint(args.name, model, cfg, Origin(args.data, metrics, args.trained_at))
    enter(args.name, path, Description(args.task, args.config, args.what, args.license, args.data_terms, args.make,
                                       args.alias))
    print(f'{path} ({path.stat().st_size / 1e6:.2f} MB) is in the zoo as {args.name}')


if __name__ == '__main__':
    run_reported('export_checkpoint.py', __doc__ or '', add_arguments, run)
