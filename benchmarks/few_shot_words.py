"""Do a few examples help more as prompts, as new words or as a memory? Naming true segments of coco_mini.

    python benchmarks/few_shot_words.py --draws 3

17 classes that the shipped FC-CLIP on embedded networks never met have 1 or 5 examples each from train pictures (two
have none). Every true segment of the validation pictures is named among 133 classes by its frozen vector: by the words
alone, with a class memory, with a learned sentence around all names (CoOp), with learned rows for the 17 names. Shown:
accuracy in percent, mean over classes, of the 17 (unseen) and of the others (seen).
"""
from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from class_memory import config, segments  # noqa: E402
from machine import describe_machine  # noqa: E402

from frozenmm.apis import OpenVocabularyInferencer  # noqa: E402
from frozenmm.apis.model_sources import read_source  # noqa: E402
from frozenmm.compat.files import write_whole  # noqa: E402
from frozenmm.datasets.panoptic_files import read_panoptic_map  # noqa: E402
from frozenmm.foundation.class_memory import ClassMemory  # noqa: E402
from frozenmm.foundation.learned_words import NewWords, PromptedTextTower  # noqa: E402
from frozenmm.foundation.text_embeddings import WordVectors, class_scores  # noqa: E402
from frozenmm.foundation.vocabulary import Vocabulary  # noqa: E402
from frozenmm.segmentation.class_memory import RegionMemory  # noqa: E402

SCALE = 40.0


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'coco_mini')
    parser.add_argument('--counts', type=int, nargs='+', default=[1, 5])
    parser.add_argument('--draws', type=int, default=3)
    parser.add_argument('--prompt-steps', type=int, default=20)
    parser.add_argument('--row-steps', type=int, default=100)
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'few_shot_words.json')
    return parser.parse_args(arguments)


def vectors_of(encoder, root: Path, split: str, entries) -> Tensor:
    found = []
    for picture, panoptic, segment in entries:
        mask = read_panoptic_map(root / f'panoptic_{split}' / panoptic) == segment
        found.append(encoder(root / 'images' / split / picture, mask=mask))
    return torch.stack(found)


def val_segments(root: Path, names: list[str]) -> dict[str, list]:
    """As `segments` gives those of train."""
    content = json.loads((root / 'annotations' / 'panoptic_val.json').read_text())
    categories = {entry['id']: entry['name'] for entry in content['categories']}
    pictures = {entry['id']: entry['file_name'] for entry in content['images']}
    found: dict[str, list] = {}
    for entry in content['annotations']:
        for segment in entry['segments_info']:
            if segment['area'] >= 200 and not segment.get('iscrowd') and categories[segment['category_id']] in names:
                found.setdefault(categories[segment['category_id']], []).append(
                    (pictures[entry['image_id']], entry['file_name'], segment['id']))
    return found


def accuracy(logits: Tensor, labels: Tensor, unseen: Tensor) -> dict[str, float]:
    right = logits.argmax(-1) == labels
    per_class = {int(label): float(right[labels == label].float().mean()) for label in labels.unique()}
    groups = {part: [value for label, value in per_class.items() if bool(unseen[label]) == flag]
              for part, flag in (('unseen', True), ('seen', False))}
    return {part: round(100 * statistics.mean(values), 2) for part, values in groups.items()}


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    held_out = list(config(args.data_root).train_vocabulary['without'])
    source, weights = read_source('open-vocabulary-mini')
    vocabulary = Vocabulary.read('coco_panoptic_133')
    names = [entry.name for entry in vocabulary]
    unseen = torch.tensor([name in held_out for name in names])
    segment = OpenVocabularyInferencer(source, vocabulary, weights=weights, device='cpu')
    trunk, tower = segment.core.trunk, segment.core.trunk.classifier.text_tower
    with tempfile.TemporaryDirectory() as folder:
        knowing = OpenVocabularyInferencer(segment.model, memory=Path(folder) / 'm.sqlite', device='cpu')
        knowing.pipeline = segment.pipeline
        encoder = knowing.memory.encoder
        available = segments(args.data_root, held_out)
        train = {name: vectors_of(encoder, args.data_root, 'train', entries) for name, entries in available.items()}
        truth = val_segments(args.data_root, names)
        val = torch.cat([vectors_of(encoder, args.data_root, 'val', entries) for entries in truth.values()])
    labels = torch.tensor([names.index(name) for name, entries in truth.items() for _ in entries])
    print(f'{len(labels)} segments of {len(truth)} classes', flush=True)

    def in_text_space(vectors: Tensor) -> Tensor:
        with torch.no_grad():
            return F.normalize(trunk.in_text_space(vectors).float(), dim=-1)

    def logits_of(rows: Tensor, vectors: Tensor) -> Tensor:
        return SCALE * class_scores(in_text_space(vectors) @ rows.T, vocabulary)

    words = WordVectors(tower, 'vild14').unit(vocabulary.words)
    runs = [dict(method='words', count=0, draw=0, **accuracy(logits_of(words, val), labels, unseen))]
    print(runs[-1], flush=True)
    for draw in range(args.draws):
        for count in args.counts:
            orders = {name: random.Random(f'{draw} {name}').sample(range(len(vectors)), len(vectors))
                      for name, vectors in train.items()}
            chosen = {name: vectors[orders[name][:count]] for name, vectors in train.items()}
            examples = torch.cat(list(chosen.values()))
            classes = torch.tensor([names.index(name) for name, vectors in chosen.items() for _ in vectors])
            found = {'memory': by_memory(encoder, chosen, val, vocabulary,
                                         lambda vectors: logits_of(words, vectors).log_softmax(-1)),
                     'new words': by_rows(tower, list(chosen), vocabulary, examples, classes, val, logits_of, args),
                     'prompts': by_prompts(tower, names, examples, classes, val, in_text_space, draw, args)}
            for method, logits in found.items():
                runs.append(dict(method=method, count=count, draw=draw, **accuracy(logits, labels, unseen)))
                print(runs[-1], flush=True)
            write_whole(args.out, json.dumps(dict(machine=describe_machine(), segments=len(labels), runs=runs),
                                             indent=1) + '\n')
    for method, count in sorted({(run['method'], run['count']) for run in runs}):
        group = [run for run in runs if (run['method'], run['count']) == (method, count)]
        print(f'{method:10} {count}', *(f'{part} {statistics.mean(run[part] for run in group):.1f} +- '
                                        f'{statistics.pstdev(run[part] for run in group):.1f}'
                                        for part in ('unseen', 'seen')))


def by_memory(encoder, chosen, val, vocabulary, text) -> Tensor:
    with tempfile.TemporaryDirectory() as folder:
        memory = ClassMemory(Path(folder) / 'm.sqlite', encoder)
        for name, vectors in chosen.items():
            memory.add_vectors([name] * len(vectors), vectors)
        added = RegionMemory(memory, text).logits(val[None], vocabulary)
    return text(val) if added is None else text(val) + added[0]


def by_rows(tower, new, vocabulary, examples, classes, val, logits_of, args) -> Tensor:
    learned = NewWords(tower, new)
    rows_of = WordVectors(learned, 'vild14')
    optimizer = torch.optim.Adam(learned.parameters(), 1e-2)
    for _ in range(args.row_steps):
        optimizer.zero_grad()
        F.cross_entropy(logits_of(rows_of.unit(vocabulary.words), examples), classes).backward()
        optimizer.step()
    with torch.no_grad():
        return logits_of(rows_of.unit(vocabulary.words), val)


def by_prompts(tower, names, examples, classes, val, in_text_space, seed, args) -> Tensor:
    torch.manual_seed(seed)
    learned = PromptedTextTower(tower)
    optimizer = torch.optim.Adam(learned.parameters(), 2e-3)
    plain = [name.replace('-merged', '').replace('-other', '').replace('-stuff', '') for name in names]
    unit = in_text_space(examples)
    for _ in range(args.prompt_steps):
        optimizer.zero_grad()
        F.cross_entropy(SCALE * unit @ F.normalize(learned.encode(plain), dim=-1).T, classes).backward()
        optimizer.step()
    with torch.no_grad():
        return SCALE * in_text_space(val) @ F.normalize(learned.encode(plain), dim=-1).T


if __name__ == '__main__':
    main()
