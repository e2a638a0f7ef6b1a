"""Whole models as one graph: other batches and sizes than traced, ONNX Runtime, a process without us.

Tracing takes half a minute for some families, so `FROZENMM_HARDENING=1` traces all, else one of boxes and one of masks.
"""
from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
import torch
import traced_models
from hardening_budget import MORE

from frozenmm.apis.traced import export
from frozenmm.apis.traced.agreement import largest, largest_difference
from frozenmm.apis.traced.mask_results import MaskRules
from frozenmm.errors import UserError, WrongKind

FAMILIES = tuple(traced_models.FAMILIES) if MORE else ('deformable_detr', 'plain_mask')


def sizes(traced) -> tuple[tuple[int, int], ...]:
    """(height, width) that a graph traced with 96x128 takes."""
    other = (101, 75) if traced.multiple == 1 else (160, 64)
    return ((96, 128), other) if traced.dynamic_size else ((96, 128), )


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(3, H, W) uint8 with large shapes, so that masks are more than noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (1, 3, 5, 6), generator=generator).float()
    return torch.nn.functional.interpolate(coarse, (height, width), mode='bilinear').round()[0].to(torch.uint8)


@pytest.fixture(scope='module', params=FAMILIES)
def family(request):
    logging.disable(logging.WARNING)
    model = traced_models.FAMILIES[request.param]()
    traced = export.traced_model(model)
    return model, traced, export.trace(traced, export.float_rgb(picture(96, 128)))


def test_the_graph_gives_what_the_model_gives_for_other_batches_and_sizes(family):
    model, traced, program = family
    for size in sizes(traced):
        assert export._check(model, program.module(), traced, picture(*size, seed=1)) < 1e-4
    graph = program.module()
    three = torch.cat([export.float_rgb(picture(96, 128, seed)) for seed in range(3)])
    for whole, parts in zip(graph(three), zip(*(graph(image[None]) for image in three))):
        torch.testing.assert_close(whole, torch.cat(parts), atol=1e-3, rtol=1e-4)


def test_onnx_runtime_gives_what_the_model_gives(family, tmp_path):
    runtime = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    onnx = pytest.importorskip('onnx', reason='onnx is not installed')
    pytest.importorskip('onnxscript', reason='onnxscript is not installed')
    model, traced, program = family
    file = tmp_path / 'model.onnx'
    run = export._write_onnx(program, traced, file, {'classes': '[]'})
    for size in sizes(traced):
        assert export._check(model, run, traced, picture(*size, seed=2)) < 1e-4
    written = onnx.load(file)
    assert {item.domain: item.version for item in written.opset_import}[''] >= 20
    assert {node.domain for node in written.graph.node} <= {''} or written.functions
    assert runtime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map['classes'] == '[]'


def test_a_program_runs_in_a_process_without_frozenmm(tmp_path):
    done = export.export_built(traced_models.deformable_detr(), tmp_path / 'model.pt2', to='exported_program',
                               inputs=picture(64, 96), classes=('a', 'b', 'c'))
    assert done.difference < 1e-4 and json.loads(done.contract['classes']) == ['a', 'b', 'c']
    torch.save(export.float_rgb(picture(64, 96)), tmp_path / 'image.pt')
    code = ('import sys, torch; program = torch.export.load("model.pt2", extra_files=(files := {"contract.json": ""}));'
            'boxes, scores, labels = program.module()(torch.load("image.pt"));'
            'assert "frozenmm" not in sys.modules and "mmdet" not in sys.modules;'
            'print(tuple(boxes.shape), "classes" in files["contract.json"])')
    ran = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=False,
                         env={'PATH': '', 'PYTHONPATH': ''})
    assert ran.stdout.strip() == '(1, 5, 4) True', ran.stderr


def test_a_graph_that_differs_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(export, 'largest_difference', lambda *args, **kwargs: 0.5)
    with pytest.raises(UserError, match=r'is not written: .* differs from the model by 5\.0e-01'):
        export.export_built(traced_models.plain_mask(), tmp_path / 'model.pt2', to='exported_program',
                            inputs=picture(64, 64), classes=())
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_said(tmp_path):
    with pytest.raises(UserError, match='formats and their suffixes'):
        export.export_model('dino', tmp_path / 'model.onnx', to='exported_program', picture='a.jpg')
    with pytest.raises(WrongKind, match='a Linear cannot be exported; FCCLIP, '):
        export.traced_model(torch.nn.Linear(1, 1))
    segmentor = traced_models.fc_clip()
    segmentor.trunk.mask_padding = True
    with pytest.raises(UserError, match='with mask_padding'):
        export.traced_model(segmentor)


def test_stuff_of_one_class_is_one_segment_and_things_are_several():
    rules = MaskRules(('panoptic', ), (0, ), 0.0, 0.5, 4, inside_only=True)
    logits = torch.full((1, 4, 1, 4), -9.0)
    for query in range(4):
        logits[0, query, 0, query] = 9.0
    probabilities = torch.tensor([[[0.9, 0.0, 0.1], [0.0, 0.9, 0.1], [0.0, 0.8, 0.2], [0.9, 0.0, 0.1]]])
    segments, labels, scores = rules.results(probabilities, logits)
    assert segments.tolist() == [[[0, 1, 1, 3]]] and labels.tolist() == [[0, 1, 1, 0]]
    assert scores[0].tolist() == pytest.approx([0.9, 0.9, 0.8, 0.9])


def test_a_moved_box_and_a_missing_result_are_differences():
    from mmengine.structures import InstanceData
    expected = InstanceData(scores=torch.tensor([0.9, 0.5]), labels=torch.tensor([0, 1]), bboxes=torch.rand(2, 4) * 50)
    found = dict(scores=expected.scores, labels=expected.labels, boxes=expected.bboxes.clone())
    sample = type('Sample', (), {'pred_instances': expected})
    assert largest_difference(found, sample, (80, 100), classes=2) == 0
    found['boxes'][1, 2] += 10
    assert largest_difference(found, sample, (80, 100), classes=2) == pytest.approx(0.1)
    fewer = {key: value[:1] for key, value in found.items()}
    assert largest_difference(fewer, sample, (80, 100), classes=2) == float('inf')


def test_results_that_are_no_numbers_differ_infinitely():
    assert largest([0.0, float('nan')]) == largest([float('nan'), 0.0]) == float('inf') and largest([0.25, 0.5]) == 0.5
