"""Adapters of the recorded training-free cases: official layouts through our towers into our public modules."""
from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from frozenmm.compat import require
from frozenmm.foundation import ImageTower
from frozenmm.foundation.image_towers.clip import STATS, CLIPTower
from frozenmm.foundation.image_towers.dino import DINOTower
from frozenmm.foundation.image_towers.dinov2 import DINOv2Tower
from frozenmm.foundation.image_towers.dinov2_vit import Attention
from frozenmm.foundation.image_towers.open_clip import OpenCLIPTower
from frozenmm.foundation.image_towers.radio import RADIOTower
from frozenmm.foundation.image_towers.sam import SAMTower
from frozenmm.foundation.text_embeddings import ensemble
from frozenmm.foundation.text_towers.clip_text_network import CLIPTextTransformer
from frozenmm.segmentation.dense_clip.aggregation import SamCells, SelfAggregation
from frozenmm.segmentation.dense_clip.attention import RecursiveAttention, Surroundings, gaussian_window, neighbour_bias
from frozenmm.segmentation.dense_clip.labels import LabelRule, drop_absent, smooth_by_keys
from frozenmm.segmentation.dense_clip.model import DenseCLIP
from frozenmm.segmentation.dense_clip.pamr import PAMR
from frozenmm.segmentation.dense_clip.sam_refinement import (
    PictureFrame,
    RegionPrompts,
    SamRefinement,
    embed_mask,
)
from frozenmm.segmentation.dense_clip.text_rows import class_lines
from frozenmm.segmentation.dense_clip.windows import fitted_size, window_plan
from parity.cases import Case


# ---------------------------------------------------------------------------------------------------- towers
@contextmanager
def _file(weights: dict[str, Tensor], prefix: str = '') -> Iterator[str]:
    """A weights file as a user has it."""
    part = {key.removeprefix(prefix): value.contiguous() for key, value in weights.items() if key.startswith(prefix)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'model.safetensors'
        save_file(part, path)
        yield str(path)


def _clip(params: dict, weights: dict[str, Tensor], prefix: str = '', *, is_maskclip: bool = False) -> ImageTower:
    """The recorded CLIP; MaskCLIP's own activation comes from `compat`, not from the tower."""
    with _file(weights, prefix) as path:
        if params['activation'] == 'gelu' and not is_maskclip:
            vision = dict(image_size=params['image_size'], layers=params['layers'], width=params['width'],
                          head_width=params['width'] // params['heads'], patch_size=params['patch_size'])
            return OpenCLIPTower(dict(embed_dim=params['embed_dim'], vision_cfg=vision), path)
        return CLIPTower(dict(input_resolution=params['image_size'], patch_size=params['patch_size'],
                              width=params['width'], layers=params['layers'], heads=params['heads'],
                              output_dim=params['embed_dim']), path)


def _proxy(case: Case) -> ImageTower:
    """The recorded proxy; DINO's and DINOv2's files do not all have the token that only training uses."""
    kind = case.params['proxy']
    if kind == 'given':
        return DINOTower(dict(img_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=1), 'random',
                         resize_mode='none')
    if kind == 'sam':
        return _sam(case)
    prefix, sizes = f'{kind}.', case.params[kind]
    weights = {key: value for key, value in case.weights.items() if key.startswith(prefix)}
    common = dict(embed_dim=sizes['dim'], depth=sizes['layers'], num_heads=sizes['heads'],
                  patch_size=sizes['patch_size'], norm_eps=sizes['norm_eps'],
                  img_size=sizes['patch_size'] * round((weights[f'{prefix}pos_embed'].shape[1] - 1) ** 0.5))
    if kind == 'dinov2':
        weights[f'{prefix}mask_token'] = weights.get(f'{prefix}mask_token', torch.zeros(1, sizes['dim']))
        common |= dict(num_register_tokens=sizes['registers'], interpolate_offset=sizes['interpolate_offset'],
                       interpolate_antialias='antialias' in sizes['positions'])
        with _file(weights, prefix) as path:
            return DINOv2Tower(common, path, resize_mode='none')
    with _file(weights, prefix) as path:
        return DINOTower(common, path, resize_mode='none')


def _sam(case: Case) -> ImageTower:
    sizes, mode = case.params['sam'], 'squash' if case.params.get('proxy') == 'sam' else 'pad'
    with _file(case.weights, 'sam.') as path:
        return SAMTower(dict(img_size=sizes['image_size'], patch_size=sizes['patch_size'], embed_dim=sizes['dim'],
                             depth=sizes['layers'], num_heads=sizes['heads'], out_chans=sizes['out_chans'],
                             window_size=sizes['window_size'], global_attn_indexes=sizes['global_blocks'],
                             use_rel_pos=sizes['relative_positions'], norm_eps=sizes['norm_eps']), path,
                        resize_mode=mode)


def _pair(value: int) -> tuple[int, int] | None:
    return (value, value) if value else None


# ---------------------------------------------------------------------------------------------------- dense features
def _dense(model: DenseCLIP, case: Case, proxy_maps: Tensor | None = None) -> dict[str, Tensor]:
    last = model.dense(case.inputs['image'], proxy_maps, shared_mean=True)
    normed, embedding = model.final_norm(last.tokens), model.embed(last.tokens)
    return dict(tokens=normed, embedding=embedding, logits=model.cosines(last.cells, case.inputs['text']))


def maskclip_dense(case: Case) -> dict[str, Tensor]:
    params = case.params
    official = params['activation'] == 'gelu'
    model = DenseCLIP(_clip(params, case.weights, is_maskclip=True), dict(name='maskclip', compat=official))
    image = model.padded(case.inputs['image'])[0] if params['padding'] == 'corner' else case.inputs['image']
    last = model.dense(image, keys=True)
    values = model.final_norm(last.cells.movedim(1, -1)).movedim(-1, 1)
    embedding = model.embed(last.cells.movedim(1, -1)).movedim(-1, 1)
    logits = model.cosines(last.cells, case.inputs['text'])
    keys = last.keys[:, last.prefix:]
    refined = drop_absent(logits, params['pd_thresh']) if params['pd_thresh'] else logits
    if params['ks_thresh']:
        refined = smooth_by_keys(refined, keys, params['ks_thresh'], compat=True)
    return dict(values=values, embedding=embedding, logits=logits, keys=keys, refined=refined)


def _attended(model: DenseCLIP, image: Tensor) -> Tensor:
    """(B * heads, L, L) weights of the last block."""
    weights = model.tower.run(lambda network, x: model.trunk.attention_weights(network, x, model.block), image)
    return weights.flatten(0, 1)


def sclip_dense(case: Case) -> dict[str, Tensor]:
    attention = 'self_self' if case.params.get('csa', True) else 'plain'
    model = DenseCLIP(_clip(case.params, case.weights), dict(name='sclip', attention=attention, compat=True))
    grid = tuple(side // model.trunk.patch for side in case.inputs['image'].shape[-2:])
    positions = model.tower.run(lambda network: model.trunk.positions(network, grid))
    return dict(_dense(model, case), attention=_attended(model, case.inputs['image']), positions=positions[None])


def _naclip_method(params: dict) -> dict:
    kinds = dict(naclip='neighbour', kk='key', csa='self_self', nonly='neighbour_only', vanilla='plain', qk='plain')
    kind = kinds[params['attention']]
    attention = dict(type=kind, std=params['gaussian_std']) if kind.startswith('neighbour') else kind
    keeps = params['arch'] == 'vanilla'
    return dict(name='naclip', attention=attention, residual=keeps, ffn=keeps, compat=True)


def naclip_dense(case: Case) -> dict[str, Tensor]:
    params = case.params
    model = DenseCLIP(_clip(params, case.weights), _naclip_method(params))
    grid = tuple(side // model.trunk.patch for side in case.inputs['image'].shape[-2:])
    std = params.get('gaussian_std', 5.0)
    return dict(_dense(model, case), attention=_attended(model, case.inputs['image']),
                window=gaussian_window(grid, std), omega=neighbour_bias(grid, std, 1 + grid[0] * grid[1]))


def _proxy_model(case: Case, **method: object) -> DenseCLIP:
    attention = dict(beta=case.params['beta'], gamma=case.params['gamma'])
    options = dict(name='proxyclip', attention=attention, compat=True)
    return DenseCLIP(_clip(case.params['clip'], case.weights, 'clip.'), {**options, **method}, proxy=_proxy(case))


def proxyclip_dense(case: Case) -> dict[str, Tensor]:
    model = _proxy_model(case)
    maps = case.inputs['proxy'] if case.params['proxy'] == 'given' else model.proxy_maps(case.inputs['image'])
    mean = model.similarity(maps, shared_mean=True)
    return dict(_dense(model, case, maps), proxy=maps, attention=model.block.attention.rows(maps, mean))


# ---------------------------------------------------------------------------------------------------- Trident
def _trident_model(case: Case, **options: object) -> DenseCLIP:
    params = case.params
    aggregate = dict(type='sam', factor=params['cos_fac'], keep_negative=params['refine_neg_cos'],
                     halves=params.get('halves', False))
    method = dict(name='trident', attention=dict(beta=params['beta'], gamma=params['gamma']), aggregate=aggregate,
                  compat=True)
    return DenseCLIP(_clip(params['clip'], case.weights, 'clip.'), method, proxy=_proxy(case), **options)


def trident_dense(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    random = dict(img_size=64, embed_dim=8, depth=1, num_heads=1, out_chans=8, global_attn_indexes=(0,))
    model = _trident_model(case, sam=SAMTower(random, 'random'))
    crop, stride, patch = _pair(params['slide_crop']), _pair(params['slide_stride']), model.trunk.patch
    image = inputs['image']
    plan = window_plan(tuple(image.shape[-2:]), crop, stride)
    names = [name for name in ('', '.0', '.1') if f'sam_attention{name}' in inputs]
    sam = [SamCells(inputs[f'sam_attention{name}'][0], inputs[f'sam_values{name}'][0].flatten(1, 2),
                    tuple(inputs[f'sam_values{name}'].shape[2:4])) for name in names]
    spliced = model.spliced(image, crop, stride)
    mixed = model.aggregation(spliced, sam)
    tokens = mixed.flatten(2).transpose(1, 2)
    weights = {f'sam_weights{name}': model.aggregation.weights(cells.attention, cells.values)
               for name, cells in zip(names, sam)}
    return dict(weights, windows=torch.tensor(plan.boxes) // patch, proxy=model.proxy_maps(plan.cut(image[0])),
                spliced=spliced, tokens=model.final_norm(tokens), embedding=model.embed(tokens),
                logits=model.cosines(mixed, inputs['text']))


def _labels(case: Case, logits: Tensor, rule: LabelRule) -> dict[str, Tensor]:
    """Probabilities of classes and labels, of cosines (Q, H, W)."""
    index = case.inputs['query_idx']
    classes, labels = rule(rule.classes(rule.probabilities(logits), index, int(index.max()) + 1))
    return dict(probabilities=classes, labels=labels)


def trident_logits(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    model = _trident_model(case, sam=_sam(case))
    crop, stride = _pair(params['slide_crop']), _pair(params['slide_stride'])
    picture, image = inputs['raw'].permute(2, 0, 1), inputs['image']
    cells = model(image, inputs['text'], STATS, crop=crop, stride=stride, picture=picture)
    logits = cells.at(tuple(params['ori_shape']))
    sam = model.sam_cells(picture)
    rule = LabelRule(params['logit_scale'], params['prob_thd'], compat=True)
    return dict(_labels(case, logits[0], rule), logits=logits, sam_grid=torch.tensor(sam[0].grid),
                sam_values_mean=sam[0].values.mean(1),
                fitted_size=torch.tensor(model.fitted(tuple(image.shape[-2:]), crop, stride)))


# ---------------------------------------------------------------------------------------------------- RADSeg
def radseg_dense(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    name = next(key.split('.')[1] for key in case.weights if key.startswith('_heads.'))
    with _file(case.weights) as path:
        tower = RADIOTower(dict(num_heads=params['heads'], norm_eps=params['norm_eps']), path, adaptor=name)
    method = dict(name='radseg', attention=dict(scale=params['scra_scaling']),
                  aggregate=dict(scale=params['scga_scaling']), compat=True)
    model = DenseCLIP(tower, method)
    crop, stride = _pair(params['slide_crop']), _pair(params['slide_stride'])
    pixels = model.normalised(inputs['image'] * 255, type(STATS)())
    fitted = model.fitted(tuple(pixels.shape[-2:]), crop, stride)
    spliced = model.spliced(pixels, crop, stride)
    aggregated = model.aggregation(spliced)
    classifier = ensemble(inputs['text_features'])
    rule = LabelRule(params['temperature'], denoising=params['prompt_denoising_thresh'], on_cells=True, compat=True)
    cells = model(inputs['image'] * 255, classifier, type(STATS)(), crop=crop, stride=stride)
    names = torch.arange(len(classifier))
    classes, labels = rule(rule.on(cells, names, len(names), tuple(params['ori_shape'])))
    boxes = torch.tensor(window_plan(fitted, crop, stride).boxes) // model.trunk.patch
    return dict(classifier=classifier, fitted=torch.tensor(fitted), windows=boxes, spliced=spliced,
                aggregated=aggregated, embedding=model.embed(aggregated.movedim(1, -1)).movedim(-1, 1),
                grid_probabilities=rule.probabilities(cells.maps), probabilities=classes[None], labels=labels[None])


def radseg_recursive_attention(case: Case) -> dict[str, Tensor]:
    params, x = case.params, case.inputs['tokens']
    module = Attention(params['dim'], params['heads'])
    module.load_state_dict({key.removeprefix('attn.'): value for key, value in case.weights.items()})
    query, key, value = module.qkv(x).unflatten(2, (3, params['heads'], -1)).permute(2, 0, 3, 1, 4)
    mixed = RecursiveAttention(params['scra_scaling']).mix(query, key, value, Surroundings((1, 1), module.proj))
    return dict(output=module.proj(mixed.transpose(1, 2).flatten(2)))


def radseg_global_aggregation(case: Case) -> dict[str, Tensor]:
    aggregate = SelfAggregation(case.params['scga_scaling'], compat=True)
    return dict(aggregated=aggregate(case.inputs['features']))


# ---------------------------------------------------------------------------------------------------- text and labels
def text_classifier(case: Case) -> dict[str, Tensor]:
    params, tokens = case.params, case.inputs['tokens']
    network = CLIPTextTransformer(params['width'], params['layers'], params['heads'], params['embed_dim'],
                                  context=params['context_length'], vocabulary_size=params['vocabulary'],
                                  activation=params['activation'])
    network.load_state_dict({'logit_scale': network.logit_scale.data, **case.weights})
    features = network(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
    words = class_lines(params['lines'], params['separator'])
    return dict(features=features, classifier=F.normalize(ensemble(features), dim=-1), query_idx=words.class_of_word)


def _rule(params: dict) -> LabelRule:
    return LabelRule(params['logit_scale'], params.get('prob_thd') or 0.0, params.get('area_thd'),
                     params.get('prompt_denoising_thresh', 0.0), compat=params.get('method') == 'trident')


def logits_to_labels(case: Case) -> dict[str, Tensor]:
    found = _labels(case, case.inputs['logits'], _rule(case.params))
    if case.params.get('method') == 'naclip':
        found['probabilities'] = found['probabilities'] / found['probabilities'].sum(0)
    return found


def slide_logits(case: Case) -> dict[str, Tensor]:
    params, image = case.params, case.inputs['image']
    is_naclip = 'gaussian_std' in params
    if 'proxy' in params:
        padding = 'both' if params['slide_crop'] else 'none'  # ProxyCLIP pads windows only
        model = _proxy_model(case, multiple=params.get('pad_multiple'), padding=padding)
    else:
        method = _naclip_method(params) if is_naclip else dict(
            name='sclip', attention='self_self' if params.get('csa', True) else 'plain', compat=True)
        model = DenseCLIP(_clip(params, case.weights), method)
    cells = model(image, case.inputs['text'], STATS, crop=_pair(params['slide_crop']),
                  stride=_pair(params['slide_stride']))
    original = cells.at(tuple(params['ori_shape']))
    if params['pamr_steps'] and (params['slide_crop'] or is_naclip):  # SCLIP refines with windows only
        guide = F.interpolate(image, original.shape[-2:], mode='bilinear', align_corners=False)
        refined = PAMR(params['pamr_steps'], params['pamr_dilations'])(guide, original)
    else:
        refined = original
    found = _labels(case, refined[0], _rule(params))
    if is_naclip:
        found['probabilities'] = found['probabilities'] / found['probabilities'].sum(0)
    recorded = tuple(case.expected['logits'].shape[-2:])
    return dict(found, logits=original if recorded == tuple(params['ori_shape']) else cells.at())


def make_windows(case: Case) -> dict[str, Tensor]:
    params = case.params
    crop, stride = _pair(params['slide_crop']), _pair(params['slide_stride'])
    sizes = [tuple(row) for row in case.inputs['sizes'].tolist()]
    if params['method'] in ('trident', 'radseg'):
        multiple = params['patch_size'] if params['method'] == 'trident' else params['slide_stride']
        sizes = [fitted_size(size, multiple, crop) for size in sizes]
    plans = [window_plan(size, crop, stride) for size in sizes]
    return dict(fitted=torch.tensor(sizes), grids=torch.tensor([(len(plan.tops), len(plan.lefts)) for plan in plans]),
                counts=torch.tensor([len(plan.boxes) for plan in plans]),
                boxes=torch.tensor([box for plan in plans for box in plan.boxes]))


def pamr(case: Case) -> dict[str, Tensor]:
    refine = PAMR(case.params['steps'], case.params['dilations'])
    return dict(mask=refine(case.inputs['image'], case.inputs['mask']))


# ---------------------------------------------------------------------------------------------------- SAM refinement
def sam_refinement(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    calls: list[RegionPrompts] = []
    frame = PictureFrame(tuple(params['sam_original_size']), tuple(params['sam_input_size']))

    def decode(prompts: RegionPrompts) -> tuple[Tensor, Tensor]:
        start = sum(len(call.points) for call in calls)
        calls.append(prompts)
        here = slice(start, start + len(prompts.points))
        logits = F.interpolate(inputs['grids'][here, None], (frame.mask_side, frame.mask_side), mode='bilinear',
                               align_corners=False)
        return logits, inputs['ious'][here]

    refine = SamRefinement(params['coarse_thresh'], params['minimal_area'], params['sam_mask_coff'],
                           params['sam_iou_thresh'], compat=True)
    labels, probabilities = refine(inputs['probabilities'], inputs['labels'].long(), frame, decode)
    points, boxes = [torch.zeros(0, 2)], [torch.zeros(0, 4)]
    return dict(labels=labels, probabilities=probabilities, points=torch.cat(points + [call.points for call in calls]),
                boxes=torch.cat(boxes + [call.boxes for call in calls]),
                regions_per_call=torch.tensor([len(call.points) for call in calls]),
                mask_prompts=torch.cat([torch.zeros(0, 32, 32)] + [call.mask[0, :, ::8, ::8] for call in calls]))


def sam_mask_prompt(case: Case) -> dict[str, Tensor]:
    parts = require('segment_anything.modeling', 'this case')
    encoder = parts.PromptEncoder(embed_dim=case.params['embed_dim'], image_embedding_size=(4, 4),
                                  input_image_size=(64, 64), mask_in_chans=case.params['mask_in_chans'])
    layers = encoder.mask_downscaling
    prefix = 'sam.prompt_encoder.mask_downscaling.'
    layers.load_state_dict({key.removeprefix(prefix): value for key, value in case.weights.items()})
    mask = case.inputs['mask']
    return dict(with_batch=embed_mask(layers, mask), without_batch=embed_mask(layers, mask, compat=True)[0])


ADAPTERS = {
    'maskclip_dense': maskclip_dense,
    'sclip_dense': sclip_dense,
    'naclip_dense': naclip_dense,
    'proxyclip_dense': proxyclip_dense,
    'trident_dense': trident_dense,
    'trident_logits': trident_logits,
    'radseg_dense': radseg_dense,
    'radseg_recursive_attention': radseg_recursive_attention,
    'radseg_global_aggregation': radseg_global_aggregation,
    'text_classifier': text_classifier,
    'logits_to_labels': logits_to_labels,
    'slide_logits': slide_logits,
    'window_plan': make_windows,
    'pamr': pamr,
    'sam_refinement': sam_refinement,
    'sam_mask_prompt': sam_mask_prompt,
}
