"""Another test set, and its vocabulary, under the same open-vocabulary config."""
from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from frozenmm.compat.config_files import read_config_file
from frozenmm.errors import UserError
from frozenmm.foundation.lookup import lookup

_KEYS = ('test_dataloader', 'test_evaluator', 'test_cfg')
_PLACE = Path('_base_', 'datasets')


def use_data_set(cfg: Config, data: str | Path) -> None:
    """Test on another data set, in place: its loader and metrics, and its words in the model's classifier.

    Args:
        cfg: the config of an open-vocabulary model.
        data: a data set file of the same kind as those in `configs/_base_/datasets`, or its name there.

    Raises:
        UserError: unknown name; a file without `vocabulary`; a model that cannot change its vocabulary.
    """
    if 'classifier' not in cfg.get('model', {}):
        raise UserError('another data set needs a model that can change its vocabulary (FCCLIP, FrozenSeg); the model '
                        f'of {cfg.filename} has no classifier')
    path = _data_set_file(cfg, data)
    content = read_config_file(path)
    if 'vocabulary' not in content or any(key not in content for key in _KEYS[:2]):
        raise UserError(f'{path} is no data set for open-vocabulary models: it must state vocabulary, test_dataloader '
                        'and test_evaluator')
    for key in _KEYS:
        if key in content:
            cfg[key] = content[key]
    cfg.model.classifier.vocabulary = content.vocabulary
    cfg.model.setdefault('postprocess', {}).update(content.get('postprocess', {}))
    # a test set may be there where the training set is not
    for key in [name for name in cfg if name.startswith(('train_', 'val_')) or name in ('optim_wrapper',
                                                                                         'param_scheduler')]:
        cfg.pop(key)


def _data_set_file(cfg: Config, data: str | Path) -> Path:
    if Path(data).is_file():
        return Path(data)
    above = [*Path(cfg.filename).resolve().parents, Path(__file__).resolve().parents[2] / 'configs']
    folder = next((place / _PLACE for place in above if (place / _PLACE).is_dir()), above[-1] / _PLACE)
    known = [path.stem for path in sorted(folder.glob('*.py')) if 'vocabulary' in path.read_text(encoding='utf-8')]
    return folder / f'{lookup(str(data), known, "data set")}.py'
