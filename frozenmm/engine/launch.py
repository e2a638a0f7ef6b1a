"""From a config file to a running mmengine Runner: what `frozenmm train` and `frozenmm test` share."""
from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from frozenmm.compat.checkpoint import open_checkpoints_safely
from frozenmm.compat.config_files import read_config_file
from frozenmm.compat.devices import resolve_device
from frozenmm.compat.files import write_whole
from frozenmm.datasets.self_made import make_missing_files
from frozenmm.engine.checkpoints import latest_whole_checkpoint, use_safe_checkpoints
from frozenmm.engine.command_line import interruptions
from frozenmm.engine.data_checks import check_loader, prepare_data, report
from frozenmm.engine.data_root import requested_data_root, requested_map_options, use_data_root
from frozenmm.engine.data_set import use_data_set
from frozenmm.engine.explain import explained_building
from frozenmm.engine.options import merge_options, parse_options
from frozenmm.engine.run_folder import checkpoints, make_room
from frozenmm.engine.terminal import OverviewHook, QuietRunner, without_noise
from frozenmm.engine.threads_hook import ThreadsHook
from frozenmm.engine.time_budget import with_movable_end
from frozenmm.engine.weights import CheckpointOfModelHook, WholeCheckpointHook
from frozenmm.errors import MissingFile, UserError


def load_config(path: str | Path, options: Sequence[str] = (), *, work_dir: str | Path | None = None,
                launcher: str = 'none', data: str | Path | None = None, device: str | None = None) -> Config:
    """A config with the command line's wishes worked in.

    Args:
        path: the config file.
        options: `key=value` strings, see `parse_options`. `data_root=...` (or the environment variable
            `FROZENMM_DATA_ROOT`) points all data loaders at another folder, see `use_data_root`; `words=sky,road,...`,
            `void_labels=[11]` and `reduce_zero_label=True` go with it.
        work_dir: where logs and checkpoints go; by default the config's, else `work_dirs/<name of the config>`.
        launcher: `'none'`, `'pytorch'`, `'slurm'` or `'mpi'`.
        data: test on another data set; see `use_data_set`.
        device: where to compute, see `resolve_device`; by default the config's `device`, else `'auto'`.

    Raises:
        MissingFile: no such config; the text lists the nearest names beside it.
        UserError: a file that is no config; an option that it does not have; a data set that its model cannot take.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(_no_config(path))
    cfg = read_config_file(path)
    if data is not None:
        use_data_set(cfg, data)
    wishes = parse_options(options)
    root = requested_data_root(wishes)
    if root is not None:
        wishes.pop('data_root', None)
        use_data_root(cfg, root, requested_map_options(wishes))
    merge_options(cfg, wishes)
    cfg.launcher = launcher
    cfg.device = device or cfg.get('device') or 'auto'
    if work_dir is not None:
        cfg.work_dir = str(work_dir)
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', path.stem))
    return cfg


def use_amp(cfg: Config) -> None:
    """Mixed precision in the optimizer wrapper, in place: bfloat16, unless the config already asks for another type.

    Raises:
        UserError: a wrapper whose precision this cannot set.
    """
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind == 'OptimWrapper':
        cfg.optim_wrapper.type = 'frozenmm.AutocastOptimWrapper'
    elif kind not in ('AmpOptimWrapper', 'frozenmm.AutocastOptimWrapper'):
        raise UserError(f'--amp replaces type=\'OptimWrapper\', but the config uses {kind!r}; set the precision there')


def use_tta(cfg: Config) -> None:
    """Test-time augmentation as the config describes it (`tta_model`, `tta_pipeline`), in place.

    Raises:
        UserError: it describes none.
    """
    if cfg.get('tta_model') is None or cfg.get('tta_pipeline') is None:
        raise UserError('--tta needs tta_model and tta_pipeline in the config; configs/_base_/tta/detection.py has '
                        'them for detectors: add it to _base_')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def build_runner(cfg: Config, *, trusted: bool = False) -> Runner:
    """The runner of a config, on the device that its key `device` names; `'auto'`, the default, leaves it to MMEngine.

    Its terminal is quiet (`QuietRunner`), and on a CPU it chooses its number of threads (`ThreadsHook`).

    Args:
        cfg: the config.
        trusted: open checkpoints that hold pickled objects. They could run code of their authors.

    Raises:
        UserError: the config cannot be built; see `explained_building`.
        DeviceError: there is no such device.
    """
    device = resolve_device(cfg.get('device', 'auto'))
    open_checkpoints_safely(trusted=trusted)
    use_safe_checkpoints(cfg)
    if cfg.get('resume') and cfg.get('load_from') is None:
        newest = latest_whole_checkpoint(cfg.work_dir, trusted=trusted)
        cfg.load_from = None if newest is None else str(newest)
    with_movable_end(cfg)
    make_missing_files(*(cfg.get(f'{stage}_dataloader') for stage in ('train', 'val', 'test')))
    with explained_building(), without_noise():
        runner = QuietRunner.from_cfg(cfg)
    if cfg.get('load_from'):
        runner.register_hook((WholeCheckpointHook if cfg.get('resume') else CheckpointOfModelHook)(cfg.load_from))
    if cfg.get('device', 'auto') != 'auto' and cfg.get('launcher', 'none') == 'none':
        # the optimizer does not exist yet, so its parameters move too
        runner.model.to(device)
    runner.register_hook(OverviewHook())
    if device.type == 'cpu' and cfg.get('launcher', 'none') == 'none' and not _repeatable(cfg):
        runner.register_hook(ThreadsHook())
    return runner


def _repeatable(cfg: Config) -> bool:
    """Whether a config promises the same weights bit for bit, which another number of threads would break."""
    hooks = [hook.get('type') for hook in cfg.get('custom_hooks') or [] if isinstance(hook, dict)]
    return any('ExactResumeHook' in str(kind) for kind in hooks) \
        or bool((cfg.get('randomness') or {}).get('deterministic'))


def use_training_defaults(cfg: Config) -> None:
    """What every training should have and a config need not state, in place.

    Validation values at their true step, the best checkpoint beside the last ones, samples of the last validation and
    curves. What the config states itself stays.
    """
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    logger = hooks.setdefault('logger', ConfigDict(type='LoggerHook'))
    loop = cfg.get('train_cfg') or {}
    if any(word in str(loop.get('type')) for word in ('IterBased', 'Budget')) or loop.get('by_epoch') is False:
        logger.setdefault('log_metric_by_epoch', False)
    saver = hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook'))
    validated = cfg.get('val_dataloader') is not None
    if validated and saver.get('type', 'CheckpointHook') == 'CheckpointHook' and saver.get('save_best') is None:
        saver.save_best = 'auto'
    pictures = [dict(type='frozenmm.RunPicturesHook')]
    if validated:
        pictures.append(dict(type='frozenmm.SamplesHook', folder=str(Path(cfg.work_dir, 'samples'))))
    own = cfg.get('custom_hooks') or []
    there = [hook.get('type') for hook in own if isinstance(hook, dict)]  # the config of an earlier run has them
    cfg.custom_hooks = [*own, *(hook for hook in pictures if hook['type'] not in there)]


def resume_from(cfg: Config, checkpoint: str | Path) -> None:
    """Let a training go on from a checkpoint, in place.

    Args:
        cfg: the config.
        checkpoint: a file, or `'auto'` for the latest of the work folder.

    Raises:
        MissingFile: no such file.
    """
    cfg.resume = True
    cfg.load_from = None if checkpoint == 'auto' else str(_existing(Path(checkpoint)))


def train(cfg: Config, *, overwrite: bool = False, trusted: bool = False) -> Runner:
    """Build and train; returns the runner afterwards.

    Args:
        cfg: the config.
        overwrite: replace a run that the work folder holds already.
        trusted: see `build_runner`.

    Raises:
        UserError: the work folder holds a run, which is neither to be resumed nor overwritten; and as `build_runner`
            and `run_training`.
        KeyboardInterrupt: with the sentence that says how to go on.
    """
    surveys = prepare_data(cfg)  # before anything of an earlier run is removed
    if not cfg.get('resume') and not (overwrite and _rank(cfg)):  # the first process alone removes files
        make_room(cfg.work_dir, overwrite=overwrite)
    use_training_defaults(cfg)
    runner = build_runner(cfg, trusted=trusted)
    report(surveys)  # now that the run has its log file
    with interruptions(lambda: _how_to_go_on(Path(cfg.work_dir))):
        run_training(runner)
    return runner


def _how_to_go_on(folder: Path) -> str:
    """What is true of an interrupted training."""
    if (folder / 'last_checkpoint').is_file():
        return f'interrupted; the same command with --resume goes on from the last checkpoint in {folder}'
    again = ' with --overwrite' if checkpoints(folder) else ''  # the best of an early validation
    return f'interrupted before the first checkpoint to go on from; the same command{again} begins anew'


def _rank(cfg: Config) -> int:
    """Number of this process, before the processes have found each other."""
    if cfg.get('launcher', 'none') == 'none':
        return 0
    return int(os.environ.get('RANK') or os.environ.get('SLURM_PROCID') or os.environ.get('OMPI_COMM_WORLD_RANK') or 0)


def run_training(runner: Runner) -> None:
    """Train a built runner.

    Raises:
        UserError: the config cannot be built, or its training set has no images after filtering.
    """
    with explained_building(), without_noise():
        try:
            loop = runner.train_loop
        except ValueError as error:
            # mmengine joins the serialised images of a set, and numpy has nothing to join when all were filtered out
            if 'need at least one array to concatenate' not in str(error):
                raise
            raise UserError(_empty(runner.cfg.train_dataloader.dataset)) from error
        check_not_empty(loop.dataloader)
        check_loader(loop.dataloader, 'train')
        runner.train()


def evaluate(cfg: Config, checkpoint: str | Path | None, *, show_dir: str | Path | None = None, show_count: int = 16,
             out: str | Path | None = None, trusted: bool = False) -> dict[str, float]:
    """Test a checkpoint.

    Args:
        cfg: the config.
        checkpoint: its weights; None for a model that has nothing to load, because every part of it is frozen.
        show_dir: draw predictions beside ground truth into this folder.
        show_count: number of images to draw.
        out: write the metrics to this JSON file.
        trusted: open a checkpoint that holds pickled objects. It could run code of its author.

    Returns:
        Metrics by name.

    Raises:
        MissingFile: no such checkpoint.
        UserError: no checkpoint for a model with trained parts, or the checkpoint of another model.
    """
    if checkpoint is not None:
        cfg.load_from = str(_existing(Path(checkpoint)))
    if show_dir is not None:
        hook = dict(type='frozenmm.BesideTruthHook', folder=str(show_dir), count=show_count)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]
    surveys = prepare_data(cfg, ('test', ))
    runner = build_runner(cfg, trusted=trusted)
    if checkpoint is None and any(parameter.requires_grad for parameter in runner.model.parameters()):
        raise UserError(f'the model of {cfg.filename} has trained parts; give the checkpoint that holds them')
    if checkpoint is not None:
        runner.register_hook(WholeCheckpointHook(checkpoint))
    with explained_building(), without_noise():
        report(surveys)
        check_loader(runner.test_loop.dataloader, 'test')
        metrics = runner.test()
    if out is not None:
        write_whole(out, json.dumps(metrics, indent=1))
    return metrics


def _existing(checkpoint: Path) -> Path:
    if not checkpoint.is_file():
        near = sorted(str(path) for path in checkpoint.parent.glob('*.pth')) if checkpoint.parent.is_dir() else []
        raise MissingFile(f'there is no checkpoint {checkpoint.resolve()}; '
                          f'{"that folder holds " + ", ".join(near) if near else "train first: frozenmm train"}')
    return checkpoint


def check_not_empty(loader: DataLoader) -> None:
    """Refuse a loader that gives no batch.

    Raises:
        UserError: no image is left, or fewer than one batch with `drop_last`.
    """
    dataset: Any = loader.dataset
    if len(dataset) == 0:
        raise UserError(_empty({key: getattr(dataset, key, None) for key in ('ann_file', 'filter_cfg')}))
    if len(loader) == 0:
        raise UserError(f'{len(dataset)} images make no batch of {loader.batch_size} with drop_last=True; lower the '
                        'batch size')


def _empty(dataset: dict) -> str:
    place = dataset.get('ann_file') or dataset.get('data_root') or dataset.get('type')
    return (f'the training set {place} has no image left after filtering with filter_cfg={dataset.get("filter_cfg")}; '
            'look at the annotation file, its category names and the filter')


def _no_config(path: Path) -> str:
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names = sorted(str(file) for file in folder.rglob('*.py') if not file.name.startswith('_')) if folder.parts else []
    nearest = difflib.get_close_matches(str(path), names, n=3, cutoff=0.4)
    hint = f'did you mean {" or ".join(nearest)}?' if nearest else 'the configs lie in configs/'
    return f'there is no config {path} ({path.resolve()}); {hint}'
