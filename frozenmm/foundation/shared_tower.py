"""Several tasks on one forward pass of a frozen tower: detector, masks, label maps and depth of the same picture."""
from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor, nn

from frozenmm.errors import UnknownName, UserError
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.foundation.lookup import lookup
from frozenmm.foundation.wrapping_tower import WrappingTower
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats, TowerFeatures

SHARED = 'shared'
"""What stands for the tower in the config of a task."""
_MODES = ('tensor', 'loss', 'predict')


class _Passes:
    """Features of the batch that is being looked at; copies of a tower share them."""

    def __init__(self) -> None:
        self.open = False
        self.features: dict[tuple, tuple[Tensor, TowerFeatures]] = {}

    def __deepcopy__(self, memo: dict) -> _Passes:
        return self


class OnePassTower(WrappingTower):
    """A tower around another one that computes every batch once within `one_pass()`.

    Batches are told apart as objects, so all heads must get the one tensor. Asked with other valid sizes, another
    normalisation or another number of image tokens it computes again.

    Args:
        tower: config of an image tower, with `resize_mode='none'` where it does not say, or a built one.
    """

    def __init__(self, tower: Mapping | ImageTower) -> None:
        super().__init__(tower, **(dict(resize_mode='none') if isinstance(tower, Mapping) else {}))
        self.passes = _Passes()

    @contextmanager
    def one_pass(self) -> Iterator[None]:
        """Around everything that looks at one batch."""
        passes = self.passes
        outer, passes.open = passes.open, True
        try:
            yield
        finally:
            passes.open = outer
            if not outer:
                passes.features = {}

    def forward(  # type: ignore[override]
            self, images: Tensor, valid_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
            image_stats: ImageStats | None = None, *, num_tokens: int = 0) -> TowerFeatures:
        """Features of a padded batch; see `ImageTower.forward`."""
        passes = self.passes
        if not passes.open:
            return self.inner(images, valid_sizes, image_stats, num_tokens=num_tokens)
        whole = [(images.shape[-2], images.shape[-1])] * len(images)
        sizes = whole if valid_sizes is None else [(int(size[0]), int(size[1])) for size in valid_sizes]
        key = (id(images), tuple(sizes), image_stats or ImageStats(), num_tokens)
        if key not in passes.features:
            # with the batch, whose number must not be given to another one meanwhile
            passes.features[key] = images, self.inner(images, sizes, image_stats, num_tokens=num_tokens)
        return passes.features[key][1]


@MODELS.register_module()
class SharedTower(BaseModel):
    """Models of mmdet and mmseg on one frozen tower: their heads are trained, the tower runs once for all of them.

    Every task is a whole model's config, in which `tower='shared'` stands for the tower. All tasks get the same
    normalised and padded batch, so they share this model's data preprocessor and need none of their own. A sample
    belongs to all tasks, or to the one that its meta key `task` names: then the samples of a batch are grouped, and
    every task is trained on its own.

    Args:
        tower: config of the tower, or a built one, with the maps, taps and tokens that all tasks ask for together.
        tasks: name -> config of a model; results come in this order.
        data_preprocessor: of all tasks.
        train_tasks: the tasks that are trained, all by default; the others keep their weights, to train one after the
            other.
        scopes: name of a task -> `'mmdet'` or `'mmseg'`, where names in its config have no scope and it is not the
            config file's.
        init_cfg: see mmengine's `BaseModel`.

    Raises:
        UserError: no task; a task whose config does not name the shared tower.
        UnknownName: `train_tasks` or `scopes` name a task that there is not.
    """

    def __init__(self, tower: Mapping | ImageTower, tasks: Mapping[str, Mapping], *,
                 data_preprocessor: Mapping | nn.Module | None = None, train_tasks: Sequence[str] | None = None,
                 scopes: Mapping[str, str] | None = None, init_cfg: Mapping | None = None) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if not tasks:
            raise UserError('SharedTower needs tasks: a name and the config of a model for each')
        for name in (*(train_tasks or ()), *(scopes or {})):
            lookup(name, tasks, 'task of this SharedTower')
        self.__dict__['tower'] = OnePassTower(tower)  # its record stands in every task
        self.tasks = nn.ModuleDict()
        for name, config in tasks.items():
            scope = (scopes or {}).get(name) or _scope()
            with DefaultScope.overwrite_default_scope(scope):
                self.tasks[name] = MODELS.build(self._completed(name, config))
        self.train_tasks = tuple(tasks if train_tasks is None else train_tasks)
        for name in set(tasks) - set(self.train_tasks):
            self.tasks[name].requires_grad_(False)

    def _completed(self, name: str, config: Mapping) -> ConfigDict:
        """A task's config with the built tower and the preprocessor, from which parts read the normalisation."""
        places = 0

        def filled(node: Any, key: str = '') -> Any:
            nonlocal places
            if key == 'tower' and node == SHARED:
                places += 1
                return self.tower
            if isinstance(node, Mapping):
                return {key: filled(value, key) for key, value in node.items()}
            return type(node)(map(filled, node)) if isinstance(node, list | tuple) else node

        content = filled(config)
        if not places:
            raise UserError(f'the task {name!r} does not look through the shared tower; write tower={SHARED!r} where '
                            'its config has a tower')
        return ConfigDict({'data_preprocessor': self.data_preprocessor, **content})

    def train(self, mode: bool = True) -> SharedTower:
        """As ever, but tasks that are not trained stay in evaluation mode (running means of their norms)."""
        super().train(mode)
        for name in set(self.tasks) - set(self.train_tasks):
            self.tasks[name].eval()
        return self

    def forward(self, inputs: Tensor, data_samples: Sequence[BaseDataElement] | None = None,
                mode: str = 'tensor') -> Any:
        """One pass of the tower, and what the tasks make of it.

        Args:
            inputs: (B, 3, H, W), normalised and padded.
            data_samples: one for each image.
            mode: `'loss'` gives a dictionary with `task.name` -> loss of the trained tasks; `'predict'` the samples
                with the results of all tasks: every task's own sample under its name, and its fields (`pred_instances`,
                `pred_sem_seg`, ...) on the sample itself, of the first task that gives them; `'tensor'` a dictionary
                with the raw outputs of the tasks.
        """
        if mode not in _MODES:
            raise UnknownName(f'mode must be one of {list(_MODES)}, got {mode!r}')
        with self.tower.one_pass():
            if mode == 'tensor':
                return {name: task(inputs, _copies(data_samples, inputs), mode='tensor')
                        for name, task in self.tasks.items()}
            if data_samples is None:
                raise UserError(f'mode={mode!r} needs data samples')
            return self._losses(inputs, data_samples) if mode == 'loss' else self._predict(inputs, data_samples)

    def _losses(self, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> dict[str, Any]:
        losses: dict[str, Any] = {}
        asked = [sample.metainfo.get('task') for sample in data_samples]
        parts = {tuple(range(len(asked))): inputs}  # tasks of the same images share their features
        for name in self.train_tasks:
            mine = tuple(index for index, task in enumerate(asked) if task in (None, name))
            if not mine:
                continue
            part = parts.setdefault(mine, inputs[list(mine)])
            samples = _copies([data_samples[index] for index in mine], inputs)
            losses |= {f'{name}.{key}': value for key, value in self.tasks[name](part, samples, mode='loss').items()}
        if not losses:
            raise UserError(f'no sample of this batch belongs to a trained task: they name '
                            f'{sorted(map(str, set(asked)))}, and {list(self.train_tasks)} are trained')
        return losses

    def _predict(self, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> list[BaseDataElement]:
        results = [copy.copy(sample) for sample in data_samples]
        for name, task in self.tasks.items():
            for result, found in zip(results, task(inputs, _copies(data_samples, inputs), mode='predict')):
                result.set_field(found, name)
                for key in found.keys():
                    if key.startswith('pred_') and key not in result:
                        result.set_field(found.get(key), key)
        return results


def _scope() -> str | None:
    current = DefaultScope.get_current_instance()
    return None if current is None else current.scope_name


def _copies(data_samples: Sequence[BaseDataElement] | None, inputs: Tensor) -> list[BaseDataElement] | None:
    """Samples of a task's own, as models write into them, with what mmseg's models look for."""
    if data_samples is None:
        return None
    copies = [copy.deepcopy(sample) for sample in data_samples]
    for sample in copies:
        height, width = sample.metainfo.get('img_shape', inputs.shape[-2:])[:2]
        if 'padding_size' not in sample.metainfo:  # left, right, top, bottom
            sample.set_metainfo(dict(padding_size=[0, inputs.shape[-1] - width, 0, inputs.shape[-2] - height]))
        labels = sample.get('gt_sem_seg')
        # mmdet and mmseg call a label map differently
        if isinstance(labels, PixelData) and 'sem_seg' in labels and 'data' not in labels:
            labels.set_data(dict(data=labels.sem_seg))
    return copies
