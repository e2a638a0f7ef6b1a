"""Stock models of mmdet before and after `frozenmm.optimize` (part `models` of `benchmarks/ops.py`).

From mmdet's own configs, without training, one image, by turns in one process, two threads. `worst_difference` is over
everything that the network returns, relative to the largest output. `floor` is the share of the optimised run that
convolutions and matrix products take, by torch's profiler: only faster or fewer products could undercut that part.
Non-maximum suppression and RoIAlign are frozenmm's on both sides, because mmcv-lite has none.
"""
from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from ops_timing import RESULTS, by_turns
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from frozenmm.compat.files import write_whole
from frozenmm.ops import optimize

MODELS = {'DINO R50': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
          'Deformable DETR R50': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
          'Mask2Former R50': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
          'Mask R-CNN R50': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
          'RTMDet-s': 'rtmdet/rtmdet_s_8xb32-300e_coco.py'}
PRODUCTS = {f'aten::{name}' for name in ('mkldnn_convolution', '_slow_conv2d_forward', 'thnn_conv2d', 'addmm', 'mm',
                                         'bmm', 'baddbmm', '_scaled_dot_product_flash_attention_for_cpu')}
LINES = 12


def build(config: str) -> nn.Module:
    """The model of a config of mmdet with new weights, in eval mode."""
    import mmdet
    from mmdet import registry
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    init_default_scope('mmdet')
    cfg = Config.fromfile(Path(mmdet.__file__).parent / '.mim' / 'configs' / config)
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    return registry.MODELS.build(cfg.model).eval()


def measure(name: str, config: str, size: int, seconds: float) -> dict[str, object]:
    """One model at an image of `size` squared pixels."""
    from mmdet.structures import DetDataSample
    stock = build(config)
    ours = copy.deepcopy(stock)
    report = optimize(ours, quiet=True)
    sizes = dict.fromkeys(('img_shape', 'batch_input_shape', 'pad_shape', 'ori_shape'), (size, size))
    sample = DetDataSample(metainfo=dict(**sizes, scale_factor=(1.0, 1.0)))
    image = torch.randn(1, 3, size, size)

    @torch.no_grad()
    def run(model: nn.Module) -> Tensor:
        return flatten(model._forward(image, [sample]) if hasattr(model, '_forward') else model(image, [sample]))

    expected, found = run(stock), run(ours)
    times = by_turns({'stock': lambda: run(stock), 'optimised': lambda: run(ours)}, seconds, least_rounds=3)
    floor, profile = products(lambda: run(ours))
    return {'name': name, 'image': size, 'report': str(report), 'stock_ms': times['stock'].wall * 1e3,
            'optimised_ms': times['optimised'].wall * 1e3, 'ratio': times['stock'].wall / times['optimised'].wall,
            'floor': floor, 'profile': profile,
            'worst_difference': ((found - expected).abs().max() / expected.abs().max()).item()}


def products(run: Callable[[], object]) -> tuple[float, list[str]]:
    """The share of a run that convolutions and matrix products take, and a line for each of the largest operators."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        run()
    events = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    share = sum(event.self_cpu_time_total for event in events if event.key in PRODUCTS) / total
    return share, [f'{event.self_cpu_time_total / total:6.1%}  {event.count:5d}  {event.key}'
                   for event in events[:LINES]]


def flatten(outputs: object) -> Tensor:
    """All tensors of nested outputs as one vector."""
    if isinstance(outputs, Tensor):
        return outputs.float().flatten()
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    return torch.cat([flatten(o) for o in outputs if o is not None])


def run(seconds: float, sizes: tuple[int, ...] = (320, 640)) -> dict[str, object]:
    """Measure all models, print a line for each and write the table with its profiles; the report."""
    torch.set_num_threads(2)
    rows, lines = [], []
    for size in sizes:
        for name, config in MODELS.items():
            row = measure(name, config, size, seconds)
            rows.append(row)
            lines.append(f'{name:<20} {size} px  stock {row["stock_ms"]:7.0f} ms  optimised {row["optimised_ms"]:7.0f} '
                         f'ms  {row["ratio"]:.2f}x  products {row["floor"]:.0%} of it  difference '
                         f'{row["worst_difference"]:.1e}')
            print(lines[-1], flush=True)
    text = [__doc__.strip(), '', *lines]
    for row in rows:
        text += ['', f'{row["name"]}, {row["image"]} px: {row["report"]}', *row['profile']]
    write_whole(RESULTS / 'optimize.txt', '\n'.join(text) + '\n')
    return {'rows': rows}
