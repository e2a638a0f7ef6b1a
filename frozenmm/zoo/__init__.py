"""The zoo: models of the configs, small checkpoints of our own, official weights of frozen networks.

On a command line: `python -m frozenmm.zoo list`, `resolve NAME`, `verify`, `fetch NAME`.
"""
from frozenmm.zoo.checkpoints import Checkpoint, checkpoint, default_checkpoint, read_index
from frozenmm.zoo.folders import config_files, data_folder
from frozenmm.zoo.models import Model, model, read_models
from frozenmm.zoo.towers import fetch, tower_files

__all__ = ['Checkpoint', 'Model', 'checkpoint', 'config_files', 'data_folder', 'default_checkpoint', 'fetch', 'model',
           'read_index', 'read_models', 'tower_files']
