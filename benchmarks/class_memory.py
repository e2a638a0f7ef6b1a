"""Do a few examples of a class help words? Embedded networks, 17 classes of coco_mini held out of training.

    python benchmarks/class_memory.py                      # words alone, then 1, 3 and 5 examples a class
    python benchmarks/class_memory.py --draws 3            # which examples are taken, three times
    python benchmarks/class_memory.py --model cells        # `WordCellSegmentor`, trained first, in place of FC-CLIP
    python benchmarks/class_memory.py --query              # time and bytes of a memory of 100,000 regions instead

Examples are segments of train pictures, which this model saw as void, added as a user adds them (`ClassMemory.add`: a
picture, a mask, a name); classes with fewer segments there give all that there are. Validation names all 133 classes.
"""
from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from branch_comparison import machine, without_validation, write_json  # noqa: E402

from frozenmm.apis import OpenVocabularyInferencer  # noqa: E402
from frozenmm.apis.image_pipeline import ImagePipeline  # noqa: E402
from frozenmm.apis.model_sources import read_source  # noqa: E402
from frozenmm.datasets.panoptic_files import read_panoptic_map  # noqa: E402
from frozenmm.engine.launch import build_runner, load_config, run_training  # noqa: E402
from frozenmm.foundation.class_memory import ClassMemory  # noqa: E402
from frozenmm.foundation.vocabulary import Vocabulary  # noqa: E402
from frozenmm.segmentation.class_memory import RegionMemory  # noqa: E402

KEYS = {'PQ unseen': 'panoptic/PQ_unseen', 'PQ seen': 'panoptic/PQ_seen', 'PQ': 'panoptic/PQ',
        'mIoU unseen': 'semantic/mIoU_unseen', 'mIoU seen': 'semantic/mIoU_seen', 'mIoU': 'semantic/mIoU'}
SMALLEST = 200  # pixels of an example


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'coco_mini')
    parser.add_argument('--counts', type=int, nargs='+', default=[1, 3, 5])
    parser.add_argument('--draws', type=int, default=1)
    parser.add_argument('--model', choices=('fc_clip', 'cells'), default='fc_clip')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'benchmark_class_memory')
    parser.add_argument('--query', action='store_true')
    parser.add_argument('--regions', type=int, default=100_000)
    parser.add_argument('--channels', type=int, nargs='+', default=[256, 768, 1280])
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'class_memory.json')
    return parser.parse_args(arguments)


def segments(root: Path, names: list[str]) -> dict[str, list[tuple[str, str, int]]]:
    """(picture, panoptic map, segment) of every class that train has segments of."""
    content = json.loads((root / 'annotations' / 'panoptic_train.json').read_text())
    categories = {entry['id']: entry['name'] for entry in content['categories']}
    pictures = {entry['id']: entry['file_name'] for entry in content['images']}
    found = defaultdict(list)
    for entry in content['annotations']:
        for segment in entry['segments_info']:
            name = categories[segment['category_id']]
            if name in names and segment['area'] >= SMALLEST and not segment.get('iscrowd'):
                found[name].append((pictures[entry['image_id']], entry['file_name'], segment['id']))
    return found


def fill(memory: ClassMemory, root: Path, chosen: dict[str, list[tuple[str, str, int]]]) -> list[float]:
    """Seconds of every `add`."""
    seconds = []
    for name, entries in chosen.items():
        for picture, panoptic, segment in entries:
            mask = read_panoptic_map(root / 'panoptic_train' / panoptic) == segment
            start = time.perf_counter()
            memory.add(root / 'images' / 'train' / picture, name, mask=mask)
            seconds.append(time.perf_counter() - start)
    return seconds


@torch.no_grad()
def evaluate(segment: OpenVocabularyInferencer, cfg) -> dict[str, float]:
    with DefaultScope.overwrite_default_scope('mmdet'):
        loader = Runner.build_dataloader(copy.deepcopy(cfg.val_dataloader))
        evaluator = Evaluator(copy.deepcopy(cfg.val_evaluator[:2]))
    evaluator.dataset_meta = loader.dataset.metainfo
    for data in loader:
        evaluator.process(segment.model.test_step(data), data)
    values = evaluator.evaluate(len(loader.dataset))
    return {name: round(float(values[key]), 2) for name, key in KEYS.items()}


def config(root: Path):
    cfg = load_config(ROOT / 'configs' / 'fc_clip' / 'fc_clip_conse-lite0_coco-mini_unseen17.py', [])
    cfg.val_dataloader.dataset.data_root = str(root.absolute())
    cfg.val_evaluator[0].ann_file = str(root.absolute() / 'annotations' / 'panoptic_val.json')
    cfg.val_evaluator[0].seg_prefix = str(root.absolute() / 'panoptic_val')
    return cfg


def cells(args: argparse.Namespace, cfg) -> OpenVocabularyInferencer:
    """A `WordCellSegmentor` whose head saw these classes as void; `cfg` gets its pipeline."""
    own = load_config(ROOT / 'configs' / 'fc_clip' / 'word_cells_lite0_coco-mini.py', [], work_dir=args.work_dir)
    own.model.train_vocabulary = own.train_dataloader.dataset.vocabulary = cfg.train_vocabulary
    own.train_dataloader.dataset.data_root = str(args.data_root.absolute())
    own.visualizer.vis_backends = []
    runner, state = build_runner(without_validation(own)), args.work_dir / 'head.pth'
    if state.is_file():
        runner.model.load_state_dict(torch.load(state, weights_only=True))
    else:
        run_training(runner)
        torch.save(runner.model.state_dict(), state)
    found = OpenVocabularyInferencer(runner.model, Vocabulary.read('coco_panoptic_133'), device='cpu')
    found.pipeline = ImagePipeline.of_config(own)
    cfg.val_dataloader.dataset.pipeline = own.test_pipeline
    return found


def fc_clip() -> OpenVocabularyInferencer:
    source, weights = read_source('open-vocabulary-mini')
    return OpenVocabularyInferencer(source, Vocabulary.read('coco_panoptic_133'), weights=weights, device='cpu')


def accuracy(args: argparse.Namespace) -> dict:
    cfg = config(args.data_root)
    held_out = list(cfg.train_vocabulary['without'])
    available = segments(args.data_root, held_out)
    segment = cells(args, cfg) if args.model == 'cells' else fc_clip()
    rows = [dict(examples=0, draw=0, **evaluate(segment, cfg))]
    print(rows[-1], flush=True)
    for draw in range(args.draws):
        shuffled = {name: random.Random(f'{draw} {name}').sample(entries, len(entries))
                    for name, entries in available.items()}
        for count in args.counts:
            with tempfile.TemporaryDirectory() as folder:
                knowing = OpenVocabularyInferencer(segment.model, memory=Path(folder) / 'memory.sqlite', device='cpu')
                knowing.pipeline = segment.pipeline
                memory = knowing.memory
                seconds = fill(memory, args.data_root, {name: rows[:count] for name, rows in shuffled.items()})
                rows.append(dict(examples=count, draw=draw, regions=len(seconds), classes=len(memory.list()),
                                 median_seconds_to_add=round(statistics.median(seconds), 3),
                                 **evaluate(segment, cfg)))
                if args.model == 'fc_clip':
                    rows[-1]['weights'] = vars(segment.core.trunk.memory.weights)
            print(rows[-1], flush=True)
    return dict(machine=machine(), available={name: len(available[name]) for name in held_out}, rows=rows)


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    stored = json.loads(args.out.read_text()) if args.out.is_file() else {}
    part = 'query' if args.query else 'accuracy' if args.model == 'fc_clip' else args.model
    stored[part] = query(args) if args.query else accuracy(args)
    write_json(args.out, stored)


class _Tower:
    """An encoder of random vectors: only its signature counts."""

    def __init__(self, channels: int) -> None:
        self.signature = dict(tower='random', channels=channels)


def query(args: argparse.Namespace) -> list[dict]:
    """Seconds of a picture's 100 regions against all examples, and of one region; 1000 classes."""
    rows = []
    for channels in args.channels:
        generator = torch.Generator().manual_seed(0)
        names = [f'class {index % 1000}' for index in range(args.regions)]
        # as those of real regions: few directions are long, and classes lie together
        lengths = torch.arange(1, channels + 1) ** -0.5
        centres = torch.randn(1000, channels, generator=generator).repeat(-(-args.regions // 1000), 1)[:args.regions]
        vectors = F.normalize((centres + torch.randn(centres.shape, generator=generator)) * lengths, dim=-1)
        with tempfile.TemporaryDirectory() as folder:
            memory = ClassMemory(Path(folder) / 'memory.sqlite', _Tower(channels))
            for start in range(0, args.regions, 10_000):
                memory.add_vectors(names[start:start + 10_000], vectors[start:start + 10_000])
            start = time.perf_counter()
            memory.examples()
            opening = time.perf_counter() - start
            scorer = RegionMemory(memory, lambda regions: torch.zeros(len(regions), 1000))
            words = Vocabulary.read([f'class {index}' for index in range(1000)])
            start = time.perf_counter()
            scorer.logits(vectors[None, :1], words)
            fitting = time.perf_counter() - start
            row = dict(regions=args.regions, channels=channels, threads=torch.get_num_threads(),
                       megabytes_on_disk=round(memory.path.stat().st_size / 1e6, 1), seconds_to_open=round(opening, 2),
                       seconds_to_fit=round(fitting, 2))
            index = scorer._known[1]  # type: ignore[index]
            row['looks_up'] = index.basis is not None
            chosen = vectors[::args.regions // 50]
            found, every = [len(index(region[None]).example) for region in chosen], index(chosen)
            row['similar'], row['recall'] = len(every.example) / every.count, sum(found) / len(every.example)
            regions, basis = vectors[None, :100] + 0.01, index.basis
            seconds: dict[str, list[float]] = {'1_region': [], '1_region_all_compared': [], '100_regions': []}
            for _ in range(20):  # in turns, as the machine does other things too
                for name, taken in seconds.items():
                    index.basis = None if name.endswith('compared') else basis
                    start = time.perf_counter()
                    scorer.logits(regions if name.startswith('100') else regions[:, :1], words)
                    taken.append(time.perf_counter() - start)
            for name, taken in seconds.items():
                row |= {f'milliseconds_{name}': round(1000 * statistics.median(taken), 2),
                        f'least_milliseconds_{name}': round(1000 * min(taken), 2)}
        rows.append(row)
        print(row, flush=True)
    return rows


if __name__ == '__main__':
    main()
