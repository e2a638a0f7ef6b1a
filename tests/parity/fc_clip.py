"""Adapters of the recorded FC-CLIP cases: official weights through our converter into our public modules."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from frozenmm.convert.fc_clip import RULES
from frozenmm.convert.rename import Rename, rename_keys
from frozenmm.foundation import ImageTower, RawFeatures, TowerInput
from frozenmm.foundation.image_towers.clip_resnet import AttentionPool
from frozenmm.foundation.image_towers.timm_reader import TimmVisual
from frozenmm.foundation.templates import VILD14, fill
from frozenmm.foundation.text_embeddings import ensemble
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.ops import MultiScaleDeformableAttention, ms_deform_attn
from frozenmm.ops.mask_ensemble import InstanceMasks, MaskGeometry, PanopticMap, unpack_masks
from frozenmm.ops.mask_pool import mask_pool
from frozenmm.segmentation.fc_clip.classifier import MaskClassifier
from frozenmm.segmentation.fc_clip.postprocess import MaskPostprocessor, MaskResults
from frozenmm.segmentation.fc_clip.segmentor import FCCLIP
from frozenmm.segmentation.fc_clip.text_classifier import synonym_index, text_logits
from frozenmm.segmentation.fc_clip.visual_head import mask_embeddings
from frozenmm.segmentation.mask2former.criterion import MaskTargets, SetCriterion
from frozenmm.segmentation.mask2former.decoder import MaskedAttentionDecoder, MaskProposals
from frozenmm.segmentation.mask2former.generator import MaskGenerator
from frozenmm.segmentation.mask2former.pixel_decoder import PixelDecoder
from frozenmm.segmentation.mask2former.points import PointSampler
from frozenmm.structures import ImageStats
from parity.cases import Case

PYRAMID = ('res2', 'res3', 'res4', 'res5')


def load(module: nn.Module, weights: dict[str, Tensor], official: str, ours: str, rules: tuple[Rename, ...] = RULES
         ) -> nn.Module:
    """Load a part of an official model: its keys get the official prefix, pass the converter and lose our prefix."""
    state, report = rename_keys({f'{official}{key}': value for key, value in weights.items()}, rules)
    report.require_all_matched('the recorded part')
    module.load_state_dict({key.removeprefix(ours): value for key, value in state.items() if key.startswith(ours)})
    return module


# ---------------------------------------------------------------------------------------------------- operators
def deformable_attention(case: Case) -> dict[str, Tensor]:
    names = ('value', 'sampling_locations', 'attention_weights')
    leaves = {name: case.inputs[name].requires_grad_() for name in names}
    output = ms_deform_attn(leaves['value'], case.inputs['spatial_shapes'], case.inputs['level_start_index'],
                            leaves['sampling_locations'], leaves['attention_weights'])
    output.backward(case.inputs['grad_output'])
    return dict(output=output) | {f'grad_{name}': leaf.grad for name, leaf in leaves.items()}


def deformable_attention_module(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    module = MultiScaleDeformableAttention(params['embed_dims'], params['num_heads'], params['num_levels'],
                                           params['num_points'], dropout=0.0, batch_first=True)
    module.load_state_dict(case.weights)
    output = module(inputs['query'], value=inputs['value'], identity=torch.zeros_like(inputs['query']),
                    key_padding_mask=inputs.get('padding_mask'), reference_points=inputs['reference_points'],
                    spatial_shapes=inputs['spatial_shapes'], level_start_index=inputs['level_start_index'])
    return dict(output=output)


def mask_pooling(case: Case) -> dict[str, Tensor]:
    return dict(pooled=mask_pool(case.inputs['features'], case.inputs['mask_logits']))


# ---------------------------------------------------------------------------------------------------- mask generator
def pixel_decoder_of(params: dict) -> PixelDecoder:
    return PixelDecoder(params['in_channels'], channels=params['conv_dim'], mask_channels=params['mask_dim'],
                        num_layers=params['num_layers'], num_heads=params['num_heads'],
                        num_points=params['num_points'], feedforward_channels=params['dim_feedforward']).eval()


def pixel_decoder(case: Case) -> dict[str, Tensor]:
    module = load(pixel_decoder_of(case.params), case.weights, 'sem_seg_head.pixel_decoder.',
                  'mask_generator.pixel_decoder.')
    features, levels = module([case.inputs[name] for name in PYRAMID])
    return dict(mask_features=features) | {f'level{index}': level for index, level in enumerate(levels)}


def decoder_options(params: dict) -> dict:
    hidden = params['hidden_dim']
    return dict(channels=hidden, mask_channels=hidden, num_queries=params.get('num_queries', 1),
                num_layers=params.get('num_layers', 1), num_heads=params.get('nheads', params.get('num_heads')),
                feedforward_channels=params.get('dim_feedforward', hidden))


def classifier_of(params: dict, text: Tensor, num_synonyms: Tensor, seen: Tensor | None = None, things: tuple = (),
                  **options: object) -> MaskClassifier:
    """A classifier with recorded text embeddings, in eval mode."""
    classifier = MaskClassifier(params['clip_embed_dim'], channels=params['hidden_dim'], **options).eval()
    seen = torch.ones(len(num_synonyms)) if seen is None else seen
    classifier.set_embeddings(text, num_synonyms, seen=seen, things=things)
    return classifier


def split_text(case: Case) -> tuple[Tensor, Tensor]:
    """The classes' rows of a recorded text classifier, and its last row, void."""
    return case.inputs['text_classifier'][:-1], case.inputs['text_classifier'][-1:]


def decoder_outputs(proposals: list[MaskProposals], classifier: MaskClassifier) -> dict[str, Tensor]:
    outputs = dict(pred_logits=classifier(proposals[-1].embeddings), pred_masks=proposals[-1].mask_logits)
    for index, layer in enumerate(proposals[:-1]):
        outputs |= {f'aux_logits.{index}': classifier(layer.embeddings), f'aux_masks.{index}': layer.mask_logits}
    return outputs


def load_decoder(case: Case, decoder: nn.Module, classifier: MaskClassifier, rules: tuple[Rename, ...] = RULES) -> None:
    """Official `predictor` weights go to two of our parts; void comes from the recorded text classifier."""
    model = nn.ModuleDict(dict(mask_generator=nn.ModuleDict(dict(decoder=decoder)), classifier=classifier))
    weights = {f'sem_seg_head.predictor.{key}': value for key, value in case.weights.items()}
    weights['void_embedding.weight'] = split_text(case)[1]
    load(model, weights, '', '', rules)


def transformer_decoder(case: Case) -> dict[str, Tensor]:
    params = case.params
    decoder = MaskedAttentionDecoder(params['in_channels'], **decoder_options(params)).eval()
    classifier = classifier_of(params, split_text(case)[0], case.inputs['num_templates'])
    load_decoder(case, decoder, classifier)
    levels = [case.inputs[f'level{index}'] for index in range(3)]
    every = decoder(levels, case.inputs['mask_features'], all_layers=True)
    last = decoder(levels, case.inputs['mask_features'], all_layers=False)
    # the outputs of the last layer are those of the test path, which resizes features instead of masks
    return decoder_outputs([*every[:-1], *last], classifier)


# ---------------------------------------------------------------------------------------------------- losses
class RecordedPoints(PointSampler):
    """The recorded points instead of random ones; the main layer comes first in the recording."""

    def __init__(self, inputs: dict[str, Tensor], images: int) -> None:
        super().__init__()
        self.inputs, self.images = inputs, images

    def matching(self, layer: int, count: int, device: torch.device) -> Tensor:
        start = 0 if layer == 1 else self.images
        return self.inputs['matcher_points'][start:start + count]

    def loss(self, layer: int, mask_logits: Tensor) -> Tensor:
        return self.inputs['loss_points' if layer == 1 else 'aux_loss_points']


def losses(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    weights = params['weights']
    criterion = SetCriterion(class_weight=weights['ce'], mask_weight=weights['mask'], dice_weight=weights['dice'],
                             void_weight=params['eos_coef'])
    images = len(inputs['pred_logits'])
    criterion.sampler = RecordedPoints(inputs, images)
    leaves = {name: inputs[name].requires_grad_() for name in ('pred_logits', 'pred_masks', 'aux_logits', 'aux_masks')}
    arguments = ([leaves['aux_logits'], leaves['pred_logits']], [leaves['aux_masks'], leaves['pred_masks']],
                 [MaskTargets(inputs[f'labels{index}'], inputs[f'masks{index}']) for index in range(images)])
    total = sum(criterion(*arguments).values())
    total.backward()
    outputs = dict(total=total) | {f'grad_{name}': leaf.grad for name, leaf in leaves.items()}
    for suffix, layer in zip(('_0', ''), criterion.unweighted(*arguments)):
        outputs |= {f'loss_{name}{suffix}': value for name, value in layer.items()}
    return outputs


# ---------------------------------------------------------------------------------------------------- classifier
def text_classifier(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    vocabulary = Vocabulary.read(params['class_names'], allow_duplicates=True)
    training = Vocabulary.read(params['train_class_names'], allow_duplicates=True)
    if fill(vocabulary.words[0], VILD14) != params['first_strings']:
        raise ValueError('the templates make other prompts than recorded')
    vectors = inputs['text_features'].unflatten(0, (-1, params['num_templates_per_name']))
    text = F.normalize(ensemble(vectors), dim=-1)  # as `text_embeddings` does
    counts = torch.tensor(vocabulary.counts)
    logits = text_logits(inputs['embeddings'], text, synonym_index(counts), len(vocabulary), inputs['logit_scale'],
                         void=inputs['void_embedding'])
    return dict(classifier=text, num_synonyms=counts, seen=vocabulary.seen_mask(training), logits=logits)


class Trunk(nn.Module):
    """timm's ConvNeXt after its last stage: the classifier head without classes, which normalises."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        from timm.layers import LayerNorm2d, NormMlpClassifierHead
        self.head = NormMlpClassifierHead(channels, 0, norm_layer=partial(LayerNorm2d, eps=1e-6))

    def forward_head(self, cells: Tensor) -> Tensor:
        return self.head(cells)


class ConvNeXtVisual(nn.Module):
    """open_clip's image encoder after the last stage, with the projection of our tower's network."""

    is_channels_last = False
    project = TimmVisual.project

    def __init__(self, channels: int, embed_dim: int, projection: str = 'linear') -> None:
        super().__init__()
        from timm.layers import Mlp
        self.trunk = Trunk(channels)
        layer = nn.Linear(channels, embed_dim, bias=False) if projection == 'linear' else \
            Mlp(channels, 2 * embed_dim, embed_dim, bias=(True, False))
        self.head = nn.Sequential(OrderedDict([('proj' if projection == 'linear' else 'mlp', layer)]))


VISUAL_RULES = (
    Rename(r'(?:backbone\.clip_model\.)?visual\.trunk\.head\.(?:0|norm)\.(.+)', r'trunk.head.norm.\1'),
    Rename(r'(?:backbone\.clip_model\.)?visual\.head\.(?:0|proj)\.(.+)', r'head.proj.\1'),
    Rename(r'visual\.head\.mlp\.(.+)', r'head.mlp.\1'),
    Rename(r'visual\.attnpool\.(.+)', r'attnpool.\1'),
    Rename(r'(?:backbone\.clip_model\.)?logit_scale', 'logit_scale'),
)


def load_visual(visual: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """Weights of a CLIP image encoder; its head stands in the recorded cases under plain numbers."""
    state, report = rename_keys(weights, VISUAL_RULES)
    report.require_all_matched('the recorded image encoder')
    state.pop('logit_scale', None)
    visual.load_state_dict(state)
    return visual.eval()


def clip_visual_prediction(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    if params['tower'] == 'convnext':
        visual = ConvNeXtVisual(params['channels'], params['embed_dim'], params['projection'])
        return dict(embedding=load_visual(visual, case.weights).project(inputs['pooled']))
    visual = nn.Module()
    visual.attnpool = AttentionPool(params['position_side'], inputs['features'].shape[1], params['num_heads'],
                                    params['embed_dim'])
    return dict(embedding=mask_embeddings(load_visual(visual, case.weights), inputs['features'],
                                          inputs['mask_logits']))


class RecordedTower(ImageTower):
    """A tower whose dense map is recorded; its head is real. Maps of the pyramid are not looked at."""

    def __init__(self, visual: nn.Module, dense: Tensor, patch: int) -> None:
        channels = {**dict.fromkeys(PYRAMID, 1), 'clip_vis_dense': dense.shape[1]}
        super().__init__(visual, name='recorded', input=TowerInput(ImageStats(), patch, patch), channels=channels,
                         strides=dict.fromkeys(channels, patch), resize_mode='none')
        self.dense = dense

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        return RawFeatures({**dict.fromkeys(PYRAMID, pixels), 'clip_vis_dense': self.dense})


class RecordedPixelDecoder(nn.Module):
    """Recorded mask features and levels instead of a pixel decoder."""

    def __init__(self, inputs: dict[str, Tensor]) -> None:
        super().__init__()
        self.outputs = (inputs['mask_features'], [inputs[f'level{index}'] for index in range(3)])

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return self.outputs


def tower_of(case: Case, patch: int) -> RecordedTower:
    dense = case.inputs['clip_vis_dense']
    weights = {key.removeprefix('backbone.clip_model.'): value for key, value in case.weights.items()
               if key.removeprefix('backbone.clip_model.').startswith(('visual.', 'logit_scale'))}
    embed_dim = next(value for key, value in weights.items() if key.startswith('visual.head')).shape[0]
    return RecordedTower(load_visual(ConvNeXtVisual(dense.shape[1], embed_dim), weights), dense, patch)


def compat_of(params: dict) -> str:
    return 'valid_masks' if params.get('ensemble_on_valid_mask') else 'all_masks'


def ensemble_logits(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    text = inputs['text_classifier']  # without void here
    sizes = dict(clip_embed_dim=text.shape[1], hidden_dim=text.shape[1])
    classifier = classifier_of(sizes, text, inputs['num_templates'], inputs['seen'],
                               ensemble=dict(alpha=params['alpha'], beta=params['beta'],
                                             log_scale=float(case.weights['logit_scale'])),
                               compat=compat_of(params))
    classifier.void_embedding.weight.data = inputs['void_embedding']
    model = FCCLIP(tower_of(case, 1), classifier, mask_generator=nn.Identity()).eval()
    features = model.extract_feat(torch.zeros(len(inputs['pred_logits']), 3, 4, 4))
    frozen, valid = model.trunk.frozen_embeddings(features, inputs['mask_logits'])
    return dict(log_probs=classifier.log_probs(inputs['pred_logits'], frozen, valid))


# ---------------------------------------------------------------------------------------------------- post-processing
def inference(case: Case) -> dict[str, Tensor]:
    params, logits = case.params, case.inputs['mask_logits']
    process = MaskPostprocessor((case.kind.removesuffix('_inference'),),
                                score_threshold=params['object_mask_threshold'],
                                overlap_threshold=params['overlap_threshold'], top_k=params['topk'],
                                semantic_order='masks', class_scores=True)
    results = process(case.inputs['log_probs'], logits, MaskGeometry.resize_to(tuple(logits.shape[-2:])),
                      params['thing_classes'])
    if results.semantic is not None:
        return dict(scores=results.semantic.class_scores, labels=results.semantic.labels)
    if results.panoptic is not None:
        return dict(panoptic_seg=results.panoptic.ids, segments=segment_rows(results.panoptic))
    return instance_rows(results.instance, case, '')


def segment_rows(panoptic: PanopticMap) -> Tensor:
    """(N, 3): id, thing or not, category."""
    rows = [[segment.id, segment.is_thing, segment.category] for segment in panoptic.segments]
    return torch.tensor(rows, dtype=torch.int64).view(-1, 3)


def instance_rows(instances: InstanceMasks, case: Case, prefix: str) -> dict[str, Tensor]:
    """Instances in the recorded order, which is that of an unsorted top-k: a set."""
    masks = unpack_masks(instances.bits, instances.size[1])
    labels, scores, recorded = (case.expected[f'{prefix}{name}'] for name in ('labels', 'scores', 'masks'))
    order, left = [], list(range(len(instances.labels)))
    for label, score, mask in zip(labels, scores, recorded):
        nearest = min(left, default=None, key=lambda i: (
            int(instances.labels[i] != label), float((instances.scores[i] - score).abs())
            + float((masks[i] != mask.bool()).float().mean())))
        if nearest is not None:
            left.remove(nearest)
            order.append(nearest)
    index = torch.tensor(order + left, dtype=torch.int64)
    return {f'{prefix}scores': instances.scores[index], f'{prefix}labels': instances.labels[index],
            f'{prefix}masks': masks[index]}


# ---------------------------------------------------------------------------------------------------- end to end
def end_to_end_parts(case: Case) -> tuple[dict, DetDataSample, Tensor]:
    """Post-processing options, data sample and padded batch of an end-to-end case."""
    params = case.params
    height, width = case.inputs['image'].shape[-2:]
    divisor = params['size_divisibility']
    batch = torch.zeros(1, 3, height + -height % divisor, width + -width % divisor)
    batch[..., :height, :width] = case.inputs['image']
    sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(params['height'], params['width'])))
    tasks = ('semantic', 'panoptic', 'instance') if 'panoptic_seg' in case.expected else ('semantic',)
    order = 'masks' if params['postprocess_before_inference'] or len(tasks) > 1 else 'scores'
    return dict(tasks=tasks, score_threshold=params['object_mask_threshold'], top_k=params['topk'],
                overlap_threshold=params['overlap_threshold'], semantic_order=order, class_scores=True), sample, batch


def end_to_end_classifier(case: Case) -> MaskClassifier:
    params, inputs = case.params, case.inputs
    return classifier_of(params, inputs['text_embeddings'], inputs['num_templates'], inputs['category_overlap'],
                         tuple(params['thing_classes']), compat=compat_of(params), ensemble=dict(
                             alpha=params['geometric_ensemble_alpha'], beta=params['geometric_ensemble_beta'],
                             log_scale=float(case.weights['backbone.clip_model.logit_scale'])))


def end_to_end_outputs(case: Case, results: MaskResults) -> dict[str, Tensor]:
    outputs = dict(sem_seg=results.semantic.class_scores)
    if results.panoptic is not None:
        outputs |= dict(panoptic_seg=results.panoptic.ids, panoptic_segments=segment_rows(results.panoptic))
        outputs |= instance_rows(results.instance, case, 'instance_')
    return outputs


def eval_end_to_end(case: Case) -> dict[str, Tensor]:
    options, sample, batch = end_to_end_parts(case)
    generator = MaskGenerator([1] * 4, pixel_decoder=RecordedPixelDecoder(case.inputs),
                              decoder=MaskedAttentionDecoder(case.params['hidden_dim'], **decoder_options(case.params)))
    model = FCCLIP(tower_of(case, case.params['size_divisibility']), end_to_end_classifier(case),
                   mask_generator=generator, postprocess=options).eval()
    state, report = rename_keys(case.weights, RULES)
    report.require_all_matched('FC-CLIP')
    model.load_state_dict({**model.state_dict(), **state})
    with torch.no_grad():
        logits, masks = model(batch, [sample], mode='tensor')
        results = model.results(batch, [sample])[0]
    return dict(pred_logits=logits, pred_masks=masks) | end_to_end_outputs(case, results)


ADAPTERS: dict[str, Callable[[Case], dict[str, Tensor]]] = dict(
    ms_deform_attn=deformable_attention, ms_deform_attn_module=deformable_attention_module, mask_pooling=mask_pooling,
    pixel_decoder=pixel_decoder, transformer_decoder=transformer_decoder, losses=losses,
    text_classifier=text_classifier, clip_visual_prediction=clip_visual_prediction, ensemble_logits=ensemble_logits,
    semantic_inference=inference, panoptic_inference=inference, instance_inference=inference,
    eval_end_to_end=eval_end_to_end)
