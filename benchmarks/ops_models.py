"""Stock mmdet models before and after `frozenmm.ops.accelerate` (part `models` of `benchmarks/ops.py`).

DINO and Mask2Former from mmdet's own configs, without training, one image, by turns in one process. `worst_difference`
is over everything that the network returns (classes, boxes, masks of all layers).
"""
from __future__ import annotations

from pathlib import Path

import torch
from ops_timing import by_turns
from torch import Tensor

from frozenmm.ops import accelerate, restore

MODELS = {'DINO R50': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
          'Mask2Former R50': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py'}


def measure(name: str, config: str, size: int, seconds: float) -> dict[str, object]:
    """One model at an image of `size` squared pixels."""
    import mmdet
    from mmdet import registry
    from mmdet.structures import DetDataSample
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    init_default_scope('mmdet')
    cfg = Config.fromfile(Path(mmdet.__file__).parent / '.mim' / 'configs' / config)
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = registry.MODELS.build(cfg.model).eval()
    sizes = dict.fromkeys(('img_shape', 'batch_input_shape', 'pad_shape', 'ori_shape'), (size, size))
    sample = DetDataSample(metainfo=dict(**sizes, scale_factor=(1.0, 1.0)))
    image = torch.randn(1, 3, size, size)

    @torch.no_grad()
    def run() -> Tensor:
        return flatten(model._forward(image, [sample]) if hasattr(model, '_forward') else model(image, [sample]))

    def accelerated() -> Tensor:
        accelerate(model)
        return run()

    def plain() -> Tensor:
        restore(model)
        return run()

    expected, found = plain(), accelerated()
    modules = len(accelerate(model).already)
    times = by_turns({'accelerated': accelerated, 'plain': plain}, seconds)
    accelerated_ms, plain_ms = times['accelerated'].wall * 1e3, times['plain'].wall * 1e3
    return {'name': name, 'image': size, 'modules': modules, 'accelerated_ms': accelerated_ms, 'plain_ms': plain_ms,
            'ratio': plain_ms / accelerated_ms, 'worst_difference': (found - expected).abs().max().item(),
            'largest_output': expected.abs().max().item()}


def flatten(outputs: object) -> Tensor:
    """All tensors of nested outputs as one vector."""
    if isinstance(outputs, Tensor):
        return outputs.float().flatten()
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    return torch.cat([flatten(o) for o in outputs if o is not None])


def run(seconds: float, size: int = 320) -> dict[str, object]:
    """Measure both models and print a line for each; the report."""
    rows = []
    for name, config in MODELS.items():
        row = measure(name, config, size, seconds)
        rows.append(row)
        print(f'{name:<17} {size} px, {row["modules"]} modules: {row["plain_ms"]:.0f} ms, accelerated '
              f'{row["accelerated_ms"]:.0f} ms, {row["ratio"]:.2f}x, worst difference {row["worst_difference"]:.1e}',
              flush=True)
    return {'rows': rows}
