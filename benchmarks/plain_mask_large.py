"""PMT with DINOv3-L at 640 pixels on the CPU, random weights: seconds and peak memory, beside a restatement of it.

    OMP_NUM_THREADS=1 python benchmarks/plain_mask_large.py [--rounds 2]

Restated: the tower is that of the transformers library, as officially; the decoder follows the paper line by line, with
torch's own batch norm and no code of ours. Each side runs in a process of its own with the same weights and picture;
memory is the process's resident peak from the first forward pass on, weights included. The logits must agree.
"""
from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from machine import ROOT, describe_machine
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.insert(0, str(ROOT))

import frozenmm  # noqa: F401  (fills the holes of the installation before transformers is imported)
from frozenmm.compat.files import write_whole

TAPS, QUERIES, BLOCKS, HEADS, CLASSES = (5, 11, 17, 23), 200, 6, 16, 133
SIZES = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
             num_register_tokens=4, patch_size=16)
State = dict[str, Tensor]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=int, default=640)
    parser.add_argument('--rounds', type=int, default=2)
    parser.add_argument('--side', choices=['ours', 'restated'], help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--out', default=str(ROOT / 'benchmarks' / 'results' / 'plain_mask_large.json'))
    return parser.parse_args()


def make_weights(folder: Path) -> None:
    """Tower and decoder at random, in the layouts of transformers and of our checkpoint."""
    import transformers
    torch.manual_seed(0)
    transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**SIZES)).save_pretrained(folder / 'tower')
    model = ours(folder)
    generator = torch.Generator().manual_seed(1)
    state = {key: value for key, value in model.state_dict().items()
             if key.startswith(('mask_generator.', 'classifier.class_head.')) and value.is_floating_point()}
    for key, value in state.items():
        if 'running_var' not in key:
            value += 0.02 * torch.randn(value.shape, generator=generator)
    save_file({key: value.contiguous() for key, value in state.items()}, folder / 'decoder.safetensors')


def ours(folder: Path) -> torch.nn.Module:
    from frozenmm.segmentation.plain_mask.segmentor import PlainMaskSegmentor
    return PlainMaskSegmentor(
        dict(type='frozenmm.DINOv3Tower', model=None, weights=str(folder / 'tower')),
        dict(vocabulary=[f'class {index}' for index in range(CLASSES)]), taps=TAPS,
        mask_generator=dict(num_queries=QUERIES, num_blocks=BLOCKS, compat=True),
        data_preprocessor=dict(type='mmdet.DetDataPreprocessor', bgr_to_rgb=True)).eval()


def our_pass(folder: Path) -> object:
    model = ours(folder)
    model.load_state_dict(load_file(folder / 'decoder.safetensors'), strict=False)

    def run(image: Tensor) -> tuple[Tensor, Tensor]:
        (proposals, ), _ = model.generate(image, None, all_layers=False)
        return proposals.mask_logits, model.classifier(proposals.embeddings)
    return run


def restated_pass(folder: Path) -> object:
    import transformers
    tower = transformers.AutoModel.from_pretrained(folder / 'tower').eval()
    state = {key.removeprefix('mask_generator.'): value
             for key, value in load_file(folder / 'decoder.safetensors').items()}
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def run(image: Tensor) -> tuple[Tensor, Tensor]:
        hidden = tower((image / 255 - mean) / std, output_hidden_states=True).hidden_states
        grid = (image.shape[-2] // 16, image.shape[-1] // 16)
        return restated_decoder(state, [tower.norm(hidden[tap + 1]) for tap in TAPS], grid)
    return run


def restated_decoder(state: State, taps: list[Tensor], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Mask logits (1, Q, 4h, 4w) and class logits (1, Q, K+1) of taps (1, P + h * w, C)."""
    lateral = []
    for place, tap in enumerate(taps):
        norm = {key: state[f'fusion.norms.{place}.{key}'] for key in ('running_mean', 'running_var', 'weight', 'bias')}
        tap = F.batch_norm(tap.transpose(1, 2), **norm, training=False).transpose(1, 2)
        hidden = F.gelu(linear(state, f'fusion.laterals.{place}.0', tap))
        lateral.append((tap + linear(state, f'fusion.laterals.{place}.2', hidden)) * state[f'fusion.scales.{place}'])
    x = torch.cat([state['queries.weight'][None], torch.stack(lateral).sum(0)], 1)
    rope = restated_rope(grid, x.shape[-1] // HEADS)
    for number in range(BLOCKS):
        name = f'blocks.{number}.'
        y = restated_attention(state, f'{name}attention.', norm_of(state, f'{name}norm1', x), rope)
        x = x + y * state[f'{name}layer_scale1.lambda1']
        y = F.gelu(linear(state, f'{name}mlp.up_proj', norm_of(state, f'{name}norm2', x)))
        x = x + linear(state, f'{name}mlp.down_proj', y) * state[f'{name}layer_scale2.lambda1']
    x = norm_of(state, 'norm', x)
    queries, patches = x[:, :QUERIES], x[:, -grid[0] * grid[1]:]
    embeddings = queries
    for place in 0, 2:
        embeddings = F.gelu(linear(state, f'prediction.mask_embed.{place}', embeddings))
    embeddings = linear(state, 'prediction.mask_embed.4', embeddings)
    fine = patches.transpose(1, 2).unflatten(2, grid)
    for place in range(2):
        name = f'prediction.upscale.{place}.'
        fine = F.gelu(F.conv_transpose2d(fine, state[f'{name}enlarge.weight'], state[f'{name}enlarge.bias'], 2))
        fine = F.conv2d(fine, state[f'{name}smooth.weight'], padding=1, groups=fine.shape[1])
        fine = norm_of(state, f'{name}norm', fine.permute(0, 2, 3, 1), 1e-6).permute(0, 3, 1, 2)
    return torch.einsum('bqc,bchw->bqhw', embeddings, fine), linear(state, 'classifier.class_head', queries)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f'{name}.weight'], state.get(f'{name}.bias'))


def norm_of(state: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f'{name}.weight'], state[f'{name}.bias'], eps)


def restated_rope(grid: tuple[int, int], width: int) -> tuple[Tensor, Tensor]:
    rows, columns = ((torch.arange(cells) + 0.5) / cells * 2 - 1 for cells in grid)
    places = torch.cartesian_prod(rows, columns)
    steps = 100.0 ** -torch.arange(0, 1, 4 / width)
    angles = (2 * math.pi * places[:, :, None] * steps).reshape(len(places), -1).repeat(1, 2)
    return angles.cos(), angles.sin()


def restated_attention(state: State, name: str, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    parts = []
    for letter in 'qkv':
        part = linear(state, f'{name}{letter}_proj', x).view(1, x.shape[1], HEADS, -1).transpose(1, 2)
        if letter != 'v':
            rest, moved = part[:, :, :-len(rope[0])], part[:, :, -len(rope[0]):]
            half = moved.shape[-1] // 2
            turned = torch.cat([-moved[..., half:], moved[..., :half]], -1)
            part = torch.cat([rest, moved * rope[0] + turned * rope[1]], 2)
        parts.append(part)
    mixed = F.scaled_dot_product_attention(*parts)
    return linear(state, f'{name}o_proj', mixed.transpose(1, 2).reshape(x.shape))


def measure(args: argparse.Namespace) -> None:
    """One side's seconds, peak and logits, written to the folder."""
    run = (our_pass if args.side == 'ours' else restated_pass)(args.folder)
    image = torch.rand(1, 3, args.size, args.size, generator=torch.Generator().manual_seed(2)) * 255
    Path('/proc/self/clear_refs').write_text('5')  # the peak of resident memory starts anew
    wall, work = [], []
    with torch.no_grad():
        for _ in range(args.rounds):
            start = time.perf_counter(), time.process_time()
            masks, classes = cast(tuple[Tensor, Tensor], run(image))
            wall.append(time.perf_counter() - start[0])
            work.append(time.process_time() - start[1])
    status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
    peak = int(status['VmHWM'].split()[0]) / 1024
    save_file(dict(masks=masks.contiguous(), classes=classes.contiguous()), args.folder / f'{args.side}.safetensors')
    (args.folder / f'{args.side}.json').write_text(json.dumps(dict(
        side=args.side, wall_seconds=round(min(wall), 2), cpu_seconds=round(statistics.median(work), 2),
        peak_megabytes=round(peak))))


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    if args.side:
        measure(args)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_weights(folder)
        for side in 'restated', 'ours':
            subprocess.run([sys.executable, __file__, '--side', side, '--folder', place, '--size', str(args.size),
                            '--rounds', str(args.rounds)], check=True)
        rows = [json.loads((folder / f'{side}.json').read_text()) for side in ('restated', 'ours')]
        theirs, found = (load_file(folder / f'{side}.safetensors') for side in ('restated', 'ours'))
    difference = {key: float((found[key] - theirs[key]).abs().max() / theirs[key].abs().max()) for key in theirs}
    result = dict(machine=describe_machine(), size=args.size, rows=rows, relative_difference=difference)
    print(json.dumps(result, indent=1))
    write_whole(args.out, json.dumps(result, indent=1) + '\n')
    if not max(difference.values()) < 1e-3:
        sys.exit('the two sides do not agree')


if __name__ == '__main__':
    main()
