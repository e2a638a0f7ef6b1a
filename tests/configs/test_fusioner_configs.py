"""Every config under configs/fusioner builds, trains two iterations through its runner and is tested, on tiny data."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from frozenmm.datasets.few_shot import fold_table
from frozenmm.engine.launch import build_runner
from frozenmm.foundation.frozen_module import frozen_modules
from frozenmm.registry import HAS_DEMO

FOLDER = Path(__file__).resolve().parents[2] / 'configs' / 'fusioner'
CONFIGS = sorted(path.stem for path in FOLDER.glob('*.py'))
SIDE = 64
SCENES = dict(train=3, val=2, size=64, objects=(3, 4))


@pytest.fixture(autouse=True)
def _scope_and_home(tmp_path, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))
    yield
    init_default_scope('mmengine')


def picture(image: Path, labels: np.ndarray, maps: Path, colour: bool = False) -> None:
    for path in image, maps:
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat((labels[..., None] * 37 % 255).astype(np.uint8), 3, -1)).save(image)
    Image.fromarray(np.repeat(labels[..., None], 3, -1) if colour else labels).save(maps)


def blocks(*values: int) -> np.ndarray:
    labels = np.zeros((72, 96), np.uint8)
    for index, value in enumerate(values):
        labels[8 + 4 * index:60, 20 * index + 4:20 * index + 20] = value
    return labels


def tiny_data(root: Path, config: Config) -> None:
    """Three images in the layout that the config expects, and the config pointed at them."""
    for loader in config.train_dataloader, config.val_dataloader, config.test_dataloader:
        loader.update(num_workers=0, persistent_workers=False, batch_size=min(loader.batch_size, 2))
        dataset = loader.dataset
        inner = dataset.get('source', dataset)
        kind = inner.type.rpartition('.')[2]
        inner.data_root = str(root / kind)
        if dataset is not inner:
            dataset.update(data_root=str(root / 'mosaics'), count=2, side=48)
        if kind == 'SceneEpisodes':
            inner.settings = SCENES
        if kind == 'PASCAL5iDataset' and inner.split == 'test':
            inner.asking = dict(pairs=[('v0', 1), ('v1', 2)])
        WRITERS[kind](root / kind, inner)


def pascal(root: Path, _: dict) -> None:
    for stem, values in dict(t0=(6, 9), t1=(7, 1), v0=(1, 8), v1=(2, )).items():
        picture(root / 'JPEGImages' / f'{stem}.jpg', blocks(*values), root / 'SegmentationClassAug' / f'{stem}.png')
    lists = root / 'ImageSets' / 'Segmentation'
    lists.mkdir(parents=True, exist_ok=True)
    (lists / 'val.txt').write_text('v0\nv1\n')


def coco(root: Path, settings: dict) -> None:
    if 'maps' in settings:
        coco_panoptic(root, settings)
        return
    prefix = settings['data_prefix']
    if settings.get('test') == 'balanced1000':
        settings.update(test='all')
    for stem, values in dict(a=(2, 5, 3), b=(1, 7, 9, 4)).items():
        picture(root / prefix['img_path'] / f'{stem}.jpg', blocks(*values),
                root / prefix['seg_map_path'] / f'{stem}.png')


def coco_panoptic(root: Path, settings: dict) -> None:
    table = fold_table('coco20i')
    categories = [dict(id=number, name=name) for number, name in zip(table['coco_ids'], table['names'])]
    images, annotations = [], []
    for number, values in enumerate([(2, 3, 5), (1, 7)], start=1):
        labels = blocks(*values)
        picture(root / settings['data_prefix']['img_path'] / f'{number}.jpg', labels,
                root / settings['maps']['panoptic_folder'] / f'{number}.png', colour=True)
        # the colour of a segment is (v, v, v)
        segments = [dict(id=int(v) * 65793, category_id=table['coco_ids'][v - 1], iscrowd=0) for v in values]
        images.append(dict(id=number, file_name=f'{number}.jpg', width=96, height=72))
        annotations.append(dict(image_id=number, file_name=f'{number}.png', segments_info=segments))
    path = root / settings['maps']['annotations']
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def fss(root: Path, settings: dict) -> None:
    for name in fold_table('fss1000')[settings['split']]:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in fold_table('fss1000')[settings['split']][:5]:
        picture(root / name / '1.jpg', blocks(255), root / name / '1.png')


def scenes(*_: object) -> None:
    """The runner paints them."""
    if not HAS_DEMO:
        pytest.skip('shows scenes of frozenmm.demo, which has been removed')


WRITERS = dict(PASCAL5iDataset=pascal, COCO20iDataset=coco, FSS1000Dataset=fss, SceneEpisodes=scenes)
CLIP = dict(input_resolution=SIDE, patch_size=16, width=16, layers=1, heads=2, output_dim=12)
RESNET = dict(input_resolution=SIDE, width=8, layers=[1, 1, 1, 1], heads=2, output_dim=12)
TEXT = dict(type='frozenmm.CLIPTextTower', weights='random', model=dict(width=16, layers=1, heads=2, output_dim=12))


def shrunk(name: str, tmp_path: Path) -> Config:
    """The config with random small networks and short pipelines; its data, loops, hooks and optimizer stay."""
    config = Config.fromfile(FOLDER / f'{name}.py')
    model, head = config.model, config.model.decode_head
    model.data_preprocessor.size = (SIDE, SIDE)
    tower = model.backbone.tower
    if tower.type.endswith('CachedTower'):
        tower.folder = str(tmp_path / 'cache')
        tower = tower.tower
    tower.weights = 'random'
    if tower.type.endswith('CLIPTower'):
        tower.model = RESNET if 'out_maps' in tower else CLIP
        head.in_channels = 12
    elif tower.type.endswith('TimmTower'):
        tower.model = 'vit_tiny_patch16_224'
        head.in_channels = 192
    elif tower.type.endswith('DINOv2Tower'):
        tower.model = dict(embed_dim=24, depth=1, num_heads=2)
        head.in_channels = 24
        model.data_preprocessor.size = (56, 56)
    elif tower.type.endswith('ConSETower'):
        tower.pop('weights')
        tower.update(text_tower=TEXT, store=False, tower=dict(type='frozenmm.EfficientNetLiteTower', weights='random'))
        head.in_channels = [320, 12]
        head.masks.fusion_drop = 0.0  # two steps, the first with rate 0, must reach the fusion
    head.pop('text_tower')
    head.update(text_tower=TEXT, channels=16, fusion=dict(num_layers=1, num_heads=2), templates='simple',
                store_text=False)
    side = model.data_preprocessor.size[0]
    for loader in config.train_dataloader, config.val_dataloader, config.test_dataloader:
        resize(loader.dataset.pipeline, side)
    tiny_data(tmp_path / 'data', config)
    config.train_cfg.update(max_iters=2, val_interval=2)
    config.work_dir = str(tmp_path / 'work')
    config.default_hooks.checkpoint.interval = 2
    config.default_hooks.logger.interval = 1
    config.env_cfg.dist_cfg.backend = 'gloo'
    config.visualizer.vis_backends = []
    config.randomness = dict(seed=0)
    return config


def resize(node: object, side: int) -> None:
    if isinstance(node, dict):
        for key in 'scale', 'crop_size':
            if key in node:
                node[key] = (side, side)
        if str(node.get('type')).endswith('FusionerAugmentation'):
            node['size'] = side
        for value in node.values():
            resize(value, side)
    elif isinstance(node, list):
        for value in node:
            resize(value, side)


@pytest.mark.parametrize('name', CONFIGS)
def test_config_trains_two_iterations_and_is_tested(name, tmp_path):
    config = shrunk(name, tmp_path)
    with torch.random.fork_rng():
        runner = build_runner(config)
        start = {key: value.detach().clone() for key, value in runner.model.named_parameters()}
        towers = frozen_modules(runner.model)
        before = [{key: value.clone() for key, value in tower.network.state_dict().items()}
                  for tower in towers.values()]
        runner.train()
    assert len(towers) == 2
    moved = {key for key, value in runner.model.named_parameters() if not torch.equal(value, start[key])}
    assert len(moved) > 0.8 * len(start)
    for tower, state in zip(towers.values(), before):
        assert all(torch.equal(value, state[key]) for key, value in tower.network.state_dict().items())
    metrics = {key: value for key, value in runner.message_hub.log_scalars.items() if key.endswith('mIoU')}
    wanted = {'val/mIoU', 'val/seen/mIoU', 'val/unseen/mIoU'} if 'minilm' in name else {'val/mIoU'}
    assert set(metrics) == wanted and 0 <= metrics['val/mIoU'].current() <= 100


@pytest.mark.parametrize('name', CONFIGS)
def test_config_says_what_it_is(name):
    text = (FOLDER / f'{name}.py').read_text()
    assert text.startswith('"""') and 'Metric:' in text and '::' not in text
    assert f'Command: python tools/train.py configs/fusioner/{name}.py' in text
    config = Config.fromfile(FOLDER / f'{name}.py')
    assert config.default_scope == 'mmseg' and config.custom_imports.imports == ['frozenmm']
    assert config.train_cfg.max_iters >= config.train_cfg.val_interval


def test_every_config_is_listed():
    metafile = Config.fromfile(FOLDER / 'metafile.yml')
    assert sorted(model.Name for model in metafile.Models) == CONFIGS
    assert all(f'`{name}.py`' in (FOLDER / 'README.md').read_text() for name in CONFIGS)
