"""Write a model for other runtimes, ONNX or a program of `torch.export`, checked against the model on a picture."""
from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmdet.models.detectors import DDQDETR, DINO, DeformableDETR, GroundingDINO, Mask2Former
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import Tensor, nn

from frozenmm.apis.image_pipeline import ImagePipeline, class_names
from frozenmm.apis.model_sources import open_model, read_source
from frozenmm.apis.traced.agreement import largest, largest_difference
from frozenmm.apis.traced.detectors import TracedDetector
from frozenmm.apis.traced.mmdet_sizes import sizes_from_shapes
from frozenmm.apis.traced.picture_input import float_rgb
from frozenmm.apis.traced.segmentors import TracedMask2Former, TracedMasks, TracedMaskSegmentor
from frozenmm.compat.dependencies import require
from frozenmm.compat.files import whole_file
from frozenmm.compat.image_sources import NamedImage, read_images
from frozenmm.errors import UserError, WrongKind
from frozenmm.ops import accelerate, restore
from frozenmm.segmentation.fc_clip.segmentor import FCCLIP
from frozenmm.segmentation.plain_mask.segmentor import PlainMaskSegmentor
from frozenmm.version import __version__

FORMATS = {'onnx': '.onnx', 'exported_program': '.pt2'}
OPSET = 20
TOLERANCE = 1e-3
"""Largest difference, see `largest_difference`, with which a file is written."""
Traced = TracedDetector | TracedMasks
_FIXED_SIZE = re.compile(r'expression Eq\(.*, \d+\) on node')
Runner = Callable[[Tensor], tuple[Tensor, ...]]
_FAMILIES: tuple[tuple[type, Callable[[Any], Traced]], ...] = (
    (FCCLIP, TracedMaskSegmentor), (PlainMaskSegmentor, TracedMaskSegmentor), (Mask2Former, TracedMask2Former),
    (DINO, TracedDetector), (DeformableDETR, TracedDetector))


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        difference: see `largest_difference`.
        contract: what the file's metadata say: input, outputs, class names, what may change.
    """

    path: Path
    difference: float
    contract: Mapping[str, str]


def export_model(model: Config | Mapping | str | Path | None, out: str | Path, *, to: str, picture: str | Path,
                 weights: str | Path | None = None, trusted: bool = False) -> Exported:
    """Write a detector or segmentor as one graph from a picture to its results.

    The graph takes `images` (B, 3, H, W) float32 RGB from 0 to 255, resized as the config's test pipeline does; it
    normalises and pads by itself. Detectors give `boxes` (B, N, 4) xyxy in pixels of the input, `scores` and `labels`,
    after their top-k; models of masks give what `MaskRules.results` says. Batch and size are free, but for detectors
    with frozen towers that resize each picture, where the size is that of the picture here.

    Args:
        model: see `read_source`.
        out: the file; `.onnx` or `.pt2`.
        to: `'onnx'` (opset 20, standard operators) or `'exported_program'` (`torch.export.load` reads it).
        picture: a picture on which the graph must give what the model gives, else nothing is written.
        weights: see `read_source`.
        trusted: open a checkpoint that holds pickled objects. It could run code of its author.

    Raises:
        UserError: no such model, format or picture, a model that cannot be exported, or results that differ.
        MissingPackage: `onnx`, `onnxscript` or `onnxruntime` is not installed.
    """
    if FORMATS.get(to) != Path(out).suffix:
        raise UserError(f'{out} cannot be written as {to!r}; formats and their suffixes are {FORMATS}')
    cfg, source = read_source(model, weights)
    kinds = tuple(kind for kind, _ in _FAMILIES)
    built, meta = open_model(cfg, source, kinds=kinds, wanted='DINO, Deformable DETR, Mask2Former, FCCLIP '
                             'or PlainMaskSegmentor', device=torch.device('cpu'), trusted=trusted)
    image = next(iter(read_images(picture)))
    return export_built(built, out, to=to, inputs=prepared(cfg, image), classes=_names(built, cfg, meta))


def prepared(cfg: Config, image: NamedImage) -> Tensor:
    """(3, H, W) BGR of a picture behind the resizing of a config's test pipeline."""
    return ImagePipeline.of_config(cfg)(image)['inputs']


def export_built(model: nn.Module, out: str | Path, *, to: str, inputs: Tensor, classes: tuple[str, ...]) -> Exported:
    """`export_model` for a model that is built.

    Args:
        model: of one of the families, on the CPU, in eval mode.
        out: the file.
        to: see `export_model`.
        inputs: (3, H, W) BGR, 0 to 255, of the size that the network sees.
        classes: names that labels index.
    """
    traced = traced_model(model)
    inputs = inputs[:, :inputs.shape[1] // traced.multiple * traced.multiple,
                    :inputs.shape[2] // traced.multiple * traced.multiple]
    if not inputs.numel():
        raise UserError(f'the picture is too small: {traced.multiple} pixels are the least; give a larger one')
    program = trace(traced, float_rgb(inputs))
    contract = _contract(traced, inputs, classes)
    with whole_file(out, durable=True) as part:
        if to == 'onnx':
            run = _write_onnx(program, traced, part, contract)
        else:
            with part.open('wb') as file:
                torch.export.save(program, file, extra_files={'contract.json': json.dumps(contract)})
            run = torch.export.load(part).module()
        difference = _check(model, run, traced, inputs)
        if not difference <= TOLERANCE:
            raise UserError(f'{out} is not written: on this picture the exported {type(model).__name__} differs from '
                            f'the model by {difference:.1e} (allowed {TOLERANCE:.0e}); report it with the config')
    return Exported(Path(out), difference, contract)


def traced_model(model: nn.Module) -> Traced:
    """The module from picture to results for a model of one of the families.

    Raises:
        WrongKind: of none.
    """
    for kind, wrapper in _FAMILIES:
        if isinstance(model, kind) and not isinstance(model, (DDQDETR, GroundingDINO)):
            return wrapper(model).eval()
    raise WrongKind(f'a {type(model).__name__} cannot be exported; '
                    f'{", ".join(kind.__name__ for kind, _ in _FAMILIES)} can')


def trace(traced: Traced, images: Tensor) -> torch.export.ExportedProgram:
    """The graph of a model, traced with (1, 3, H, W); it takes other batches, and other sizes where it can."""
    if traced.dynamic_size and traced.multiple == 1:  # what holds for odd sides holds for all that are padded
        height, width = (side - 1 + side % 2 for side in images.shape[-2:])
        images = images[..., :height, :width]
    free = torch.export.Dim.DYNAMIC
    dims = {0: free, 2: free, 3: free} if traced.dynamic_size else {0: free}
    restore(traced)  # a graph holds the plain convolutions; runtimes fold norms by themselves
    accelerate(traced)  # the modules of mmcv read sizes off tensors, ours take them as numbers
    # a batch of one would be taken for a batch of always one
    with torch.no_grad(), sizes_from_shapes(), _plain_attention(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        program = torch.export.export(traced, (images.repeat(2, 1, 1, 1), ), dynamic_shapes=(dims, ), strict=False,
                                      prefer_deferred_runtime_asserts_over_guards=True)
    _drop_assertions(program.graph_module)
    return program


def _drop_assertions(graph_module: torch.fx.GraphModule) -> None:
    """Take out what tracing assumed of strides, e.g. that a batch is not of one, which no operator of a graph needs.

    An assertion that a size equals a number stays: the graph does hold that number.
    """
    for node in list(graph_module.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default and not _FIXED_SIZE.search(str(node.args[1])):
            graph_module.graph.erase_node(node)
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Let `nn.MultiheadAttention` compute step by step; its fused form is no standard operator."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _write_onnx(program: torch.export.ExportedProgram, traced: Traced, path: Path,
                contract: Mapping[str, str]) -> Runner:
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        runtime = require(package, 'ONNX export')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        # onnxscript's passes write graphs that ONNX Runtime refuses; it optimises them itself when it reads them
        made: Any = torch.onnx.export(program, dynamo=True, opset_version=OPSET, input_names=['images'],
                                      output_names=list(traced.outputs), verbose=False, optimize=False)
    made.model.metadata_props.update(contract)
    made.save(path)
    session = runtime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return lambda images: tuple(torch.from_numpy(value) for value in session.run(None, {'images': images.numpy()}))


def _contract(traced: Traced, inputs: Tensor, classes: tuple[str, ...]) -> dict[str, str]:
    """What a reader of the file must know, as texts."""
    size = 'any' if traced.dynamic_size else f'{inputs.shape[1]}x{inputs.shape[2]}, because {traced.why_fixed}'
    return {'input': 'images: (B, 3, H, W) float32 RGB, 0 to 255, resized as the test pipeline does, not normalised',
            'outputs': json.dumps(list(traced.outputs)), 'classes': json.dumps(list(classes)), 'batch': 'any',
            'size': size, 'size_multiple': str(traced.multiple), 'frozenmm': __version__}


def _check(model: Any, run: Runner, traced: Traced, inputs: Tensor) -> float:
    """The difference for the picture, alone and beside its mirror image."""
    size = (inputs.shape[1], inputs.shape[2])
    pictures = [inputs, inputs.flip(2)]
    samples = [DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))) for _ in pictures]
    with torch.no_grad():
        batch = model.data_preprocessor(dict(inputs=pictures, data_samples=samples), False)
        expected = model.predict(batch['inputs'], batch['data_samples'], rescale=False)
        images = torch.cat([float_rgb(value) for value in pictures])
        both, alone = run(images), run(images[:1])
    found = [dict(zip(traced.outputs, (value[index] for value in outputs)))
             for outputs, index in ((both, 0), (both, 1), (alone, 0))]
    return largest(largest_difference(outputs, sample, size, classes=traced.num_classes)
                   for outputs, sample in zip(found, [*expected, expected[0]]))


def _names(model: Any, cfg: Config, meta: Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(model, (FCCLIP, PlainMaskSegmentor)):
        vocabulary = model.classifier.vocabulary or model.classifier.train_vocabulary or ()
        return tuple(entry.name for entry in vocabulary)
    return class_names(cfg, meta)
