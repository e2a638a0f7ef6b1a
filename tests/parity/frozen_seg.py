"""Adapters of the recorded FrozenSeg cases: official weights through our converter into our public modules."""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.convert.frozen_seg import RULES
from frozenmm.convert.rename import rename_keys
from frozenmm.evaluation.recall import mask_recall
from frozenmm.foundation import ImageTower, RawFeatures, TowerInput
from frozenmm.foundation.image_towers.sam_vit import ImageEncoderViT, SAMSizes
from frozenmm.foundation.image_towers.tiny_vit_network import TinyViT
from frozenmm.ops.mask_ensemble import MaskGeometry
from frozenmm.segmentation.frozen_seg.flat_attention import FlatDeformableAttention
from frozenmm.segmentation.frozen_seg.generator import InjectedMaskGenerator
from frozenmm.segmentation.frozen_seg.injectors import FeatureInjector, InjectedDecoder
from frozenmm.segmentation.frozen_seg.proposal_ensemble import SAMVotes, kept_masks, proposal_ensemble
from frozenmm.segmentation.frozen_seg.sam_branch import SAMBranch
from frozenmm.segmentation.frozen_seg.sam_input import normalise_and_pad, stretch
from frozenmm.segmentation.frozen_seg.sam_masks import SAMMasks
from frozenmm.segmentation.frozen_seg.segmentor import FrozenSeg
from frozenmm.segmentation.mask2former.decoder import MaskMaker
from frozenmm.structures import ImageStats
from parity.cases import Case
from parity.fc_clip import (
    PYRAMID,
    RecordedPixelDecoder,
    classifier_of,
    decoder_options,
    decoder_outputs,
    end_to_end_classifier,
    end_to_end_outputs,
    end_to_end_parts,
    load,
    load_decoder,
    pixel_decoder_of,
    split_text,
    tower_of,
)


# ---------------------------------------------------------------------------------------------------- SAM
def sam_image_features(case: Case) -> dict[str, Tensor]:
    params = dict(case.params)
    network = dict(TinyViT=TinyViT, ImageEncoderViT=lambda **sizes: ImageEncoderViT(SAMSizes(**sizes)))[
        params.pop('type')]
    model = network(**{key: tuple(value) if isinstance(value, list) else value for key, value in params.items()})
    state = dict(case.weights)
    state |= {key: value for key, value in model.state_dict().items() if key.endswith('num_batches_tracked')}
    model.load_state_dict(state)
    with torch.no_grad():
        maps = model.eval()(case.inputs['image'])
    inner = [value for name, value in maps.items() if name != 'neck']
    return dict(embedding=maps['neck']) | {f'interm.{index}': value for index, value in enumerate(inner)}


def sam_preprocess(case: Case) -> dict[str, Tensor]:
    params = case.params
    images = [case.inputs[f'image{index}'].float() for index in range(len(case.inputs))]
    sizes = [tuple(image.shape[-2:]) for image in images]
    height, width = (max(sides) for sides in zip(*sizes))
    batch = torch.stack([F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in images])
    target = ImageStats(tuple(params['pixel_mean']), tuple(params['pixel_std']), params['order'].lower())
    padded = normalise_and_pad(batch, sizes, ImageStats(channel_order=params['order'].lower()),
                               divisor=params['size_divisibility'], target=target)
    return dict(padded=padded, sam_input=stretch(padded, tuple(params['resize'])))


# ---------------------------------------------------------------------------------------------------- mask generator
def sam_deform_attn_flat(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    module = FlatDeformableAttention(params['embed_dims'], params['num_heads'], params['num_levels_built'],
                                     params['num_points'], dropout=0.0, batch_first=True)
    module.load_state_dict(case.weights)
    output = module(inputs['query'], value=inputs['value'], identity=torch.zeros_like(inputs['query']),
                    reference_points=inputs['reference_points'], spatial_shapes=inputs['spatial_shapes'])
    return dict(output=output)


def sam_pixel_decoder(case: Case) -> dict[str, Tensor]:
    params = case.params
    branch = SAMBranch(case.inputs['sam_embedding'].shape[1], channels=params['conv_dim'], compat=True,
                       num_layers=params['num_layers'], num_heads=params['num_heads'], num_points=params['num_points'],
                       feedforward_channels=params['dim_feedforward'])
    both = nn.ModuleDict(dict(pixel_decoder=pixel_decoder_of(params), sam_branch=branch)).eval()
    load(both, case.weights, 'sem_seg_head.pixel_decoder.', 'mask_generator.', RULES)
    features, levels = both['pixel_decoder']([case.inputs[name] for name in PYRAMID])
    return dict(mask_features=features, sam_fpn=branch(case.inputs['sam_embedding'])) | {
        f'level{index}': level for index, level in enumerate(levels)}


def feature_injector(case: Case) -> dict[str, Tensor]:
    injector = FeatureInjector(case.params['embed_dims'], case.params['num_heads']).eval()
    load(injector, case.weights, 'sem_seg_head.predictor.transformer_cross_attention_layers_sam.0.',
         'mask_generator.decoder.feature_injectors.0.', RULES)
    inputs = [case.inputs[name].transpose(0, 1) for name in ('clip_tokens', 'clip_pos', 'sam_tokens', 'sam_pos')]
    return dict(tokens=injector(*inputs).transpose(0, 1))


def query_injector(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    decoder = InjectedDecoder(params['hidden_dim'], **decoder_options(params)).eval()
    classifier = classifier_of(params, split_text(case)[0], inputs['num_templates'])
    state, report = rename_keys({f'sem_seg_head.predictor.{key}': value for key, value in case.weights.items()}, RULES)
    report.require_all_matched('the recorded part')
    both = nn.ModuleDict(dict(mask_generator=nn.ModuleDict(dict(decoder=decoder)), classifier=classifier))
    # a prediction head alone: the layers stay as they are
    both.load_state_dict({**both.state_dict(), **state, 'classifier.void_embedding.weight': split_text(case)[1]})
    query = inputs['query'].transpose(0, 1)
    with torch.no_grad():
        normed = decoder.transformer_decoder.post_norm(query)
        maker = MaskMaker(decoder.mask_embed, inputs['mask_features'], keep=True)
        proposals = decoder.propose(normed, maker)
        outside = maker.outside(normed, tuple(params['attn_mask_target_size']))
        spatial = decoder.spatial_query(inputs['sam_embedding'], proposals.mask_logits)
        logits = classifier(proposals.embeddings)
    return dict(pred_logits=logits, pred_masks=proposals.mask_logits, spatial_query=spatial.transpose(0, 1),
                attn_mask=outside.repeat_interleave(params['num_heads'], 0),
                injected=(query + spatial).transpose(0, 1))


def transformer_decoder_with_injectors(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    decoder = InjectedDecoder(params['in_channels'], query_residue=params['sam_query_fuse_layer'],
                              **decoder_options(params)).train(params['training_mode'])
    classifier = classifier_of(params, split_text(case)[0], inputs['num_templates'])
    load_decoder(case, decoder, classifier, RULES)
    arguments = ([inputs[f'level{index}'] for index in range(3)], inputs['mask_features'], inputs['sam_fpn'],
                 inputs['sam_embedding'])
    every, last = decoder(*arguments, all_layers=True), decoder(*arguments, all_layers=False)
    # the outputs of the last layer are those of the test path, which resizes features instead of masks
    return decoder_outputs([*every[:-1], *last], classifier)


# ---------------------------------------------------------------------------------------------------- SAM's masks
def mask_proposal_ensemble(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    seen, logits = inputs['category_overlap'].bool(), inputs['mask_pred']
    sam = inputs['sam_mask_cls'][0].softmax(-1)[:, :-1] if 'sam_mask_cls' in inputs else None
    result = proposal_ensemble(inputs['mask_cls'].softmax(-1)[:, :-1], logits,
                               MaskGeometry.resize_to(tuple(logits.shape[-2:])), seen=seen,
                               votes=None if sam is None else SAMVotes(
                                   inputs['sam_mask_pred'], sam, params['epsilon'], params['score_threshold']),
                               return_scores=True)
    outputs = dict(sem_seg=result.class_scores)
    return outputs if sam is None else outputs | dict(kept=kept_masks(sam, seen, params['score_threshold']))


def recall_metric(case: Case) -> dict[str, Tensor]:
    params, seen = case.params, case.inputs['category_overlap'].bool()
    counted = [mask_recall(case.inputs[f'gt{index}'], case.inputs[f'masks{index}'] > 0, params['num_classes'],
                           ignore_index=params['ignore_label'], thresholds=params['iou_thresholds'])
               for index in range(params['num_images'])]
    outputs = {}
    for name, chosen in ('seen', seen), ('unseen', ~seen):
        labels = sum(present[chosen].sum() for present, _ in counted).view(1)
        hits = sum((found & present[:, None])[chosen].sum(0) for present, found in counted)
        outputs |= {f'{name}_tp': hits, f'{name}_labels': labels, f'{name}_recall': 100 * hits.double() / labels}
    return outputs


# ---------------------------------------------------------------------------------------------------- end to end
class RecordedSAM(ImageTower):
    """A SAM whose embedding is recorded."""

    def __init__(self, embedding: Tensor) -> None:
        super().__init__(nn.Identity(), name='recorded SAM', input=TowerInput(ImageStats(), 16, 16),
                         channels={'neck': embedding.shape[1]}, strides={'neck': 16}, resize_mode='none')
        self.embedding = embedding

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        return RawFeatures({'neck': self.embedding})


class RecordedBranch(nn.Module):
    """A SAM branch whose map is recorded."""

    def __init__(self, sam_map: Tensor) -> None:
        super().__init__()
        self.sam_map = sam_map

    def forward(self, embedding: Tensor) -> Tensor:
        return self.sam_map


def eval_end_to_end(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    options, sample, batch = end_to_end_parts(case)
    if 'recall_masks' in case.expected:
        options['tasks'] += ('proposals',)
    generator = InjectedMaskGenerator(
        [1] * 4, 1, pixel_decoder=RecordedPixelDecoder(inputs), sam_branch=RecordedBranch(inputs['sam_fpn']),
        decoder=InjectedDecoder(params['hidden_dim'], **decoder_options(params)))
    model = FrozenSeg(tower_of(case, params['size_divisibility']), RecordedSAM(inputs['sam_embedding']),
                      end_to_end_classifier(case), mask_generator=generator, postprocess=options,
                      sam_masks=dict(epsilon=params['mask_ensemble_epsilon'])).eval()
    state, report = rename_keys(case.weights, RULES)
    report.require_all_matched('FrozenSeg')
    model.load_state_dict({**model.state_dict(), **state})
    with torch.no_grad():
        logits, masks = model(batch, [sample], mode='tensor')
        plain = model.results(batch, [sample])[0]
        sample.sam_masks = SAMMasks(inputs['sam_masks'], tuple(inputs['sam_masks'].shape[-2:]))
        joined = model.results(batch, [sample])[0]
    outputs = dict(pred_logits=logits, pred_masks=masks, sem_seg_with_sam=joined.semantic.class_scores)
    if plain.proposals is not None:
        outputs |= dict(recall_masks=plain.proposals, recall_masks_with_sam=joined.proposals)
    return outputs | end_to_end_outputs(case, plain)


ADAPTERS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    function.__name__: function for function in (
        sam_image_features, sam_preprocess, sam_deform_attn_flat, sam_pixel_decoder, feature_injector, query_injector,
        transformer_decoder_with_injectors, mask_proposal_ensemble, recall_metric, eval_end_to_end)}
