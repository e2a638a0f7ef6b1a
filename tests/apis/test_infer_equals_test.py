"""What an inferencer says about a picture is what a test of the same config says, whatever its pipeline does."""
from __future__ import annotations

import warnings

import pytest
import skimage.data
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.registry import DefaultScope
from PIL import Image
from tiny_segmentors import CONVNEXT, TRAINING, WIDTH, generator_options

from frozenmm.apis import DepthInferencer, DetectionInferencer, FusionerInferencer, OpenVocabularyInferencer
from frozenmm.registry import TRANSFORMS

WORDS = ['cat', 'cup']


class Negative(BaseTransform):
    """A transform of a user's own, which no prediction survives unchanged."""

    def transform(self, results: dict) -> dict:
        results['img'] = 255 - results['img']
        return results


class OnePicture(BaseDataset):
    """A data set of one picture, its `ann_file`."""

    def load_data_list(self) -> list[dict]:
        return [dict(img_path=self.ann_file, img_id=0, reduce_zero_label=False, seg_fields=[])]


@pytest.fixture(scope='module', autouse=True)
def _registered():
    TRANSFORMS.register_module(module=Negative, force=True)
    yield
    TRANSFORMS.module_dict.pop('Negative')


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp('photo') / 'a.png'
    Image.fromarray(skimage.data.chelsea()[40:136, 60:220]).save(path)
    return path


def _segmentor(scope: str) -> dict:
    """A tiny FC-CLIP, as a detector of mmdet or a segmentor of mmseg."""
    model = dict(type='frozenmm.FCCLIP', tower=CONVNEXT | dict(type='frozenmm.OpenCLIPTower'),
                 mask_generator=generator_options(), classifier=dict(
                     embed_channels=16, channels=WIDTH, train_vocabulary=TRAINING, templates='simple', text_tower=dict(
                         type='frozenmm.CLIPTextTower', weights='random',
                         model=dict(width=16, layers=1, heads=2, output_dim=16))))
    stats = dict(mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True)
    if scope == 'mmdet':
        return model | dict(data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32, **stats))
    return dict(type='frozenmm.OpenVocabularySegmentor', model=model, test_cfg=dict(logits=True),
                data_preprocessor=dict(type='SegDataPreProcessor', test_cfg=dict(size_divisor=32), **stats))


def _config(system: str, root) -> Config:
    name = dict(detection='quickstart/dino_frozen_scenes', fusioner='fusioner/fusioner_lite0_minilm_scenes',
                depth='frozen_recon/depth_lite0_rooms', frozen_depth='frozen_recon/depth_light_rooms').get(system)
    if name is None:
        scope = system.partition(' ')[2]
        return Config(dict(default_scope=scope, model=_segmentor(scope), test_dataloader=dict(dataset=dict())))
    cfg = Config.fromfile(root / f'configs/{name}.py')
    if system == 'depth':
        cfg.model.backbone.tower = cfg.model.backbone.tower.pop('tower')
    if system == 'frozen_depth':
        cfg.model.network.weights = 'random'
    return cfg


def _inferencer(system: str, cfg: Config):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        if system == 'detection':
            return DetectionInferencer(cfg)
        if 'depth' in system:
            return DepthInferencer(cfg)
        return (FusionerInferencer if system == 'fusioner' else OpenVocabularyInferencer)(cfg, WORDS)


def _tested(inferencer, cfg: Config, photo):
    """The prediction of a test: a data set reads the file, its loader collates, the model makes its test step."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        batch = pseudo_collate([OnePicture(str(photo), pipeline=cfg.test_dataloader.dataset.pipeline)[0]])
        if isinstance(inferencer, FusionerInferencer):  # its data sets say which classes an episode asks for
            batch['data_samples'][0].set_metainfo(dict(class_names=tuple(WORDS)))
        with torch.no_grad():
            return inferencer.model.test_step(batch)[0]


def _values(result) -> dict[str, torch.Tensor]:
    if hasattr(result, 'values') and hasattr(result, 'kind'):
        return dict(depth=torch.from_numpy(result.values))
    found = {}
    if 'pred_depth_map' in result:
        found['depth'] = result.pred_depth_map.data[0]
    if 'pred_sem_seg' in result:
        labels = result.pred_sem_seg
        found['semantic'] = labels.sem_seg if 'sem_seg' in labels else labels.data
    if 'seg_logits' in result:
        found['scores'] = result.seg_logits.data
    if 'pred_panoptic_seg' in result:
        found['panoptic'] = result.pred_panoptic_seg.sem_seg
    if 'pred_instances' in result:
        kept = result.pred_instances
        order = kept.scores.argsort(descending=True, stable=True)
        found.update(scores=kept.scores[order], boxes=kept.bboxes[order], labels=kept.labels[order])
    return found


PIPELINES = {
    'as it is': lambda steps, pack: steps or [dict(type='Resize', scale=(96, 64), keep_ratio=True), pack],
    'own transform': lambda steps, pack: [dict(type='frozenmm.Negative'), *(steps or [pack])],
    'stretched': lambda steps, pack: [dict(type='Resize', scale=(96, 96), keep_ratio=False), pack]}


@pytest.mark.parametrize('system', ['detection', 'words mmdet', 'words mmseg', 'fusioner', 'depth', 'frozen_depth'])
def test_every_system_answers_as_in_a_test(system, repo_root, photo, tmp_path):
    pytest.importorskip('mmseg')
    answers = {}
    for name, change in PIPELINES.items():
        cfg = _config(system, repo_root)
        pack = dict(type='PackDetInputs' if cfg.default_scope == 'mmdet' else 'PackSegInputs')
        # without annotations, which this picture has none of
        own = [step for step in cfg.test_dataloader.dataset.get('pipeline', []) if step.type == 'Resize' or
               step.type.rpartition('.')[2].startswith('Pack')]
        reading = dict(type='LoadImageFromFile', to_float32=name == 'stretched')
        cfg.test_dataloader.dataset.pipeline = [reading, *change(own, pack)]
        inferencer = _inferencer(system, cfg)
        (result, ) = inferencer(photo)
        ours, theirs = _values(result), _values(_tested(inferencer, cfg, photo))
        if system == 'fusioner':
            theirs = dict(semantic=theirs['semantic'] - 1)  # the head's class 0 is what fits no word
        assert ours.keys() == theirs.keys() and ours
        for key, value in ours.items():
            assert torch.equal(value, theirs[key].to(value.dtype)), (name, key)
        answers[name] = ours
    for name in ('own transform', 'stretched'):  # what the pipeline does is seen in the answer
        assert any(value.shape != answers[name][key].shape or not torch.equal(value, answers[name][key])
                   for key, value in answers['as it is'].items()), name


def test_a_transform_that_needs_annotations_is_left_out(photo, repo_root):
    cfg = _config('frozen_depth', repo_root)
    assert any(step.type == 'frozenmm.SampleDepthPoints' for step in cfg.test_dataloader.dataset.pipeline)
    (result, ) = DepthInferencer(cfg)(photo)
    assert result.values.shape == (96, 160) and result.kind == 'affine_depth'
