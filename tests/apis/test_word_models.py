"""Which model looks for words where none is named: what is there, what may be fetched, and else a demonstration."""
from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from served import Handler, serving

from frozenmm.apis import word_models
from frozenmm.apis.word_models import best_word_model
from frozenmm.foundation.image_towers import clip, dino
from frozenmm.foundation.text_towers import clip as clip_text
from frozenmm.registry import MODELS
from frozenmm_command import main

TINY = clip.CLIPModel(32, 32, 2, 2, 24, 8, '', 1, 'ViT-B-16.pt')
TINY_DINO = dict(patch_size=8, embed_dim=16, depth=1, num_heads=2)
DINO_FILE = 'dino_vitbase8_pretrain'
DEMONSTRATION = 'words-lite0'


class ByName(Handler):
    """Serves the files of a folder."""

    folder: Path

    def do_GET(self) -> None:
        self.server.content = (self.folder / self.path.rpartition('/')[2]).read_bytes()
        super().do_GET()


@pytest.fixture(scope='module')
def official(tmp_path_factory):
    """Random weights in the layouts of OpenAI's CLIP and of DINO."""
    folder = tmp_path_factory.mktemp('official')
    sizes = dict(input_resolution=32, patch_size=8, width=32, layers=2, heads=2, output_dim=24)
    image = MODELS.build(dict(type='frozenmm.CLIPTower', weights='random:1', model=sizes))
    text = MODELS.build(dict(type='frozenmm.CLIPTextTower', weights='random:2',
                             model=dict(width=64, layers=12, heads=1, output_dim=24)))
    proxy = MODELS.build(dict(type='frozenmm.DINOTower', weights='random:3', model=dict(TINY_DINO, img_size=224)))
    state = {f'visual.{key}': value for key, value in image.network.state_dict().items()}
    torch.save({**state, **text.network.state_dict(), 'logit_scale': torch.tensor(4.6)}, folder / 'ViT-B-16.pt')
    torch.save(proxy.network.state_dict(), folder / f'{DINO_FILE}.pth')
    return folder


@pytest.fixture
def server(official, tmp_path, monkeypatch):
    """Of small models in the place of the published ones."""
    digest = hashlib.sha256((official / 'ViT-B-16.pt').read_bytes()).hexdigest()
    monkeypatch.setitem(clip.MODELS_BY_NAME, 'ViT-B/16', replace(TINY, sha256=digest))
    monkeypatch.setitem(clip_text.WIDTHS, 'ViT-B/16', 64)
    monkeypatch.setitem(dino._MODELS, 'dino_vitb8', (TINY_DINO, DINO_FILE, 2))
    monkeypatch.delenv('FROZENMM_OFFLINE', raising=False)
    with serving(b'') as running:
        running.RequestHandlerClass = type('Served', (ByName, ), dict(folder=official))
        monkeypatch.setenv('FROZENMM_MIRROR', running.address)
        yield running


def put(name: str, content: bytes = b'') -> Path:
    path = word_models.weights_folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def refuse(question):
    raise AssertionError(f'asked {question}')


def test_without_terminal_nobody_is_asked_and_nothing_is_fetched(server):
    best = best_word_model()
    assert best.model == DEMONSTRATION and server.asked == []
    assert 'is a demonstration model' in best.remark and 'frozenmm zoo fetch clip:ViT-B/16' in best.remark


def test_a_yes_fetches_what_is_missing_and_the_model_finds_words(server, tmp_path, capsys, monkeypatch):
    questions = []
    monkeypatch.setattr('frozenmm_command.infer._yes', lambda question: not questions.append(question))
    monkeypatch.setattr('sys.stdin.isatty', lambda: True, raising=False)
    monkeypatch.setattr('sys.stdout.isatty', lambda: True, raising=False)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / 'a.png')
    arguments = [str(tmp_path / 'a.png'), '--vocab', 'cat, dog', '--device', 'cpu', '--out', str(tmp_path / 'out')]
    main('infer', arguments)
    said = capsys.readouterr().out
    assert 'Fetch 3 MB' in questions[0] and 'CLIP ViT-B/16 (1 MB, licence: MIT) and DINO' in questions[0]
    assert said.startswith('proxyclip_clip-b16_coco-object: CLIP ViT-B/16 and DINO ViT-B/8 without training')
    assert len(server.asked) == 2 and (tmp_path / 'out' / 'semantic_classes.csv').is_file()
    main('infer', arguments)
    assert len(questions) == 1 and len(server.asked) == 2  # they are there now


def test_a_no_is_remembered(server):
    questions = []

    def no(question):
        questions.append(question)
        return False

    assert [best_word_model(ask=no).model for _ in range(2)] == [DEMONSTRATION] * 2
    assert len(questions) == 1 and server.asked == []


def test_offline_asks_nobody(server, monkeypatch):
    monkeypatch.setenv('FROZENMM_OFFLINE', '1')
    assert best_word_model(ask=refuse).model == DEMONSTRATION


def test_a_server_that_fails_leaves_the_demonstration_and_says_why(server):
    server.RequestHandlerClass, server.manner = Handler, 'no_http'
    best = best_word_model(ask=lambda question: True)
    assert best.model == DEMONSTRATION and 'ViT-B-16.pt' in best.remark and 'fetching it failed' in best.remark


def test_clip_alone_is_enough_and_dino_makes_it_better(server):
    put('ViT-B-16.pt')
    assert best_word_model(ask=refuse).model == 'naclip_clip-b16_coco-object'
    put(f'{DINO_FILE}.pth')
    assert best_word_model(ask=refuse).model == 'proxyclip_clip-b16_coco-object'


@pytest.mark.parametrize('wanted', [dict(task='panoptic'), dict(task='instance'), dict(memory=True)])
def test_training_free_models_are_not_chosen_for_what_they_cannot_do(server, wanted):
    put('ViT-B-16.pt')
    assert best_word_model(ask=refuse, **wanted).model == DEMONSTRATION


def test_official_weights_are_converted_once_and_come_first(server, monkeypatch):
    put('ViT-B-16.pt')
    source, calls = put('fcclip_cocopan.pth'), []

    def convert(system, given, target):
        calls.append((system, given))
        target.write_bytes(b'converted')

    monkeypatch.setattr('frozenmm.convert.command.convert_file', convert)
    assert best_word_model(ask=refuse).model == 'naclip_clip-b16_coco-object'  # its CLIP is not there
    tower = word_models._file('CLIP ConvNeXt-L')
    put(tower.file_name)
    best = best_word_model(ask=refuse, task='panoptic', memory=True)
    assert best.model == 'fc_clip_convnext-l_8xb2-369k_coco-panoptic'
    assert best.weights == source.with_name(f'{best.model}.safetensors') and str(best.weights) in best.remark
    assert calls == [('fc_clip', source)]
    put('frozen_seg_convnext-l_sam-b_official-weights.safetensors')
    assert best_word_model(ask=refuse).model == best.model


def test_the_demonstration_says_so_in_the_first_line(tmp_path, capsys):
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / 'a.png')
    main('infer', [str(tmp_path / 'a.png'), '--vocab', 'cat', '--device', 'cpu', '--out', str(tmp_path / 'out')])
    assert capsys.readouterr().out.startswith(f'{DEMONSTRATION} is a demonstration model')


def test_a_class_from_an_example_is_found_through_the_commands(tmp_path, capsys):
    pixels = np.full((64, 96, 3), 90, np.uint8)
    pixels[16:48, 20:60] = (200, 40, 30)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    memory = str(tmp_path / 'memory.sqlite')
    main('memory', ['add', memory, str(tmp_path / 'a.png'), '--name', 'qzx 17', '--box', '20,16,60,48',
                    '--device', 'cpu'])
    main('infer', [str(tmp_path / 'a.png'), '--vocab', 'qzx 17, cat', '--memory', memory, '--device', 'cpu', '--out',
                   str(tmp_path / 'out')])
    said = capsys.readouterr().out
    assert f'{memory}: qzx 17 has 1 examples' in said and 'results are in' in said
