"""Several tasks on one pass of a frozen tower: the numbers of each alone, at the cost of one tower."""
from __future__ import annotations

import pytest
import torch
from mmengine.structures import InstanceData, PixelData

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
import small_models
from mmdet.structures import DetDataSample

from frozenmm.errors import UnknownName, UserError
from frozenmm.foundation.shared_tower import SharedTower
from frozenmm.registry import MODELS

SIDE = small_models.SIDE
PREPROCESSOR = dict(type='mmdet.DetDataPreprocessor', **small_models.NORMALISE, pad_size_divisor=32, pad_seg=True,
                    seg_pad_value=255)


def task(kind):
    config = small_models.config(kind)
    config['backbone'] = dict(config['backbone'], tower='shared')
    del config['data_preprocessor']
    return config


@pytest.fixture
def model():
    small_models.build('mmdet_backbone')  # registers both packages
    small_models.build('mmseg_backbone')
    torch.manual_seed(0)
    built = MODELS.build(dict(
        type='frozenmm.SharedTower', tower=small_models.tower(), data_preprocessor=PREPROCESSOR,
        tasks=dict(boxes=task('mmdet_backbone'), labels=task('mmseg_backbone'), more=task('mmseg_backbone')),
        scopes=dict(boxes='mmdet', labels='mmseg', more='mmseg')))
    built.init_weights()
    return built


def batch(sizes=((SIDE, SIDE), (48, 40)), names=(None, None)):
    """Pictures of two sizes with a box and a label map each."""
    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for (height, width), name in zip(sizes, names):
        inputs.append(torch.randint(0, 255, (3, height, width), generator=generator, dtype=torch.uint8))
        sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(2 * height, 2 * width),
                                             scale_factor=(0.5, 0.5), **({} if name is None else dict(task=name))))
        sample.gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8, 32, 32]]), labels=torch.tensor([1]))
        sample.gt_sem_seg = PixelData(sem_seg=torch.randint(0, 3, (1, height, width), generator=generator))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.fixture
def passes(model, monkeypatch):
    """How many images went through the network."""
    seen = []
    inner = model.tower.inner
    forward = type(inner).extract
    monkeypatch.setattr(type(inner), 'extract', lambda self, network, pixels, num_tokens: (
        seen.append(len(pixels)), forward(self, network, pixels, num_tokens))[1])
    return seen


def test_all_tasks_are_predicted_in_one_pass(model, passes):
    model.eval()
    with torch.no_grad():
        found = model.test_step(batch())
    assert passes == [2]
    for sample, size in zip(found, ((128, 128), (96, 80))):
        assert sample.pred_sem_seg.data.shape[-2:] == size  # back at the size of the original
        assert torch.equal(sample.pred_sem_seg.data, sample.labels.pred_sem_seg.data)
        assert torch.equal(sample.pred_instances.bboxes, sample.boxes.pred_instances.bboxes)
        assert 'pred_sem_seg' in sample.more


def test_every_task_predicts_what_it_does_alone(model):
    model.eval()
    data = model.data_preprocessor(batch())
    with torch.no_grad():
        together = model(**data, mode='predict')
        alone = model.tasks['boxes'](data['inputs'], data['data_samples'], mode='predict')
    for ours, sample in zip(together, alone):
        assert torch.equal(ours.pred_instances.scores, sample.pred_instances.scores)
        assert torch.equal(ours.pred_instances.bboxes, sample.pred_instances.bboxes)


def test_training_together_is_one_pass_and_reaches_every_head(model, passes):
    model.train()
    data = model.data_preprocessor(batch(), training=True)
    losses = model(**data, mode='loss')
    assert passes == [2]
    assert {key.partition('.')[0] for key in losses} == {'boxes', 'labels', 'more'}
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert all(any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
               for part in model.tasks.values())
    assert not list(model.tower.parameters())


def test_a_sample_of_one_task_trains_that_one(model, passes):
    losses = model(**model.data_preprocessor(batch(names=('boxes', 'labels')), training=True), mode='loss')
    assert passes == [1, 1] and {key.partition('.')[0] for key in losses} == {'boxes', 'labels'}
    with pytest.raises(UserError, match=r"they name \['other'\], and \['boxes', 'labels', 'more'\] are trained"):
        model(**model.data_preprocessor(batch(names=('other', 'other')), training=True), mode='loss')


def test_tasks_that_are_not_trained_keep_weights_and_norms(model):
    config = dict(type='frozenmm.SharedTower', tower=small_models.tower(), data_preprocessor=PREPROCESSOR,
                  tasks=dict(boxes=task('mmdet_backbone'), labels=task('mmseg_backbone')), train_tasks=['boxes'],
                  scopes=dict(boxes='mmdet', labels='mmseg'))
    second = MODELS.build(config).train()
    before = {key: value.clone() for key, value in second.tasks['labels'].state_dict().items()
              if isinstance(value, torch.Tensor)}
    losses = second(**second.data_preprocessor(batch(), training=True), mode='loss')
    assert {key.partition('.')[0] for key in losses} == {'boxes'}
    second(**second.data_preprocessor(batch(), training=True), mode='predict')
    after = second.tasks['labels'].state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not any(p.requires_grad for p in second.tasks['labels'].parameters())


def test_nothing_is_kept_after_a_pass(model):
    model.eval()
    with torch.no_grad():
        model.test_step(batch())
    assert model.tower.passes.features == {}


def test_the_weights_of_a_whole_run_go_back(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / 'a.pth')
    saved = {name: value.clone() for name, value in model.named_parameters()}
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1)
    model.load_state_dict(torch.load(tmp_path / 'a.pth', weights_only=True))
    assert saved and all(torch.equal(value, saved[name]) for name, value in model.named_parameters())


@pytest.mark.parametrize(('changes', 'kind', 'words'), [
    (dict(tasks={}), UserError, 'needs tasks'),
    (dict(train_tasks=['boxs']), UnknownName, "'boxs'"),
    (dict(tasks=dict(boxes=small_models.config('mmdet_backbone'))), UserError,
     "the task 'boxes' does not look through the shared tower; write tower='shared'"),
])
def test_mistakes_are_named(changes, kind, words):
    config = dict(tasks=dict(boxes=task('mmdet_backbone')), data_preprocessor=PREPROCESSOR, scopes=None) | changes
    with pytest.raises(kind, match=words):
        SharedTower(small_models.tower(), **config)
