"""FC-CLIP inference on a CPU against the official procedure: time end to end and of post-processing, and memory.

    OMP_NUM_THREADS=2 python benchmarks/fc_clip_inference.py --threads 2   # times, on a machine that does nothing else
    python benchmarks/fc_clip_inference.py --memory                        # peaks, on any machine, into the same file

ConvNeXt-B, random weights, 250 queries, one image of 512 x 683 pixels resized to a short side of 800 as officially, 150
and 847 classes. `official` is a restatement of the official procedure on the same weights: predictions after all ten
layers, attention masks repeated for every head, deformable attention by grid sampling (its path on a CPU), every mask
upsampled twice (to the padded batch, then to the image), einsum over all classes, a loop over the segments. Text
embeddings are given, as it caches them. All sides run alternately in one process and least wall times are compared.

Post-processing alone (all three tasks) runs on what the network gave (`network`: random weights, little to skip) and on
smooth blobs with decided classes (`blobs`, as trained networks give them). `every product` switches the operators'
screening off. Memory is what the process's peak exceeds its size before a second call by, beyond the result.
"""
from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from branch_comparison import machine, write_json  # noqa: E402
from ops_timing import extra_peak_bytes  # noqa: E402

from frozenmm.foundation.vocabulary import Vocabulary  # noqa: E402
from frozenmm.ops import MaskGeometry, backend  # noqa: E402
from frozenmm.registry import MODELS  # noqa: E402
from frozenmm.segmentation.fc_clip.ensemble import geometric_ensemble  # noqa: E402
from frozenmm.segmentation.fc_clip.segmentor import FCCLIP  # noqa: E402
from frozenmm.segmentation.fc_clip.text_classifier import text_logits  # noqa: E402

VOCABULARIES = {150: 'ade20k_150', 847: 'ade20k_847'}
TRAINING = 'coco_panoptic_133'
QUERIES, IMAGE, SHORT_SIDE = 250, (512, 683), 800
LARGE = (1024, 2048)
MIXED = dict(embed_dim=640, vision_cfg=dict(timm_model_name='convnext_base', timm_model_pretrained=False, timm_pool='',
                                            timm_proj='linear', timm_drop=0.0, timm_drop_path=0.0, image_size=256))


def build(precision: str = 'fp32') -> FCCLIP:
    """FC-CLIP of the official size; equal weights at every call, apart from the tower's precision."""
    torch.manual_seed(0)
    return MODELS.build(dict(
        type='frozenmm.FCCLIP',
        tower=dict(type='frozenmm.OpenCLIPTower', model=MIXED, weights='random', precision=precision),
        classifier=dict(embed_channels=640), mask_generator=dict(decoder=dict(num_queries=QUERIES)),
        data_preprocessor=dict(type='mmdet.DetDataPreprocessor', mean=[122.7709383, 116.7460125, 104.09373615],
                               std=[68.5005327, 66.6321579, 70.32316305], bgr_to_rgb=True,
                               pad_size_divisor=32))).eval()


def use_words(model: FCCLIP, classes: int) -> Vocabulary:
    """Random unit embeddings for the words of a published vocabulary, with its seen classes and things."""
    words, training = Vocabulary.read(VOCABULARIES[classes]), Vocabulary.read(TRAINING)
    counts = [len(entry.words) for entry in words]
    text = torch.randn(sum(counts), 640, generator=torch.Generator().manual_seed(1))
    model.classifier.set_embeddings(F.normalize(text, dim=-1), counts, seen=words.seen_mask(training),
                                    things=[i for i, entry in enumerate(words) if entry.isthing is not False])
    return words


def picture(size: tuple[int, int], short_side: int | None) -> dict:
    """A smooth random image, resized as the test pipeline does, with its data sample."""
    scale = 1.0 if short_side is None else short_side / min(size)
    shown = (round(size[0] * scale), round(size[1] * scale))
    noise = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(2)) * 255
    image = F.interpolate(noise, shown, mode='bicubic', align_corners=False)[0].clamp(0, 255).round().to(torch.uint8)
    return dict(inputs=[image], data_samples=[DetDataSample(metainfo=dict(img_shape=shown, ori_shape=size))])


# ------------------------------------------------------------------------------------------------ official procedure
def official_attention(module: nn.Module, query: Tensor, value: Tensor, reference: Tensor,
                       sizes: list[tuple[int, int]]) -> Tensor:
    """Deformable attention by grid sampling."""
    batch, queries, _ = query.shape
    heads, levels, points = module.num_heads, module.num_levels, module.num_points
    values = module.value_proj(value).unflatten(-1, (heads, -1))
    offsets = module.sampling_offsets(query).view(batch, queries, heads, levels, points, 2)
    weights = module.attention_weights(query).view(batch, queries, heads, -1).softmax(-1)
    scale = torch.tensor([[width, height] for height, width in sizes], dtype=query.dtype)
    grid = 2 * (reference[:, :, None, :, None] + offsets / scale[:, None]) - 1
    samples = []
    for level, (part, (height, width)) in enumerate(zip(values.split([h * w for h, w in sizes], 1), sizes)):
        plane = part.permute(0, 2, 3, 1).reshape(batch * heads, -1, height, width)
        samples.append(F.grid_sample(plane, grid[:, :, :, level].transpose(1, 2).flatten(0, 1), mode='bilinear',
                                     padding_mode='zeros', align_corners=False))
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    mixed = (torch.stack(samples, -2).flatten(-2) * weights).sum(-1)
    return module.output_proj(mixed.view(batch, -1, queries).transpose(1, 2))


def official_pixel_decoder(decoder: nn.Module, features: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Mask features and three maps."""
    maps = [convolution(value) for convolution, value in zip(decoder.input_convs, features[:0:-1])]
    sizes = [(value.shape[-2], value.shape[-1]) for value in maps]
    positions, references = [], []
    for value, embedding in zip(maps, decoder.level_encoding.weight):
        height, width = value.shape[-2:]
        place = decoder.postional_encoding(torch.zeros(1, height, width, dtype=torch.bool))
        positions.append(place.flatten(2).transpose(1, 2) + embedding)
        y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing='ij')
        references.append(torch.stack([x, y], -1).view(1, -1, 2))
    tokens = torch.cat([value.flatten(2).transpose(1, 2) for value in maps], 1)
    position = torch.cat(positions, 1)
    reference = torch.cat(references, 1)[:, :, None].repeat(1, 1, len(maps), 1)
    for layer in decoder.encoder.layers:
        found = official_attention(layer.self_attn, tokens + position, tokens, reference, sizes)
        tokens = layer.norms[0](tokens + found)
        tokens = layer.norms[1](layer.ffn(tokens))
    maps = [part.transpose(1, 2).unflatten(2, size)
            for part, size in zip(tokens.split([h * w for h, w in sizes], 1), sizes)]
    lateral = decoder.lateral_convs[0](features[0])
    top = F.interpolate(maps[-1], lateral.shape[-2:], mode='bilinear', align_corners=False)
    return decoder.mask_feature(decoder.output_convs[0](lateral + top)), maps


def official_pool(features: Tensor, masks: Tensor) -> Tensor:
    """Mean features under masks."""
    if masks.shape[-2:] != features.shape[-2:]:
        masks = F.interpolate(masks, features.shape[-2:], mode='bilinear', align_corners=False)
    inside = (masks > 0).to(features.dtype)
    return torch.einsum('bchw,bqhw->bqc', features, inside / (inside.sum((-1, -2), keepdim=True) + 1e-8))


def official_decoder(model: FCCLIP, mask_features: Tensor, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Class logits and mask logits of the last of ten predictions, all of which are made."""
    decoder, rows = model.mask_generator.decoder, model.classifier.rows
    heads = decoder.transformer_decoder.layers[0].cross_attn.attn.num_heads
    tokens = [value.flatten(2).transpose(1, 2) + embedding
              for value, embedding in zip(maps, decoder.level_embed.weight)]
    positions = [decoder.position(value) for value in maps]

    def predict(query: Tensor, size: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
        normed = decoder.transformer_decoder.post_norm(query)
        masks = torch.einsum('bqc,bchw->bqhw', decoder.mask_embed(normed), mask_features)
        seen = decoder.pool_proj(official_pool(mask_features, masks)) + normed
        logits = text_logits(model.classifier.class_embed(seen), rows.text, rows.class_index, rows.num_classes,
                             model.classifier.logit_scale, void=model.classifier.void_embedding.weight)
        small = F.interpolate(masks, size, mode='bilinear', align_corners=False)
        blocked = (small.sigmoid().flatten(2).unsqueeze(1).repeat(1, heads, 1, 1).flatten(0, 1) < 0.5)
        return logits, masks, blocked

    def attend(attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor,
               blocked: Tensor | None = None) -> Tensor:
        inputs = (part.transpose(0, 1) for part in (query, key, value))
        return attention(*inputs, attn_mask=blocked)[0].transpose(0, 1)

    query, place = decoder.query_feat.weight[None], decoder.query_embed.weight[None]
    logits, masks, blocked = predict(query, maps[0].shape[-2:])
    for index, layer in enumerate(decoder.transformer_decoder.layers):
        memory, position = tokens[index % 3], positions[index % 3]
        blocked[torch.where(blocked.sum(-1) == blocked.shape[-1])] = False
        query = layer.norms[0](query + attend(layer.cross_attn.attn, query + place, memory + position, memory, blocked))
        query = layer.norms[1](query + attend(layer.self_attn.attn, query + place, query + place, query))
        query = layer.norms[2](layer.ffn(query))
        logits, masks, blocked = predict(query, maps[(index + 1) % 3].shape[-2:])
    return logits, masks


def official_postprocess(log_probs: Tensor, masks: Tensor, geometry: MaskGeometry, things: set[int]
                         ) -> tuple[Tensor, Tensor, Tensor]:
    """Semantic labels (H, W), panoptic ids (H, W), instance masks (N, H, W) of one image."""
    masks = F.interpolate(masks[None], geometry.padded, mode='bilinear', align_corners=False)
    masks = masks[..., :geometry.image[0], :geometry.image[1]]
    masks = F.interpolate(masks, geometry.output, mode='bilinear', align_corners=False)[0]
    probabilities = log_probs.softmax(-1)
    inside = masks.sigmoid()
    labels = torch.einsum('qc,qhw->chw', probabilities[:, :-1], inside).argmax(0)
    return labels, _official_panoptic(probabilities, masks, things), _official_instances(probabilities, masks, things)


def _official_panoptic(probabilities: Tensor, masks: Tensor, things: set[int]) -> Tensor:
    scores, classes = probabilities.max(-1)
    keep = (classes != probabilities.shape[1] - 1) & (scores > 0.0)
    scores, classes, masks = scores[keep], classes[keep], masks[keep].sigmoid()
    ids = torch.zeros(masks.shape[-2:], dtype=torch.int32)
    if len(masks) == 0:
        return ids
    owner = (scores[:, None, None] * masks).argmax(0)
    stuff: dict[int, int] = {}
    number = 0
    for query, label in enumerate(classes.tolist()):
        owned, original = owner == query, masks[query] >= 0.5
        both = owned & original
        if min(owned.sum().item(), original.sum().item(), both.sum().item()) == 0 \
                or owned.sum().item() / original.sum().item() < 0.8:
            continue
        if label not in things and label in stuff:
            ids[both] = stuff[label]
            continue
        number += 1
        ids[both] = number
        if label not in things:
            stuff[label] = number
    return ids


def _official_instances(probabilities: Tensor, masks: Tensor, things: set[int]) -> Tensor:
    classes = probabilities.shape[1] - 1
    _, pairs = probabilities[:, :-1].flatten().topk(100, sorted=False)
    masks = masks[pairs // classes]
    chosen = torch.tensor([int(label) in things for label in pairs % classes])
    masks = masks[chosen]
    found = (masks > 0).float()
    (masks.sigmoid().flatten(1) * found.flatten(1)).sum(1) / (found.flatten(1).sum(1) + 1e-6)
    return found


@torch.no_grad()
def official(model: FCCLIP, data: dict) -> tuple[Tensor, Tensor, Tensor]:
    """The whole procedure for a batch of one."""
    batch = model.data_preprocessor(data, False)
    images, samples = batch['inputs'], batch['data_samples']
    features = model.extract_feat(images, samples)
    mask_features, maps = official_pixel_decoder(model.mask_generator.pixel_decoder, [
        features.map(name) for name in ('res2', 'res3', 'res4', 'res5')])
    logits, masks = official_decoder(model, mask_features, maps)
    dense = features.map(model.trunk.dense_name)
    pooled = official_pool(dense, F.interpolate(masks, dense.shape[-2:], mode='bilinear', align_corners=False))
    frozen = model.image_tower.visual_prediction(pooled)
    log_probs = geometric_ensemble(logits, model.classifier.frozen_logits(frozen), model.classifier.rows.seen,
                                   compat=True)
    return official_postprocess(log_probs[0], masks[0], model.trunk.geometries(images, samples)[0],
                                set(model.classifier.rows.things))


# ------------------------------------------------------------------------------------------------ measurement
@torch.no_grad()
def ours(model: FCCLIP, data: dict) -> DetDataSample:
    return model.test_step(dict(inputs=data['inputs'], data_samples=[data['data_samples'][0].clone()]))[0]


def blobs(classes: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Log probabilities (Q, K+1) and mask logits (Q, h, w) that look like a trained network's."""
    generator = torch.Generator().manual_seed(3)
    y, x = torch.meshgrid(torch.linspace(0, 1, size[0]), torch.linspace(0, size[1] / size[0], size[1]), indexing='ij')
    places = torch.rand(QUERIES, 3, generator=generator)
    logits = torch.stack([25 * (0.03 + 0.2 * radius - ((x - size[1] / size[0] * left)**2 + (y - top)**2).sqrt())
                          for left, top, radius in places]).clamp(-9, 9)
    logits += 0.3 * torch.randn(logits.shape, generator=generator)
    return (4 * torch.randn(QUERIES, classes + 1, generator=generator)).log_softmax(-1), logits


@torch.no_grad()
def network_output(model: FCCLIP, data: dict) -> tuple[Tensor, Tensor, MaskGeometry]:
    batch = model.data_preprocessor(data, False)
    proposals, features = model.generate(batch['inputs'], batch['data_samples'], all_layers=False)
    log_probs = model.trunk.classify(proposals[-1], features)[0]
    geometry = model.trunk.geometries(batch['inputs'], batch['data_samples'])[0]
    return log_probs, proposals[-1].mask_logits[0].float(), geometry


Sides = dict[str, Callable[[], object]]


def alternate(sides: Sides, rounds: int) -> tuple[dict[str, float], dict[str, object]]:
    """Least wall seconds of every side, and its last result; the first round warms up."""
    best = dict.fromkeys(sides, float('inf'))
    results: dict[str, object] = {}
    for _ in range(rounds):
        for name, side in sides.items():
            results.pop(name, None)
            start = time.perf_counter()
            results[name] = side()
            best[name] = min(best[name], time.perf_counter() - start)
    return best, results


def peak_mib(side: Callable[[], object]) -> float:
    """MiB that a call needs beyond what the process holds before it and beyond its result (Linux)."""
    found = extra_peak_bytes(side)
    return float('nan') if found is None else found / 2**20


def rows_of(what: str, classes: int, sides: Sides, times: dict[str, float]) -> list[dict]:
    first = next(iter(times.values()))
    rows = [dict(what=what, classes=classes, side=name, seconds=round(times[name], 4),
                 ratio=round(first / times[name], 2)) for name in sides]
    for row in rows:
        print(f'{row["what"]:24} {classes:4} classes  {row["side"]:22} {row["seconds"]:8.3f} s  {row["ratio"]:5.2f} x',
              flush=True)
    return rows


def end_to_end(models: dict[str, FCCLIP], data: dict, classes: int) -> Sides:
    for model in models.values():
        use_words(model, classes)
    exact, fast = models['fp32'], models['bf16']
    return {'official': lambda: official(exact, data), 'ours, exact fp32': lambda: ours(exact, data),
            'ours, bf16 tower': lambda: ours(fast, data)}


def agreement(results: dict[str, object]) -> dict[str, int]:
    """Pixels whose semantic labels differ between the official procedure and ours."""
    labels = results['official'][0]  # type: ignore[index]
    found = results['ours, exact fp32'].pred_sem_seg.sem_seg[0]  # type: ignore[attr-defined]
    return dict(semantic_pixels=labels.numel(), differing=int((labels != found).sum()))


def postprocessing(model: FCCLIP, data: dict, classes: int) -> dict[str, Sides]:
    """The sides by input."""
    use_words(model, classes)
    things = set(model.classifier.rows.things)
    log_probs, masks, geometry = network_output(model, data)
    inputs = {'network': (log_probs, masks), 'blobs': blobs(classes, (masks.shape[-2], masks.shape[-1]))}
    return {f'post-processing, {name}': _post_sides(model, *pair, geometry, things) for name, pair in inputs.items()}


def _post_sides(model: FCCLIP, log_probs: Tensor, logits: Tensor, geometry: MaskGeometry, things: set[int]) -> Sides:
    signed = log_probs.softmax(-1)
    signed[0, 0] = -1e-9  # a negative weight switches the screening off

    def every_product() -> object:
        rest = model.postprocessor(log_probs, logits, geometry, sorted(things), tasks=('panoptic', 'instance'))
        return rest, model.postprocessor.semantic(signed[:, :-1], logits, geometry)

    return {'official': lambda: official_postprocess(log_probs, logits, geometry, things),
            'ours, every product': every_product,
            'ours, screened': lambda: model.postprocessor(log_probs, logits, geometry, sorted(things))}


def times(models: dict[str, FCCLIP], args: argparse.Namespace) -> dict:
    """The report without memory."""
    data = picture(IMAGE, SHORT_SIDE)
    report: dict = dict(what=f'{IMAGE[0]}x{IMAGE[1]} image, short side {SHORT_SIDE}, {QUERIES} queries, ConvNeXt-B',
                        threads=args.threads, machine=machine(), rows=[], agreement={}, memory={})
    for classes in args.classes:
        groups = {'end to end': end_to_end(models, data, classes), **postprocessing(models['fp32'], data, classes)}
        for what, sides in groups.items():
            found, results = alternate(sides, args.rounds)
            report['rows'] += rows_of(what, classes, sides, found)
            if what == 'end to end':
                report['agreement'][str(classes)] = agreement(results)
    return report


def memory(models: dict[str, FCCLIP], args: argparse.Namespace) -> Iterator[dict]:
    """Peaks beyond the weights, one row after the other; the large image first."""
    for side in end_to_end(models, picture((64, 96), None), 847).values():
        side()  # whatever is set up once
    large, data = picture(LARGE, None), picture(IMAGE, SHORT_SIDE)
    peak = peak_mib(lambda: ours(models['fp32'], large))
    yield dict(what=f'end to end, {LARGE[0]}x{LARGE[1]}', classes=847, side='ours, exact fp32', peak_mib=round(peak, 1))
    for classes in args.classes:
        groups = {'end to end': end_to_end(models, data, classes)}
        groups['post-processing'] = postprocessing(models['fp32'], data, classes)['post-processing, network']
        for what, sides in groups.items():
            for name, side in sides.items():
                yield dict(what=what, classes=classes, side=name, peak_mib=round(peak_mib(side), 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=2)
    parser.add_argument('--classes', type=int, nargs='+', choices=list(VOCABULARIES), default=list(VOCABULARIES))
    parser.add_argument('--memory', action='store_true', help='measure memory instead of time')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'fc_clip_inference.json')
    args = parser.parse_args()
    if backend('cpu') != 'native':
        raise SystemExit('the compiled CPU operators are not loaded; run `python -m frozenmm.ops.build`')
    torch.set_num_threads(args.threads)
    models = {precision: build(precision) for precision in ('fp32', 'bf16')}
    if args.memory:
        report = json.loads(args.out.read_text()) if args.out.is_file() else {}
        report['memory'] = dict(machine=machine(), rows=[])
        for row in memory(models, args):
            print(f'{row["what"]:24} {row["classes"]:4} classes  {row["side"]:22} {row["peak_mib"]:8.0f} MiB',
                  flush=True)
            report['memory']['rows'].append(row)
            write_json(args.out, report)
        return
    write_json(args.out, times(models, args))


if __name__ == '__main__':
    main()
