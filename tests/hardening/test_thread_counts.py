"""Another number of threads takes sums in another order: how far results may differ, docs/training.md says."""
from __future__ import annotations

import pytest
import skimage.data
import torch

from frozenmm.apis import inferencer
from frozenmm.registry import HAS_DEMO

WORDS = ['cat', 'cup, mug', 'spoon', 'table', 'fur', 'person', 'shuttle', 'wall']


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.skipif(not HAS_DEMO, reason='the demonstration model belongs to frozenmm.demo')
@pytest.mark.parametrize('name', ['chelsea', 'coffee', 'astronaut'])
def test_one_and_two_threads_agree(name, threads, monkeypatch, tmp_path):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path))
    monkeypatch.setenv('OMP_NUM_THREADS', '2')  # stated by the user: nothing is measured
    model = inferencer('open-vocabulary', WORDS)
    results = []
    for count in (1, 2, 1):
        threads(count)
        results.append(model(getattr(skimage.data, name)())[0])
    one, two, again = results
    assert torch.equal(one.pred_panoptic_seg.sem_seg, again.pred_panoptic_seg.sem_seg)
    assert len(one.segments_info) == len(two.segments_info)
    for first, second in zip(one.segments_info, two.segments_info):
        assert first['category_id'] == second['category_id'] and abs(first['score'] - second['score']) < 1e-4
    for kind in ('pred_panoptic_seg', 'pred_sem_seg'):
        differs = one.get(kind).sem_seg != two.get(kind).sem_seg
        assert differs.float().mean() < 1e-4, kind  # ties of two segments, or of two classes
