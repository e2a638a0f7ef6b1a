"""Adapters of the recorded PMT cases: official weights through our converter into our public modules."""
from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from frozenmm.convert.pmt import convert_pmt
from frozenmm.engine.mask_annealing import mask_probabilities
from frozenmm.foundation import FrozenNetwork, ImageTower
from frozenmm.foundation.image_towers.dinov3 import DINOv3Tower
from frozenmm.foundation.image_towers.timm import TimmTower, timm_input
from frozenmm.foundation.image_towers.timm_reader import TimmReader
from frozenmm.foundation.vocabulary import Vocabulary, VocabularyClass
from frozenmm.ops.mask_bands import logit_bands
from frozenmm.ops.mask_ensemble import MaskGeometry
from frozenmm.segmentation.fc_clip.postprocess import MaskPostprocessor
from frozenmm.segmentation.mask2former.criterion import MaskTargets, SetCriterion
from frozenmm.segmentation.mask2former.points import PointSampler
from frozenmm.segmentation.plain_mask.classifier import ClosedSetClassifier
from frozenmm.segmentation.plain_mask.decoder import PlainMaskDecoder, PlainPrediction
from frozenmm.segmentation.plain_mask.segmentor import PlainMaskSegmentor
from parity.cases import Case

NETWORK = 'network.decoder.'


def vocabulary_of(params: dict) -> Vocabulary:
    """As many classes as recorded; which are things does not matter for logits."""
    return Vocabulary(tuple(VocabularyClass(f'class {index}', isthing=True) for index in range(params['num_classes'])))


def decoder_options(params: dict, batch_norm: bool) -> dict:
    """Our options of the recorded decoder, without its taps."""
    lateral = params.get('lateral_projection', 'mlp')
    fusion = dict(lateral=lateral if lateral in ('mlp', 'linear') else 'none',
                  residual=params.get('residual_projection', True), batch_norm=batch_norm)
    return dict(num_queries=params['num_queries'], num_blocks=params['num_blocks'],
                num_heads=params['num_heads'], hidden_channels=params['hidden_dim'], fusion=fusion,
                masked_attention=params['masked_attention'])


def layers(predictions: Sequence[PlainPrediction], classifier: ClosedSetClassifier) -> dict[str, Tensor]:
    """Logits of every prediction under the recorded names."""
    outputs = {}
    for index, prediction in enumerate(predictions):
        outputs[f'mask_logits.{index}'] = prediction.mask_logits.dense()
        outputs[f'class_logits.{index}'] = classifier(prediction.embeddings)
    return outputs


def plain_mask_decoder(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    options = decoder_options(params, batch_norm=False)  # the recorded taps have passed it
    taps = [inputs[f'tap{index}'].requires_grad_() for index in range(len(params['taps']))]
    decoder = PlainMaskDecoder([params['embed_dim']] * len(taps), stride=params['patch_size'], **options)
    classifier = ClosedSetClassifier(params['embed_dim'], vocabulary=vocabulary_of(params))
    state, _ = convert_pmt({f'{NETWORK}{key}': value for key, value in case.weights.items()})
    for name, module in (('mask_generator.', decoder), ('classifier.', classifier)):
        module.load_state_dict({key.removeprefix(name): value for key, value in state.items() if key.startswith(name)})
    outputs = layers(decoder.train(params['masked_attention']).predictions(taps, tuple(params['grid_size'])),
                     classifier)
    last = max(int(key.rpartition('.')[2]) for key in outputs)
    (outputs[f'mask_logits.{last}'] * inputs['grad_masks']).sum().backward(retain_graph=True)
    (outputs[f'class_logits.{last}'] * inputs['grad_classes']).sum().backward()
    gradients = {f'grad.tap{index}': tap.grad for index, tap in enumerate(taps)}
    gradients |= {f'grad.scaler{index}': scale.grad for index, scale in enumerate(decoder.fusion.scales)}
    return outputs | gradients | {'grad.q': decoder.queries.weight.grad}


class RecordedTimmTower(TimmTower):
    """`TimmTower` around recorded sizes, which have no name in timm."""

    def __init__(self, reader: TimmReader, taps: Sequence[int]) -> None:
        ImageTower.__init__(self, FrozenNetwork(reader, name='recorded', precision='fp32'),
                            input=timm_input(reader.trunk, reader.patch), channels=reader.channels,
                            strides=reader.strides, token_channels=reader.token_channels, blocks=reader.blocks,
                            resize_mode='none', taps=taps)
        self.normed = True


def dinov2_tower(params: dict, weights: dict[str, Tensor]) -> ImageTower:
    grid = [side // params['patch_size'] for side in params['image_size']]
    has_class_row = weights['pos_embed'].shape[1] != grid[0] * grid[1]
    name = 'vit_small_patch14_dinov2' if has_class_row else 'vit_small_patch14_reg4_dinov2'
    trunk = timm.create_model(
        name, num_classes=0, img_size=tuple(params['image_size']), patch_size=params['patch_size'],
        embed_dim=params['embed_dim'], depth=params['layers'], num_heads=params['num_heads'],
        mlp_ratio=params['tower_intermediate'] / params['embed_dim'], reg_tokens=params['registers'],
        dynamic_img_size=True)
    trunk.load_state_dict({key: value for key, value in weights.items() if key != 'mask_token'})
    return RecordedTimmTower(TimmReader(trunk.eval()), params['taps'])


def dinov3_tower(params: dict, weights: dict[str, Tensor]) -> ImageTower:
    sizes = dict(patch_size=params['patch_size'], embed_dim=params['embed_dim'], depth=params['layers'],
                 num_heads=params['num_heads'], hidden_dim=params['tower_intermediate'],
                 num_register_tokens=params['registers'])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'model.safetensors'
        save_file({key: value.contiguous() for key, value in weights.items()}, path)
        return DINOv3Tower(sizes, path, resize_mode='none', taps=params['taps'])


def network(case: Case) -> dict[str, Tensor]:
    params = case.params
    towers = {key.removeprefix('tower.'): value for key, value in case.weights.items() if key.startswith('tower.')}
    tower = (dinov3_tower if case.kind == 'network_dinov3' else dinov2_tower)(params, towers)
    model = PlainMaskSegmentor(
        tower, dict(vocabulary=vocabulary_of(params)), taps=params['taps'],
        mask_generator=decoder_options(params, any(key.startswith('network.bn.') for key in case.weights)),
        data_preprocessor=dict(type='mmdet.DetDataPreprocessor', bgr_to_rgb=True)).eval()
    state, _ = convert_pmt({key: value for key, value in case.weights.items() if not key.startswith('tower.')})
    model.load_state_dict({**model.state_dict(), **state})
    decoder = model.mask_generator
    decoder.train(params['masked_attention'])
    decoder.fusion.train(params['bn_training'])
    with torch.no_grad():
        features = model.extract_feat(case.inputs['image'])
        taps, grid = model.reader(features, model.trunk.canvas(case.inputs['image']))
        return layers(decoder.predictions(taps, grid), model.classifier)


class RecordedPoints(PointSampler):
    """The recorded random numbers in the order of their use."""

    def __init__(self, params: dict, inputs: dict[str, Tensor]) -> None:
        super().__init__(params['num_points'], oversample_ratio=params['oversample_ratio'],
                         importance_ratio=params['importance_sample_ratio'])
        self.numbers = [inputs[f'rand.{index}'] for index in range(sum(key.startswith('rand.') for key in inputs))]

    def matching(self, layer: int, count: int, device: torch.device) -> Tensor:
        return torch.cat([self.numbers.pop(0) for _ in range(count)])

    def _uniform(self, count: int, points: int, device: torch.device) -> Tensor:
        return self.numbers.pop(0)


def losses(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    weights = params['weights']
    criterion = SetCriterion(class_weight=weights['cls'], mask_weight=weights['mask'], dice_weight=weights['dice'],
                             void_weight=params['no_object'])
    criterion.sampler = RecordedPoints(params, inputs)
    leaves = {name: inputs[name].requires_grad_() for name in ('mask_logits', 'class_logits')}
    targets = [MaskTargets(inputs[f'labels.{index}'], inputs[f'masks.{index}'])
               for index in range(len(leaves['mask_logits']))]
    found = criterion.unweighted([leaves['class_logits']], [leaves['mask_logits']], targets)[0]
    total = sum(value * criterion.weights[key] for key, value in found.items())
    total.backward()
    return dict(loss_mask=found['mask'], loss_dice=found['dice'], loss_cross_entropy=found['ce'], total=total) | {
        f'grad.{name}': leaf.grad for name, leaf in leaves.items()}


def mask_annealing(case: Case) -> dict[str, Tensor]:
    params = case.params
    return dict(probability=torch.stack([
        mask_probabilities(step, params['start'], params['end'], params['power'])
        for step in case.inputs['steps'].tolist()]))


def postprocess(case: Case) -> dict[str, Tensor]:
    params, inputs = case.params, case.inputs
    padded, original = tuple(params['padded']), tuple(params['original'])
    factor = min(side / whole for side, whole in zip(padded, original))
    image = (round(original[0] * factor), round(original[1] * factor))
    log_probs, mask_logits = inputs['class_logits'].log_softmax(-1)[0], inputs['mask_logits_low'][0]
    things = [index for index in range(params['num_classes']) if index not in params['stuff_classes']]
    process = MaskPostprocessor(('panoptic', 'semantic'), score_threshold=params['mask_thresh'],
                                overlap_threshold=params['overlap_thresh'], semantic_order='masks', class_scores=True)
    found = process(log_probs, mask_logits, MaskGeometry(padded, image, original), things, tasks=['panoptic']).panoptic
    classes = torch.tensor([params['num_classes'], *(segment.category for segment in found.segments)])
    semantic = process(log_probs, mask_logits, MaskGeometry.resize_to(padded), things, tasks=['semantic']).semantic
    resized = torch.cat([band for *_, band in logit_bands(mask_logits, list(padded), list(image), list(original))], 1)
    return dict(panoptic=torch.stack([classes[found.ids.long()], found.ids.long() - 1], -1),
                semantic=semantic.class_scores[None], resized=resized)


ADAPTERS: dict[str, Callable[[Case], dict[str, Tensor]]] = dict(
    plain_mask_decoder=plain_mask_decoder, network_dinov2=network, network_dinov3=network, losses=losses,
    mask_annealing=mask_annealing, postprocess=postprocess)
