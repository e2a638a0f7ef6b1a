"""The tools of tools/analysis and what they call."""
from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from PIL import Image

from frozenmm.apis.model_costs import Costs, costs_table, model_costs
from frozenmm.engine.browsing import browse
from frozenmm.engine.launch import load_config
from frozenmm.visualization.annotations import draw_sample
from frozenmm.visualization.curves import plot_scalars, read_scalars
from frozenmm.visualization.gallery import write_gallery


def test_a_frozen_network_costs_no_bytes_and_its_parameters_are_counted(repo_root):
    costs = model_costs(Config.fromfile(repo_root / 'configs/quickstart/dino_frozen_scenes.py'), size=(96, 96))
    assert costs.frozen == 3_383_240 or 3.2e6 < costs.frozen < 4.8e6
    assert 4 * costs.trained < costs.checkpoint_bytes < 4 * costs.trained + 500_000
    assert costs.macs is not None and costs.macs > 1e8
    larger = model_costs(Config.fromfile(repo_root / 'configs/quickstart/dino_scratch_scenes.py'), size=(96, 96))
    assert larger.frozen == 0 and larger.checkpoint_bytes > 4 * larger.trained


def test_multiply_adds_are_those_of_the_definition():
    """A 1x1 convolution on the frozen map: what the counter says of the head is cells times channels times classes."""
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter:
        torch.nn.Conv2d(7, 5, 1)(torch.zeros(1, 7, 11, 13))
    assert counter.get_total_flops() // 2 == 7 * 5 * 11 * 13


def test_the_table_says_why_a_row_is_missing():
    table = costs_table({'a': Costs(1_500_000, 10, 6_000_000, None), 'b': 'weights are not here'})
    assert '| `a` | 1.50 M | 0.00 M | - | 6.0 MB |' in table and 'not built: weights are not here' in table


def test_random_towers_need_no_file(repo_root, monkeypatch, tmp_path):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path))
    cfg = Config.fromfile(repo_root / 'configs/generic/mask-rcnn_r50_fpn_frozen-dinov2-s-neck_1x_coco.py')
    cfg.model.backbone.update(depth=18, init_cfg=None)
    cfg.model.neck.neck.in_channels = [64, 128, 256, 512]
    cfg.test_dataloader.dataset.pipeline[1].scale = (64, 64)
    costs = model_costs(cfg, size=(64, 64), random_towers=True)
    assert costs.frozen > 2e7 and costs.checkpoint_bytes < 4.2 * costs.trained


@pytest.fixture
def scenes_config(repo_root, tiny_coco):
    return load_config(repo_root / 'configs/quickstart/dino_scratch_scenes.py', [f'data_root={tiny_coco}'])


def test_images_are_drawn_as_the_pipeline_gives_them(scenes_config, tmp_path):
    paths = list(browse(scenes_config, tmp_path, count=3))
    assert [path.name for path in paths] == ['000000.png', '000001.png', '000002.png']
    assert Image.open(paths[0]).size == (480, 480)
    with pytest.raises(ValueError, match='start must be in 0..3, got 9'):
        list(browse(scenes_config, tmp_path, start=9))
    scenes_config.pop('test_dataloader')
    with pytest.raises(ValueError, match='no test_dataloader'):
        list(browse(scenes_config, tmp_path, stage='test'))


def test_boxes_masks_maps_and_nothing_are_drawn():
    image = torch.zeros(3, 20, 30)
    image[0] = 200  # blue, as BGR
    sample = DetDataSample()
    assert draw_sample(image, sample, ['a'], width=60)[5, 5].tolist() == [0, 0, 200]
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[2.0, 2, 20, 18]]), labels=torch.tensor([3]))
    boxes = draw_sample(image, sample, ['a'], width=60)
    assert boxes.shape == (40, 60, 3) and (boxes != [0, 0, 200]).any()
    mask = torch.zeros(1, 20, 30, dtype=torch.bool)
    mask[0, :, :15] = True
    sample.gt_instances.masks = mask
    drawn = draw_sample(image, sample, ['a', 'b', 'c', 'd'], width=60)
    assert drawn[5, 50].tolist() == [0, 0, 200] and drawn[5, 3].tolist() != [0, 0, 200]
    sample.gt_sem_seg = PixelData(sem_seg=torch.full((1, 20, 30), 255))
    sample.gt_sem_seg.sem_seg[:, :, 20:] = 1
    drawn = draw_sample(image, sample, ['a', 'b'], width=60)
    assert drawn[5, 3].tolist() == [0, 0, 200] and drawn[5, 55].tolist() != [0, 0, 200]


def test_a_gallery_shows_pictures_with_what_is_said_of_them(tmp_path):
    for name in ('a b', '<i>'):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / f'{name}_overlay.png')
    (tmp_path / 'results.jsonl').write_text(json.dumps(dict(image_id=1, name='a b', segments=[
        dict(name='cat', score=0.5), dict(name='dog & co', score=0.75), dict(name='sky', score=None)])) + '\n')
    page = write_gallery(tmp_path, title='A < B').read_text()
    assert 'dog &amp; co 0.75, cat 0.50, sky' in page and 'src="a%20b_overlay.png"' in page
    assert '<i>' not in page and '&lt;i&gt;' in page and 'A &lt; B' in page
    with pytest.raises(FileNotFoundError, match='holds no pictures'):
        write_gallery(tmp_path / 'empty')
    (tmp_path / 'results.jsonl').write_text('{')
    with pytest.raises(ValueError, match='cannot be read as the results of a folder'):
        write_gallery(tmp_path)


def test_scalars_of_several_runs_are_drawn_and_unknown_ones_answered(tmp_path):
    for run in 'ab':
        folder = tmp_path / run / '20260101' / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text('\n'.join(json.dumps(dict(loss=1 / n, lr=0.1, step=n)) for n in (1, 2, 3)))
    assert read_scalars(tmp_path / 'a')['loss'] == [(1.0, 1.0), (2.0, 0.5), (3.0, 1 / 3)]
    out = plot_scalars([tmp_path / 'a', tmp_path / 'b'], ['loss', 'lr'], tmp_path / 'out.png')
    assert Image.open(out).size == (700, 640)
    with pytest.raises(ValueError, match="no run has the scalar 'los'; nearest: loss"):
        plot_scalars([tmp_path / 'a'], ['los'], tmp_path / 'out.png')
    with pytest.raises(FileNotFoundError, match='no vis_data/scalars.json'):
        read_scalars(tmp_path / 'c')
    (tmp_path / 'a/20260101/vis_data/scalars.json').write_text('no json')
    with pytest.raises(ValueError, match='line 1 cannot be read as a JSON object'):
        read_scalars(tmp_path / 'a')


@pytest.mark.parametrize('tool', ['frozen_and_trained', 'browse_data', 'browse_predictions', 'plot_log'])
def test_a_mistake_ends_in_one_sentence(repo_root, tool, tmp_path):
    done = subprocess.run([sys.executable, f'tools/analysis/{tool}.py', str(tmp_path / 'nothing')], cwd=repo_root,
                          capture_output=True, text=True)
    assert done.returncode == 2 and 'error: ' in done.stderr and 'Traceback' not in done.stderr
