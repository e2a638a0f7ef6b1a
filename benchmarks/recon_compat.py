"""Seconds per iteration of the official first-order loop: ours (mode compat) beside a plain restatement.

    python benchmarks/recon_compat.py [--iterations 20] [--threads 2]

The restatement follows the description of the official loop (spec sections 3 to 5) step by step: per frame a weighted
regression with (nodes, 25, 25) diagonal matrices, a chain of motions frame by frame, the table of all angles, images
and maps gathered per pair, quantiles by sorting, gradients by autograd. Both see the same pairs and pixels of a
generated room, in turns of blocks. Before every block ours takes over the restatement's parameters and the state of
its Adam, and the terms of all iterations of the block are compared. Adam divides by the size of the gradient, so that
rounding grows from step to step; `same_loop_rounded` is what the restatement differs from itself in a block when its
depth is changed in the seventh digit. Writes benchmarks/results/recon_compat.json.
"""
from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.compat.files import write_whole
from frozenmm.demo.rooms.clip import RoomSettings, distort_depth, render_room
from frozenmm.ops import backend
from frozenmm.reconstruction.lwlr import NODE_STRIDE, anchor_positions, node_positions
from frozenmm.reconstruction.motions import relative_angles
from frozenmm.reconstruction.pair_sampling import PairDraw, PairSampler, angle_probabilities
from frozenmm.reconstruction.staged_optimizer import (
    OFFICIAL_STAGES,
    Stage,
    StagedOptimizer,
    StagedParameters,
    StagedSettings,
)

ROOT = Path(__file__).resolve().parents[1]
CLIPS = ((20, (150, 200)), (20, (240, 320)), (60, (150, 200)))
"""Frames and size: the recorded clips at the official size and at their own; a longer clip, 50 targets at a time."""


class PlainLoop:
    """The official loop as it is described.

    Args:
        images: (F, 3, H, W) in 0..1.
        depth: (F, H, W).
    """

    def __init__(self, images: Tensor, depth: Tensor) -> None:
        self.images, self.depth = images, depth
        self.p = StagedParameters.start(len(images)).as_leaves()
        groups = ([self.p.translations], [self.p.rotations], [self.p.focal_ratio], [self.p.scale, self.p.shift],
                  [self.p.anchors])
        self.adam = torch.optim.Adam([{'params': group} for group in groups])
        height, width = depth.shape[1:]
        self.rows, self.columns = anchor_positions(height), anchor_positions(width)
        anchors = torch.cartesian_prod(self.rows, self.columns).float()
        along = [node_positions(length, stride=NODE_STRIDE) for length in (height, width)]
        nodes, self.node_shape = torch.cartesian_prod(*along).float(), tuple(len(x) for x in along)
        distance = (nodes[:, None] - anchors[None]).square().sum(-1)
        self.weights = torch.diag_embed((-distance / (2 * 50.0**2)).exp())  # (nodes, 25, 25)

    def motion(self, index: int) -> Tensor:
        """(4, 4): Euler angles about x, y, z in turn."""
        (ax, ay, az), zero, one = self.p.rotations[index], torch.zeros(()).double(), torch.ones(()).double()
        x = torch.stack((one, zero, zero, zero, ax.cos(), -ax.sin(), zero, ax.sin(), ax.cos())).view(3, 3)
        y = torch.stack((ay.cos(), zero, ay.sin(), zero, one, zero, -ay.sin(), zero, ay.cos())).view(3, 3)
        z = torch.stack((az.cos(), -az.sin(), zero, az.sin(), az.cos(), zero, zero, zero, one)).view(3, 3)
        top = torch.cat((x @ y @ z, self.p.translations[index][:, None]), 1)
        return torch.cat((top, torch.tensor([[0.0, 0.0, 0.0, 1.0]]).double()))

    def poses(self) -> Tensor:
        """(F, 4, 4), one product after the other."""
        poses = [torch.eye(4).double()]
        for index in range(len(self.images) - 1):
            poses.append(self.motion(index) @ poses[-1])
        return torch.stack(poses)

    def maps(self) -> Tensor:
        """(F, H, W) corrected depth, frame by frame."""
        found = []
        for index, depth in enumerate(self.depth):
            values = self.p.scale[index].abs() * depth + self.p.shift[index] + 1e-6
            x = values[self.rows[:, None], self.columns[None]].reshape(-1)
            design = torch.stack((torch.ones_like(x), x), 1)
            target = (self.p.anchors[index].abs().reshape(-1) * x)[:, None]
            left = design.T @ self.weights @ design + torch.diag(torch.tensor([1.0, 0.0]))
            line = torch.inverse(left) @ (design.T @ self.weights @ target)
            nodes = line[..., 0].T.reshape(1, 2, *self.node_shape)
            intercept, slope = F.interpolate(nodes, values.shape, mode='bilinear', align_corners=False)[0]
            corrected = intercept + slope * values
            found.append(torch.where(corrected < 0, torch.zeros_like(corrected), corrected))
        return torch.stack(found)

    def losses(self, stage: Stage, draw: PairDraw) -> tuple[Tensor, Tensor, Tensor]:
        """Photometric, geometric and anchor term."""
        height, width = self.depth.shape[1:]
        poses, maps = self.poses(), self.maps()
        focal = self.p.focal_ratio[0] * (height + width) / 2
        k = torch.diag(torch.stack((focal, focal, torch.ones_like(focal))))
        k = k + torch.tensor([[0, 0, width / 2], [0, 0, height / 2], [0, 0, 0]]).double()
        v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
        uv = torch.stack((u, v, torch.ones_like(u))).reshape(3, -1).double()[:, draw.pixels]
        target, reference = maps[draw.targets], maps[draw.references]
        relative = poses[draw.references] @ torch.inverse(poses[draw.targets])
        points = target.flatten(1)[:, None, draw.pixels].double() * (torch.inverse(k) @ uv)
        image = k @ relative[:, :3, :3] @ points + k @ relative[:, :3, 3:]
        z = image[:, 2].clamp(min=1e-3)
        grid = torch.stack((2 * image[:, 0] / z / (width - 1) - 1, 2 * image[:, 1] / z / (height - 1) - 1), -1)
        own = torch.stack((2 * uv[0] / (width - 1) - 1, 2 * uv[1] / (height - 1) - 1), -1).expand(len(z), -1, -1)

        def look(maps: Tensor, at: Tensor) -> Tensor:
            return F.grid_sample(maps, at[:, None].to(maps), mode='bilinear', align_corners=False)[:, :, 0]

        c_target, c_reference = look(self.images[draw.targets], own), look(self.images[draw.references], grid)
        m = look(reference[:, None], grid)[:, 0]
        valid = (grid.abs() <= 0.95).all(-1) & (m != 0) & (c_reference.sum(1) != 0)
        photometric = (c_target - c_reference).abs().mean(1)[valid]
        geometric = ((m - z).abs() / (m + z))[valid]
        if stage.trim is not None:
            photometric, geometric = (x[x < self.quantile(x, stage.trim)] for x in (photometric, geometric))
        both = torch.cat((draw.targets, draw.references))
        return photometric.mean(), geometric.mean(), (self.p.anchors - 1).abs().sum((1, 2))[both].mean()

    @staticmethod
    def quantile(values: Tensor, share: float) -> Tensor:
        """Linearly interpolated, by sorting."""
        ordered, place = values.detach().sort().values, share * (len(values) - 1)
        return torch.lerp(ordered[int(place)], ordered[int(place) + 1], place - int(place))

    def step(self, stage: Stage, draw: PairDraw) -> Tensor:
        """One iteration; the unweighted terms (3, )."""
        rates = (stage.lr_translation, stage.lr_rotation, stage.lr_focal, stage.lr_depth, stage.lr_anchors)
        for group, rate in zip(self.adam.param_groups, rates):
            group['lr'] = rate
        if stage.by_angle:
            with torch.no_grad():
                angle_probabilities(relative_angles(self.poses(), compat=True), draw.targets, compat=True)
        terms = self.losses(stage, draw)
        self.adam.zero_grad()
        sum(w * t for w, t in zip((stage.photometric, stage.geometric, stage.anchors), terms)).backward()
        self.adam.step()
        return torch.stack([term.detach().double() for term in terms])


def our_steps(loop: StagedOptimizer, adam: torch.optim.Adam, stage: Stage, draws: list[PairDraw]) -> Tensor:
    """The same iterations by `StagedOptimizer`; terms (N, 3)."""
    rates = (stage.lr_translation, stage.lr_rotation, stage.lr_focal, stage.lr_depth, stage.lr_anchors)
    for group, rate in zip(adam.param_groups, rates):
        group['lr'] = rate
    found = []
    for draw in draws:
        poses = loop.poses()
        if stage.by_angle:
            angle_probabilities(relative_angles(poses.detach(), compat=True), draw.targets, compat=True)
        losses = loop.evaluate(stage, draw, poses)
        adam.zero_grad()
        losses.total.backward()
        adam.step()
        found.append(torch.stack([x.detach().double() for x in (losses.photometric, losses.geometric, losses.anchors)]))
    return torch.stack(found)


def take_over(parameters: StagedParameters, adam: torch.optim.Adam, of: PlainLoop) -> None:
    """Parameters and state of Adam as they are in the restatement."""
    with torch.no_grad():
        for name, leaf in vars(parameters).items():
            theirs = getattr(of.p, name)
            leaf.copy_(theirs)
            adam.state[leaf] = {key: value.clone() for key, value in of.adam.state[theirs].items()}


def worst_difference(first: Tensor, second: Tensor) -> float:
    """Of a term, relative."""
    return float(((first - second).abs() / first.abs().clamp(min=1e-3)).max())


def compare(frames: int, size: tuple[int, int], iterations: int, block: int) -> dict[str, object]:
    """One clip, `iterations` of every stage."""
    clip = render_room(RoomSettings(frames=frames, size=size, samples=1, seed=1))
    images = torch.from_numpy(clip.images).permute(0, 3, 1, 2).float() / 255
    depth = torch.from_numpy(distort_depth(clip.depth))
    noise = 1 + 1e-7 * torch.randn(depth.shape, generator=torch.Generator().manual_seed(1))
    plain, rounded = PlainLoop(images, depth), PlainLoop(images, depth * noise)
    ours = StagedOptimizer(images, depth, settings=StagedSettings(motion='euler', compat=True))
    adam, generator = ours._optimizer(), torch.Generator().manual_seed(0)
    sampler = PairSampler(frames, size, generator=generator, compat=True)
    seconds: dict[str, list[float]] = {'plain': [], 'ours': []}
    differences: dict[str, list[float]] = {'first_of_block': [], 'block': [], 'same_loop_rounded': []}
    for stage in OFFICIAL_STAGES:
        for _ in range(iterations // block):
            take_over(ours.parameters, adam, plain)
            take_over(rounded.p, rounded.adam, plain)
            angles = relative_angles(ours.poses().detach(), compat=True) if stage.by_angle else None
            draws = [sampler.draw(angles) for _ in range(block)]
            begin = time.perf_counter()
            first = torch.stack([plain.step(stage, draw) for draw in draws])
            middle = time.perf_counter()
            second = our_steps(ours, adam, stage, draws)
            seconds['plain'].append((middle - begin) / block)
            seconds['ours'].append((time.perf_counter() - middle) / block)
            third = torch.stack([rounded.step(stage, draw) for draw in draws])
            differences['first_of_block'].append(worst_difference(first[:1], second[:1]))
            differences['block'].append(worst_difference(first, second))
            differences['same_loop_rounded'].append(worst_difference(first, third))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {'frames': frames, 'size': list(size), 'iterations': 3 * iterations,
            'milliseconds_per_iteration': {name: round(1000 * value, 2) for name, value in medians.items()},
            'ratio': round(medians['plain'] / medians['ours'], 2),
            'worst_relative_difference_of_a_term': {name: max(values) for name, values in differences.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--iterations', type=int, default=20, help='per stage')
    parser.add_argument('--block', type=int, default=5, help='iterations before the other one runs')
    parser.add_argument('--threads', type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [compare(frames, size, args.iterations, args.block) for frames, size in CLIPS]
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout
    content = {'clips': rows, 'threads': args.threads, 'kernels': backend('cpu'),
               'machine': f'{os.cpu_count()} CPU cores', 'torch': torch.__version__, 'commit': commit.strip()}
    write_whole(ROOT / 'benchmarks' / 'results' / 'recon_compat.json', json.dumps(content, indent=1) + '\n')
    print('| frames | size | plain ms | ours ms | ratio | difference: first | block | same loop, rounded |')
    for row in rows:
        times, worst = row['milliseconds_per_iteration'], row['worst_relative_difference_of_a_term']
        print(f'| {row["frames"]} | {row["size"]} | {times["plain"]} | {times["ours"]} | {row["ratio"]} | '
              + ' | '.join(f'{value:.1e}' for value in worst.values()) + ' |')


if __name__ == '__main__':
    main()
