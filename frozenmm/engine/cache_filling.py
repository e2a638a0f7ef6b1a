"""Filling feature caches from a config: every image of its data loaders, in every variant, through its towers."""
from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from frozenmm.compat.devices import resolve_device
from frozenmm.datasets.progress import Progress
from frozenmm.datasets.self_made import make_missing_files
from frozenmm.engine.explain import explained_building
from frozenmm.errors import UserError
from frozenmm.foundation.feature_cache import CachedTower, prune_cache, verify_cache
from frozenmm.foundation.feature_cache.shards import num_bytes, to_tensors
from frozenmm.foundation.feature_cache.work import SharedWork
from frozenmm.registry import MODELS
from frozenmm.structures import TowerFeatures

SPLITS = ('train', 'val', 'test')
_SAMPLED_BATCHES = 3


@dataclass
class Estimate:
    """What filling would take: images (each variant counts), bytes per image, seconds per image."""

    images: int
    image_bytes: float
    image_seconds: float

    @property
    def bytes(self) -> float:
        """Bytes of the whole cache."""
        return self.images * self.image_bytes

    def __str__(self) -> str:
        return (f'{self.images} images (every stored variant counts), {self.image_bytes / 1e6:.3f} MB each: '
                f'{self.bytes / 1e9:.3f} GB; about {self.images * self.image_seconds:.0f} s on this machine')


def cached_towers(model: nn.Module) -> list[CachedTower]:
    """The cached towers of a model.

    Raises:
        UserError: there is none.
    """
    towers = [module for module in model.modules() if isinstance(module, CachedTower)]
    if not towers:
        raise UserError('the model of this config has no CachedTower; put one around its tower: '
                        'dict(type=\'frozenmm.CachedTower\', folder=\'cache/...\', tower=dict(type=..., ...))')
    return towers


def build_cached_model(cfg: Config, mode: str | None = None) -> nn.Module:
    """The model of a config, on the machine's device; with `mode` for all its cached towers.

    Raises:
        UserError: no `CachedTower`; a cache that does not fit.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    settings = copy.deepcopy(cfg.model)
    if mode is not None:
        _set_mode(settings, mode)
    with explained_building():
        model = MODELS.build(settings)
    cached_towers(model)
    return model.to(resolve_device(cfg.get('device', 'auto')))


def fill_caches(cfg: Config, model: nn.Module, splits: Sequence[str] = ('train', 'val'), *,
                unit_images: int = 64) -> dict[str, int]:
    """Compute and store what is missing; may be interrupted and called again, and run in several processes at once.

    Processes on one folder share the images in units: a process that is killed loses its unit at most, and that is
    done by another one.

    Args:
        cfg: the config, with `{train,val,test}_dataloader`.
        model: from `build_cached_model`.
        splits: which data loaders.
        unit_images: images of a unit, rounded up to whole batches.

    Returns:
        `images` gone through by this process (each variant counts), `computed` and `read` features (of all towers).

    Raises:
        CacheFull: no room; what is stored stays.
        UserError: unknown or missing split; a pipeline that draws new pixels every time.
    """
    towers = cached_towers(model)
    for tower in towers:
        tower.full_is_error = True
        tower.hits = tower.misses = 0
    jobs = [(split, variant, loader) for split in splits for variant, loader in _loaders(cfg, split)]
    progress = Progress(sum(_count(loader) for _, _, loader in jobs))
    run = _TowerRun(model, towers)
    caches = [tower.cache for tower in towers if tower.cache is not None]
    # what is to be kept when pruning must be seen by one process
    alone = not caches or any(tower.seen is not None for tower in towers)
    work = None if alone else SharedWork(caches[0].folder / 'work')
    try:
        for split, variant, loader in jobs:
            _force_variant(loader.dataset, variant)
            job = f'{split}/{variant}/{cfg.get(f"{split}_dataloader")}'
            for part in [loader] if work is None else _parts(loader, work, job, unit_images):
                for data in part:
                    run(data, training=split == 'train')
                    missed = sum(tower.misses for tower in towers)
                    progress.add(len(data['inputs']), f'{split}, {missed} computed')
                for cache in caches:
                    cache.flush()
    finally:
        for cache in caches:
            cache.close()
        if work is not None:
            work.close()
    return dict(images=progress.done, computed=sum(tower.misses for tower in towers),
                read=sum(tower.hits for tower in towers))


def _parts(loader: DataLoader, work: SharedWork, job: str, images: int) -> Iterator[DataLoader]:
    """Loaders of the units that fall to this process; whole batches, so that padding is as in a single process."""
    batch = loader.batch_size or 1
    for unit in work.units(job, _count(loader), -(-images // batch) * batch):
        yield DataLoader(loader.dataset, batch, sampler=cast(Any, unit), num_workers=loader.num_workers,
                         collate_fn=loader.collate_fn)


def fill(cfg: Config, splits: Sequence[str] = ('train', 'val'), *, prune: bool = False) -> list[str]:
    """Build the model of a config, fill its caches, and say in lines what was done.

    Args:
        cfg: the config.
        splits: which data loaders.
        prune: also delete what is damaged, or not needed by these loaders.

    Raises:
        UserError: see `fill_caches`.
    """
    model = build_cached_model(cfg, 'fill')
    towers = cached_towers(model)
    for tower in towers:
        tower.seen = set() if prune else None
    done = fill_caches(cfg, model, splits)
    lines = [f'{done["images"]} images: {done["computed"]} features computed, {done["read"]} were there']
    for tower, cache in [(tower, tower.cache) for tower in towers if tower.cache is not None]:
        if tower.seen is None:
            cache.refresh()  # with what other processes have stored
            lines.append(f'{cache.folder}: {len(cache)} entries, {cache.size / 1e6:.1f} MB')
            continue
        pruned = prune_cache(cache, tower.seen)
        lines.append(f'{cache.folder}: kept {pruned.kept} entries, deleted {pruned.dropped} and {pruned.damaged} '
                     f'damaged shards, {pruned.before / 1e6:.1f} -> {pruned.after / 1e6:.1f} MB')
    return lines


def verify(cfg: Config) -> tuple[list[str], list[str]]:
    """Read all that the caches of a config hold.

    Returns:
        A line for each cache, and what is wrong with them.
    """
    model = build_cached_model(cfg)
    caches = [tower.cache for tower in cached_towers(model) if tower.cache is not None]
    lines = [f'{cache.folder}: {len(cache)} entries, {cache.size / 1e6:.1f} MB' for cache in caches]
    return lines, [text for cache in caches for text in verify_cache(cache).values()]


def estimate(cfg: Config, splits: Sequence[str] = ('train', 'val')) -> Estimate:
    """Size and time of a filled cache, from the first batches of every split; nothing is written.

    Raises:
        UserError: see `fill_caches`.
    """
    model = build_cached_model(cfg, 'off')
    towers = cached_towers(model)
    total, sampled, size, seconds = 0, 0, 0.0, 0.0

    def weigh(tower: nn.Module, _: object, features: TowerFeatures) -> None:
        nonlocal size
        size += num_bytes(to_tensors(features, str(tower.store)))

    run = _TowerRun(model, towers)
    hooks = [tower.register_forward_hook(weigh) for tower in towers]
    for split in splits:
        for variant, loader in _loaders(cfg, split):
            total += _count(loader)
            if variant:
                continue
            for index, data in enumerate(loader):
                if index == _SAMPLED_BATCHES:
                    break
                start = time.perf_counter()
                run(data, training=split == 'train')
                seconds += time.perf_counter() - start
                sampled += len(data['inputs'])
    for hook in hooks:
        hook.remove()
    return Estimate(total, size / max(sampled, 1), seconds / max(sampled, 1))


class _TowerRun:
    """Runs the towers of a model on batches of its pipeline, and as little else as the model allows.

    In training that is `extract_feat`, which detectors and segmentors have; where towers sit elsewhere, as enhancers
    do, it is the whole step. A test step is run whole, because it may cut windows out of its images.

    Args:
        model: with a `data_preprocessor`.
        towers: those that must run.
    """

    def __init__(self, model: nn.Module, towers: Sequence[CachedTower]) -> None:
        self.model: Any = model
        self.towers = towers
        self._features_suffice = hasattr(model, 'extract_feat')

    def __call__(self, data: dict, *, training: bool) -> None:
        """Run every tower on a batch.

        Raises:
            UserError: the model does not use one of its towers.
        """
        ran: set[int] = set()
        hooks = [tower.register_forward_hook(lambda tower, *_: ran.add(id(tower))) for tower in self.towers]
        self.model.train(training)
        try:
            with torch.no_grad():
                batch = self.model.data_preprocessor(data, training)
                if training and self._features_suffice:
                    self._extract(batch)
                    self._features_suffice = len(ran) == len(self.towers)
                if len(ran) < len(self.towers):
                    self.model(**batch, mode='loss' if training else 'predict')
        finally:
            for hook in hooks:
                hook.remove()
        if len(ran) < len(self.towers):
            raise UserError(f'{len(self.towers) - len(ran)} of {len(self.towers)} cached towers did not run in a step '
                            'of the model')

    def _extract(self, batch: dict) -> None:
        takes_samples = len(inspect.signature(self.model.extract_feat).parameters) > 1
        self.model.extract_feat(batch['inputs'], *([batch['data_samples']] if takes_samples else []))


def _count(loader: DataLoader) -> int:
    """Number of images."""
    return len(cast(Sized, loader.dataset))


def _loaders(cfg: Config, split: str) -> Iterator[tuple[int | None, DataLoader]]:
    """Loaders that give every image of a split once, one for each stored variant."""
    if split not in SPLITS:
        raise UserError(f'a split is one of {list(SPLITS)}, got {split!r}')
    settings = cfg.get(f'{split}_dataloader')
    if settings is None:
        raise UserError(f'the config has no {split}_dataloader')
    settings = copy.deepcopy(settings)
    settings.update(sampler=dict(type='mmengine.DefaultSampler', shuffle=False), drop_last=False,
                    persistent_workers=False)
    settings.pop('batch_sampler', None)
    make_missing_files(settings)
    with explained_building():
        loader = Runner.build_dataloader(settings)
    _require_repeatable(loader.dataset)
    if not _stored_variants(loader.dataset):
        yield None, loader
    else:  # a loader starts its workers when it is gone through, so each of them sees the variant set by then
        yield from ((variant, loader) for variant in range(_variants(loader.dataset)))


def _variants(dataset: Dataset) -> int:
    found = _stored_variants(dataset)
    if len(found) > 1:
        raise UserError(f'the pipeline has {len(found)} StoredVariants, which draw independently; put their '
                        'transforms into one')
    return found[0].variants if found else 1


def _stored_variants(dataset: object) -> list:
    """The `StoredVariants` of a data set's pipeline, also below wrappers."""
    for name in 'dataset', 'datasets':
        inner = getattr(dataset, name, None)
        if inner is not None:
            parts = inner if isinstance(inner, (list, tuple)) else [inner]
            return [item for part in parts for item in _stored_variants(part)]
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    return [item for item in transforms if type(item).__name__ == 'StoredVariants']


def _force_variant(dataset: Dataset, variant: int | None) -> None:
    for item in _stored_variants(dataset):
        item.only = variant


def _require_repeatable(dataset: Dataset) -> None:
    """Refuse a pipeline whose pixels never come back: a cache of them would be of no use."""
    _force_variant(dataset, 0)
    for index in range(min(len(cast(Sized, dataset)), 3)):
        one, other = dataset[index]['inputs'], dataset[index]['inputs']
        if one.shape != other.shape or not torch.equal(one, other):
            raise UserError('the training pipeline gives other pixels each time it loads the same image, so stored '
                            'features would never be read again; put its random transforms into StoredVariants')
    _force_variant(dataset, None)


def _set_mode(node: object, mode: str) -> None:
    if isinstance(node, dict):
        if str(node.get('type')).rpartition('.')[2] == 'CachedTower':
            node['mode'] = mode
        for value in node.values():
            _set_mode(value, mode)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _set_mode(value, mode)
