"""What the demo offers: inferencers by title, one picture at a time, results in a folder of their own."""
from __future__ import annotations

import shutil
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from mmengine.logging import print_log

from frozenmm.apis import inferencer
from frozenmm.apis.base import Inferencer
from frozenmm.demo.limits import picture_of, words_of
from frozenmm.zoo import checkpoint, default_checkpoint
from frozenmm.zoo.checkpoints import CHECKPOINT_TASKS, is_checkpoint

TITLES = {'open-vocabulary': 'Words: panoptic', 'semantic': 'Words: semantic', 'detection': 'Boxes', 'depth': 'Depth'}
KEPT = 20
"""Results of this many requests stay on disk; the oldest go first."""


@dataclass(frozen=True)
class Outcome:
    """What a request gives: the drawn picture (H, W, 3) uint8 RGB, a line of text, and files to download."""

    picture: np.ndarray
    text: str
    files: list[str]


class Offers:
    """Inferencers behind a lock, so that one machine works on one picture at a time.

    Args:
        inferencers: by title.
        folder: gets the result files.
    """

    def __init__(self, inferencers: Mapping[str, Inferencer], folder: Path) -> None:
        self.inferencers = dict(inferencers)
        self.folder = folder
        self._lock = threading.Lock()
        self._results: OrderedDict[str, None] = OrderedDict()

    def takes_words(self, title: str) -> bool:
        """Whether an offer looks for words that are typed."""
        return hasattr(self.inferencers[title], 'set_vocabulary')

    def run(self, title: str, path: str | None, words: str | None, min_score: float) -> Outcome:
        """The result for an uploaded file.

        Raises:
            Refused: picture or words that are not taken; the text is for the page.
        """
        image = picture_of(path)
        vocabulary = words_of(words) if self.takes_words(title) else None
        chosen = self.inferencers[title]
        with self._lock:
            if vocabulary is not None:
                chosen.set_vocabulary(vocabulary)  # type: ignore[attr-defined]  # takes_words has asked
            (result, ) = chosen.predict([image])
            files = chosen.write(self._fresh_folder(), image, result, min_score=min_score)
            return Outcome(chosen.draw(image, result, min_score=min_score),
                           chosen.summary(result, min_score=min_score), [str(file) for file in files])

    def _fresh_folder(self) -> Path:
        fresh = mkdtemp(dir=self.folder, prefix='result-')
        self._results[fresh] = None
        while len(self._results) > KEPT:
            oldest, _ = self._results.popitem(last=False)
            shutil.rmtree(oldest, ignore_errors=True)
        return Path(fresh)


def load_inferencers(models: Sequence[str] = (), *, device: str = 'cpu') -> dict[str, Inferencer]:
    """Inferencers by title.

    Args:
        models: tasks, checkpoints of the zoo or configs; by default every task that has a checkpoint on this machine.
        device: where to compute.

    Raises:
        FileNotFoundError: a model that is not there, or no task has a checkpoint; the text says how to get one.
    """
    found = {}
    for name in models or [task for task in TITLES if _there(task)]:
        task = name if name in CHECKPOINT_TASKS else checkpoint(name).task if is_checkpoint(name) else ''
        title = TITLES.get(task, Path(name).stem)
        found[title if title not in found else f'{title} ({name})'] = inferencer(name, device=device)
        print_log(f'{title}: {name} is ready', logger='current')
    if not found:
        raise FileNotFoundError('no task has a checkpoint on this machine; see `python -m frozenmm.zoo list '
                                'checkpoints`, or name a config: --models CONFIG')
    return found


def _there(task: str) -> bool:
    try:
        default_checkpoint(task)
    except FileNotFoundError as error:
        print_log(f'the demo goes without {task}: {error}', logger='current')
        return False
    return True
