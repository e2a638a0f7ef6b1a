"""Inferencers of detectors, Fusioner and depth networks, and the one call that finds the right one."""
from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import skimage.data
import torch
from mmengine.config import Config
from PIL import Image

from frozenmm.apis import DepthInferencer, DetectionInferencer, FusionerInferencer, OpenVocabularyInferencer, inferencer
from frozenmm.compat.checkpoint import save_checkpoint_file
from frozenmm.errors import DeviceError, UserError
from frozenmm.foundation.depth_networks import DepthNetwork, DepthPrediction
from frozenmm.registry import INFERENCERS, MODELS
from frozenmm.zoo import checkpoints


class BrightDepth(DepthNetwork):
    """Brighter is farther: a depth network whose answer is known."""

    kind = 'affine_depth'

    def __init__(self, gain: float = 1.0, weights: str | None = None) -> None:
        super().__init__(torch.nn.Linear(1, 1), name='bright')
        self.gain, self.weights = gain, weights

    def predict(self, images):
        return DepthPrediction(images.float().mean(1) * self.gain + 1, self.kind)


@pytest.fixture(scope='module', autouse=True)
def _registered():
    MODELS.register_module(module=BrightDepth, force=True)
    yield
    MODELS.module_dict.pop('BrightDepth')


@pytest.fixture(scope='module')
def detector(repo_root):
    cfg = Config.fromfile(repo_root / 'configs/quickstart/dino_frozen_scenes.py')
    cfg.model.test_cfg.max_per_img = 5
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return DetectionInferencer(cfg)


@pytest.fixture
def fusioner(repo_root):
    cfg = Config.fromfile(repo_root / 'configs/fusioner/fusioner_lite0_minilm_scenes.py')
    torch.manual_seed(0)
    return FusionerInferencer(cfg, ['cat', 'cup, mug'])


def picture(height=60, width=90):
    return np.ascontiguousarray(skimage.data.chelsea()[:height, :width])


def test_a_detector_gives_boxes_in_pixels_of_the_image(demo_room, detector, tmp_path):
    results = detector([picture(), picture(90, 50)], out_dir=tmp_path, batch_size=2, min_score=0)
    assert detector.classes[0] == 'cat' and len(detector.classes) == 8
    for result, (height, width) in zip(results, [(60, 90), (90, 50)]):
        found = result.pred_instances
        assert len(found) == 5 and found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        assert found.bboxes.min() >= 0 and (found.bboxes.max(0).values <= torch.tensor([width, height] * 2)).all()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ['coco_annotations.json', 'coco_images.json', 'coco_results.json', 'image_0000_overlay.png',
                     'image_0001_overlay.png', 'results.jsonl']
    entry = json.loads((tmp_path / 'coco_results.json').read_text())[0]
    x, y, width, height = entry['bbox']
    assert results[0].pred_instances.bboxes[0].tolist() == pytest.approx([x, y, x + width, y + height])
    assert entry['category'] == detector.classes[entry['category_id']]
    assert Image.open(tmp_path / 'image_0000_overlay.png').width == 800


def test_a_detection_equals_what_mmdet_s_own_call_gives(detector, repo_root, tmp_path):
    from mmdet.apis import inference_detector
    from mmdet.utils import register_all_modules
    Image.fromarray(picture()).save(tmp_path / 'a.png')
    register_all_modules()
    detector.model.cfg = Config.fromfile(repo_root / 'configs/quickstart/dino_frozen_scenes.py')
    detector.model.cfg.test_dataloader.dataset.pipeline.pop(2)  # mmdet's call keeps the reading of annotations
    theirs = inference_detector(detector.model, str(tmp_path / 'a.png')).pred_instances
    ours = detector(tmp_path / 'a.png')[0].pred_instances
    assert torch.allclose(theirs.scores.sort(descending=True).values, ours.scores)
    order = theirs.scores.argsort(descending=True, stable=True)
    assert torch.equal(theirs.bboxes[order], ours.bboxes)


def test_scores_cut_what_is_said_and_drawn(detector):
    (result, ) = detector(picture())
    cut = float(result.pred_instances.scores[1])
    assert detector.summary(result, min_score=cut).count(',') == int((result.pred_instances.scores >= cut).sum()) - 1
    assert detector.summary(result, min_score=1.0) == 'nothing found (5 boxes below 1)'


def test_a_detector_names_labels_that_no_data_set_names(detector):
    known, detector.classes = detector.classes, ()
    try:
        (result, ) = detector(picture())
    finally:
        detector.classes = known
    assert result.classes[int(result.pred_instances.labels[0])].startswith('class ')


def test_a_fusioner_gives_every_pixel_a_word_or_none(fusioner, tmp_path):
    (result, ) = fusioner(picture(), out_dir=tmp_path)
    labels = result.pred_sem_seg.sem_seg
    assert labels.shape == (1, 60, 90) and set(labels.unique().tolist()) <= {-1, 0, 1}
    content = json.loads((tmp_path / 'results.jsonl').read_text())
    assert sum(entry['pixels'] for entry in content['classes']) == int((labels >= 0).sum())
    assert fusioner.vocabulary.names == ['cat', 'cup']
    fusioner.set_vocabulary(['cat'])
    assert fusioner(picture())[0].classes == ('cat', )


def test_a_fusioner_leaves_no_cache_behind(fusioner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fusioner.model.backbone.tower.cache is None
    fusioner(picture())
    assert not (tmp_path / 'cache').exists()


def test_depth_is_that_of_the_network_at_the_image_s_size(tmp_path):
    depth = DepthInferencer(dict(type='frozenmm.BrightDepth', gain=2.0))
    (result, ) = depth(picture(), out_dir=tmp_path)
    assert np.allclose(result.values, picture().astype(np.float32).mean(2) * 2 + 1, atol=1e-3)
    assert np.array_equal(np.load(tmp_path / 'image_0000_depth.npy'), result.values)
    stated = json.loads((tmp_path / 'image_0000.json').read_text())
    assert stated['kind'] == 'affine_depth' and stated['percentiles']['50'] == pytest.approx(np.median(result.values))
    assert 'affine_depth' in depth.summary(result)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A zoo with a detector and a depth network."""
    monkeypatch.setattr(checkpoints, 'FOLDER', tmp_path)
    monkeypatch.setattr(checkpoints.read_index, '__defaults__', (tmp_path / 'index.json', ))

    def add(name, task, config, state, meta):
        path = tmp_path / 'new.safetensors'
        save_checkpoint_file(path, state, meta)
        digest = checkpoints.file_digest(path)
        path.rename(tmp_path / f'{name}-{digest[:8]}.safetensors')
        file = tmp_path / 'index.json'
        index = json.loads(file.read_text()) if file.is_file() else {}
        index[name] = dict(aliases=[], task=task, config=config, file=f'{name}-{digest[:8]}.safetensors', sha256=digest,
                           what='-', license='-', data_terms='-', make='-')
        file.write_text(json.dumps(index))
    return add


def test_names_of_the_zoo_and_tasks_lead_to_the_right_inferencer(shelf, detector):
    state = {key: value for key, value in detector.model.state_dict().items() if isinstance(value, torch.Tensor)}
    shelf('finder', 'detection', 'configs/quickstart/dino_frozen_scenes.py', state, dict(classes=list('abcdefgh')))
    shelf('bright', 'depth', None, {'a': torch.ones(1)}, dict(network=dict(type='frozenmm.BrightDepth', gain=3.0)))
    for name in ('finder', 'detection'):
        found = inferencer(name)
        assert isinstance(found, DetectionInferencer) and found.classes == tuple('abcdefgh')
    assert torch.equal(found.model.bbox_head.cls_branches[0].bias, detector.model.bbox_head.cls_branches[0].bias)
    for name in ('bright', 'depth'):
        found = inferencer(name)
        assert isinstance(found, DepthInferencer) and found.network.gain == 3.0
        assert found.network.weights.endswith('.safetensors')
    with pytest.raises(ValueError, match='takes no vocabulary'):
        inferencer('finder', ['cat'])
    with pytest.raises(ValueError, match='has one task only'):
        inferencer('finder', task='panoptic')
    with pytest.raises(FileNotFoundError, match="no checkpoint for 'semantic'"):
        inferencer('semantic', ['cat'])


def test_configs_lead_to_the_right_inferencer():
    assert isinstance(inferencer('dino_scratch_scenes'), DetectionInferencer)
    assert isinstance(inferencer('fusioner_lite0_minilm_scenes', ['cat']), FusionerInferencer)
    assert isinstance(inferencer('fc_clip_conse-lite0_scenes', ['cat']), OpenVocabularyInferencer)
    assert isinstance(inferencer(dict(type='frozenmm.BrightDepth')), DepthInferencer)


@pytest.mark.parametrize(('model', 'error', 'text'), [
    (dict(model=dict(type='mmdet.ResNet', depth=18)), ValueError, 'no inferencer for ResNet'),
    (dict(model=dict(type='frozenmm.NoSuchThing')), ValueError, "registered as 'frozenmm.NoSuchThing'"),
    ('dino_scratch_scene', FileNotFoundError, 'nearest: dino_scratch_scenes'),
    (dict(type='frozenmm.BrightDepht'), KeyError, 'nearest: frozenmm.BrightDepth'),
    (dict(type='mmdet.ResNet', depth=18), TypeError, 'must be a depth network, got ResNet'),
    (dict(data=1), ValueError, 'the config has no `model`'),
])
def test_what_has_no_inferencer_is_answered_in_a_sentence(model, error, text):
    with pytest.raises(error, match=text):
        inferencer(model)


def test_a_detector_without_pipeline_or_of_another_kind_is_refused(repo_root):
    cfg = Config.fromfile(repo_root / 'configs/quickstart/dino_scratch_scenes.py')
    cfg.test_dataloader.dataset.pipeline = []
    with pytest.raises(ValueError, match='no pipeline in test_dataloader'):
        DetectionInferencer(cfg)
    with pytest.raises(ValueError, match='a detector of mmdet is needed'):
        DetectionInferencer('fusioner_lite0_minilm_scenes')
    with pytest.raises(ValueError, match='a FusionerSegmentor is needed'):
        FusionerInferencer('dino_scratch_scenes')


def test_a_file_that_is_no_config_is_refused(tmp_path):
    (tmp_path / 'a.py').write_text('model = dict(')
    with pytest.raises(ValueError, match='cannot be read as a config'):
        inferencer(tmp_path / 'a.py')


def test_an_inferencer_of_one_s_own_is_found_by_its_model():
    class BrightInferencer(DepthInferencer):

        def __init__(self, model, *, device='auto'):
            super().__init__(model, device=device)

        @classmethod
        def models(cls):
            return (BrightDepth, )

    INFERENCERS.register_module(module=BrightInferencer)
    try:
        found = inferencer(dict(model=dict(type='frozenmm.BrightDepth', gain=4.0)))
        assert type(found) is BrightInferencer and found.model.gain == 4.0
        with pytest.raises(UserError, match='BrightInferencer takes no weights'):
            inferencer(dict(model=dict(type='frozenmm.BrightDepth')), weights='a.pth')
    finally:
        INFERENCERS.module_dict.pop('BrightInferencer')


def test_a_missing_device_is_refused_before_anything_is_built():
    with pytest.raises(DeviceError, match="got 'gpu'"):
        inferencer('dino_scratch_scenes', device='gpu')
