"""The configs of configs/frozen_detr: the base equals stock mmdet DINO, the others are short, build and train."""
from __future__ import annotations

import ast
import copy
import logging
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

import frozenmm  # noqa: F401  (before mmdet, so that the holes of the installation are filled)
from frozenmm.apis.model_sources import open_model
from frozenmm.compat.mmcv_ext import compiled_extension
from frozenmm.ops import accelerate, backend, loader, restore
from frozenmm.registry import MODELS

FOLDER = Path(__file__).resolve().parents[2] / 'configs' / 'frozen_detr'
CONFIGS = sorted(FOLDER.glob('*.py'))
TINY = dict(CLIPTower=dict(model=dict(input_resolution=48, patch_size=8, width=32, layers=1, heads=2, output_dim=24)),
            DINOv2Tower=dict(model=dict(img_size=48, patch_size=8, embed_dim=40, depth=1, num_heads=2), size=48))
TEXT = dict(type='frozenmm.CLIPTextTower', weights='random', model=dict(width=16, layers=1, heads=2, output_dim=12))


@pytest.fixture(autouse=True)
def _mmdet_scope():
    """What a Runner sets from `default_scope`; mmengine's list of initial values stays quiet."""
    logging.disable(logging.INFO)
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield
    logging.disable(logging.NOTSET)


def stock_config(name: str) -> Config:
    import mmdet
    folder = Path(mmdet.__file__).parent / '.mim' / 'configs'
    if not folder.is_dir():
        pytest.skip('this installation of mmdet brings no config files')
    return Config.fromfile(folder / 'dino' / name)


def shrunk(model: dict) -> dict:
    """The model with one layer, few queries, a thin ResNet-18 and random tiny towers; the parts stay what they are."""
    model = copy.deepcopy(model.to_dict() if hasattr(model, 'to_dict') else model)
    model.update(num_queries=20)
    if model['backbone']['type'] == 'ResNet':
        model['backbone'].update(depth=18, base_channels=8, stem_channels=8, init_cfg=None)
    else:
        model['backbone'].update(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], init_cfg=None)
    model['neck']['in_channels'] = [16, 32, 64]
    head = model['bbox_head']
    if head['num_classes'] == 1203:
        head['num_classes'] = 80
        head['loss_cls']['counts'] = list(range(1, 81))
        if 'text_classifier' in head:
            head['text_classifier'].update(text_tower=TEXT, templates='simple',
                                           vocabulary=[f'word {index}' for index in range(80)])
    if 'collaborators' in model:
        model['collaborators']['roi_head']['bbox_head']['fc_out_channels'] = 16
    for part in 'encoder', 'decoder':
        model[part]['num_layers'] = 1
    for enhancer in model.get('enhancers', ()):
        kind = enhancer['tower']['type'].removeprefix('frozenmm.')
        enhancer['tower'].update(TINY[kind], weights='random')
    return model


def batch() -> dict:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    sample = DetDataSample(metainfo=dict(img_shape=(64, 80), ori_shape=(64, 80), scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[4.0, 5, 40, 50], [20, 8, 70, 60]]),
                                       labels=torch.tensor([3, 70]))
    return dict(inputs=[torch.randint(0, 256, (3, 64, 80), generator=torch.Generator().manual_seed(0),
                                      dtype=torch.uint8)], data_samples=[sample])


def loss_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model(**model.data_preprocessor(batch(), True), mode='loss')


@pytest.mark.parametrize('ours,stock', [('dino_4scale_r50_1x_coco', 'dino-4scale_r50_8xb2-12e_coco'),
                                        ('dino_4scale_r50_2x_coco', 'dino-4scale_r50_8xb2-24e_coco')])
def test_plain_dino_says_what_mmdets_own_config_says(ours, stock):
    ours, stock = Config.fromfile(FOLDER / f'{ours}.py'), stock_config(f'{stock}.py')

    def without_backend(value):
        if isinstance(value, dict):
            return {key: without_backend(item) for key, item in value.items() if key != 'backend_args'}
        return [without_backend(item) for item in value] if isinstance(value, list | tuple) else value
    for key in ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader', 'val_dataloader',
                'test_dataloader', 'val_evaluator', 'auto_scale_lr', 'default_scope'):
        assert without_backend(ours.to_dict()[key]) == without_backend(stock.to_dict()[key]), key


def test_plain_dino_has_the_architecture_and_losses_of_stock_dino():
    stock = MODELS.build(dict(shrunk(stock_config('dino-4scale_r50_8xb2-12e_coco.py').model), type='mmdet.DINO'))
    stock.init_weights()
    ours = shrunk(Config.fromfile(FOLDER / 'dino_4scale_r50_1x_coco.py').model)
    models = [MODELS.build(dict(copy.deepcopy(ours), type=kind)) for kind in ('mmdet.DINO', 'frozenmm.EnhancedDINO')]
    expected = loss_of(stock)
    for model in models:
        model.load_state_dict(stock.state_dict(), strict=True)
        assert {key: value.shape for key, value in model.state_dict().items()} == {
            key: value.shape for key, value in stock.state_dict().items()}
        losses = loss_of(model)
        assert losses.keys() == expected.keys()
        # mmdet's own class is the same numbers; ours runs on our deformable attention
        for key in expected:
            torch.testing.assert_close(losses[key], expected[key], atol=1e-5,
                                       rtol=0 if type(model) is type(stock) else 1e-5)


@pytest.mark.parametrize('path', CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_config_trains_two_iterations(path):
    config = Config.fromfile(path)
    assert config.default_scope == 'mmdet' and config.custom_imports.imports == ['frozenmm']
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.build(shrunk(config.model))
        model.init_weights()
    from mmengine.optim import build_optim_wrapper
    optimizer = build_optim_wrapper(model, copy.deepcopy(config.optim_wrapper))
    before = model.level_embed.detach().clone()
    for _ in range(2):
        total, _ = model.parse_losses(loss_of(model))
        assert torch.isfinite(total)
        optimizer.update_params(total)
    assert not torch.equal(before, model.level_embed)


@pytest.fixture
def accelerator(monkeypatch):
    """Sends mmcv's attention down the branch of devices that need compiled operators, on tensors of the CPU."""
    import mmcv.ops.multi_scale_deform_attn as source

    def refuse(*arguments):
        raise AssertionError('mmcv\'s torch path ran')

    monkeypatch.setattr(source, 'IS_MLU_AVAILABLE', True)
    monkeypatch.setattr(torch.Tensor, 'is_mlu', True, raising=False)
    monkeypatch.setattr(source, 'multi_scale_deformable_attn_pytorch', refuse)


@pytest.mark.skipif(compiled_extension() is not None, reason='mmcv has compiled operators')
@pytest.mark.parametrize('path', CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_config_trains_and_predicts_on_an_accelerator_without_compiled_mmcv(path, accelerator):
    """Forward and backward with mmcv's modules as they are equal those with our own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.build(shrunk(Config.fromfile(path).model))
        model.init_weights()
    results = []
    for prepare in (restore, accelerate):
        prepare(model)
        model.zero_grad()
        total, _ = model.parse_losses(loss_of(model))
        total.backward()
        model.eval()
        with torch.no_grad():
            found = model(**model.data_preprocessor(batch(), False), mode='predict')[0].pred_instances
        results.append((total.detach(), model.level_embed.grad.clone(), found.scores.sort().values))
    for plain, ours in zip(*results):
        torch.testing.assert_close(plain, ours, atol=1e-4, rtol=1e-4)


def test_the_detector_runs_our_attention_unless_kernels_are_refused(monkeypatch):
    config = shrunk(Config.fromfile(FOLDER / 'frozen_dino_4scale_r50_clip-l336_1x_coco.py').model)
    if backend('cpu') == 'native':
        assert len(restore(MODELS.build(copy.deepcopy(config)))) == 2
    monkeypatch.setattr(loader, '_state', {kind: loader.Library(kind, False, 'FROZENMM_OPS=torch')
                                           for kind in ('cpu', 'cuda')})
    assert restore(MODELS.build(config)) == []


@pytest.mark.skipif(backend('cpu') != 'native', reason='the CPU library is not built')
def test_a_detector_of_mmdet_that_an_inferencer_opens_runs_our_attention():
    config = Config.fromfile(FOLDER / 'dino_4scale_r50_1x_coco.py')
    config.model = shrunk(config.model)
    model, _ = open_model(config, None, kinds=(torch.nn.Module, ), wanted='a model', device=torch.device('cpu'))
    undone = restore(model)
    # two of deformable attention; what else is undone are folded norms and attention without its weights
    assert len([name for name in undone if name.endswith('.self_attn') and 'encoder' in name
                or name.endswith('.cross_attn')]) == 2
    assert 'backbone.bn1' in undone and restore(model) == []


@pytest.mark.parametrize('path', CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_config_is_a_short_difference_with_a_full_docstring(path):
    source = path.read_text()
    tree = ast.parse(source)
    text = ast.get_docstring(tree)
    assert 'Published:' in text and 'Command: bash tools/dist_train.sh' in text and 'Source:' in text
    assert f'configs/frozen_detr/{path.name}' in text
    lines = source.splitlines()[tree.body[0].end_lineno:]
    assert sum(bool(line.strip()) for line in lines) <= 15
