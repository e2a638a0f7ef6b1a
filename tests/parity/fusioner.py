"""Adapters of the recorded Fusioner cases: official weights through our converter into our public modules."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from frozenmm.convert.fusioner import DECODER, FUSION, convert_fusioner, key_map
from frozenmm.convert.rename import rename_keys
from frozenmm.engine.warmup_cosine import FusionOptimWrapperConstructor, set_schedule, warmup_cosine
from frozenmm.evaluation.episodic_iou import EpisodicCounts, decide
from frozenmm.foundation.image_towers.clip_vit import CLIPVisionTransformer
from frozenmm.foundation.templates import fill, resolve_templates
from frozenmm.foundation.text_embeddings import ensemble
from frozenmm.foundation.text_towers.clip import clip_tokenizer
from frozenmm.segmentation.fusioner.decoder import FusionerDecoder
from frozenmm.segmentation.fusioner.fusion import FusionTransformer
from frozenmm.segmentation.fusioner.losses import FusionerBCELoss
from frozenmm.segmentation.fusioner.network import FusionerNetwork
from frozenmm.segmentation.fusioner.windows import slide_logits
from parity.cases import Case

NOT_COMPARED = {
    'train_steps': [(r'param\.decoder\.conv_[0-3]\.bias',
                     'a bias before an instance norm: its gradient is rounding noise, which Adam turns into steps')],
}


def _fusion(params: dict) -> FusionTransformer:
    return FusionTransformer(params['visual_dim'], params['text_dim'], params['d_model'], num_layers=params['n_layers'],
                             num_heads=params['n_heads'], hidden_channels=params['d_ff'],
                             num_class_rows=params.get('n_cls', 1), dropout=params.get('dropout', 0.0),
                             drop_path=params.get('drop_path_rate', 0.0))


def _load(module: nn.Module, weights: dict[str, Tensor], rules: tuple) -> nn.Module:
    state, report = rename_keys(weights, rules)
    report.require_all_matched('Fusioner')
    module.load_state_dict(state)
    return module.eval()


def _network(case: Case) -> FusionerNetwork:
    params = case.params
    network = FusionerNetwork(_fusion(params['fusion']), FusionerDecoder(params['decoder']['in_channels']),
                              temperature=params['temperature'])
    state, _ = convert_fusioner(case.weights, prefix='')
    network.load_state_dict(state)
    return network.eval()


def _names(case: Case) -> dict[str, str]:
    """Our name of every official weight."""
    _, report = rename_keys(case.weights, key_map())
    return {**report.renamed, **{key: key for key in report.kept}}


def _on_grid(tokens: Tensor, rows: int) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, (rows, -1))


def _logits(network: FusionerNetwork, params: dict, visual: Tensor, text: Tensor) -> Tensor:
    size = tuple(params['decoder']['target_size'])
    return network(_on_grid(visual, params['decoder']['grid_rows']), text, size)


def clip_visual_tokens(case: Case) -> dict[str, Tensor]:
    tower = CLIPVisionTransformer(**case.params)
    tower.load_state_dict(case.weights)
    maps, image = tower(case.inputs['image'], patch_output='projected')
    tokens = maps['patch'].flatten(2).transpose(1, 2)
    return {'tokens': tokens, 'unit_tokens': nn.functional.normalize(tokens, dim=-1), 'cls': image[:, 0]}


def text_prompt_ensemble(case: Case) -> dict[str, Tensor]:
    templates = resolve_templates('fusioner32')
    ids = torch.zeros(len(case.params['class_names']), len(templates), case.params['context_length'], dtype=torch.int64)
    for row, name in zip(ids, case.params['class_names']):
        for target, tokens in zip(row, clip_tokenizer().rows(fill(name, templates))):
            target[:len(tokens)] = torch.tensor(tokens)
    return {'token_ids': ids, 'embedding': nn.functional.normalize(ensemble(case.inputs['raw']), dim=-1)}


def fusion_transformer(case: Case) -> dict[str, Tensor]:
    patches, classes = _load(_fusion(case.params), case.weights, FUSION)(case.inputs['visual'], case.inputs['text'])
    return {'patches': patches, 'classes': classes}


def decoder(case: Case) -> dict[str, Tensor]:
    module = _load(FusionerDecoder(case.params['in_channels']), case.weights, DECODER)
    size = (case.params['target_size'][0], ) * 2  # the official target is always square
    return {'features': module(_on_grid(case.inputs['patches'], case.params['grid_rows']), size)}


def head_end_to_end(case: Case) -> dict[str, Tensor]:
    logits = _logits(_network(case), case.params, case.inputs['visual'], case.inputs['text'])
    classes = torch.arange(1, logits.shape[1] + 1)[:, None, None]
    return {'logits': logits, 'pred': decide(logits.sigmoid())[:, None] == classes}


def loss_and_grad(case: Case) -> dict[str, Tensor]:
    network = _network(case)
    logits = _logits(network, case.params, case.inputs['visual'], case.inputs['text'])
    loss = FusionerBCELoss(compat=True)(logits, case.inputs['gt'], case.inputs['ignore'].bool())
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    names = _names(case)
    return {'logits': logits, 'loss': loss[None], **{f'grad.{old}': gradients[new] for old, new in names.items()}}


def miou_fbiou_metric(case: Case) -> dict[str, Tensor]:
    counts = EpisodicCounts(case.params['num_classes'])
    for logits, target, ignored, ids in zip(*(case.inputs[key] for key in ('logits', 'gt', 'ignore', 'class_id'))):
        label = decide(logits.sigmoid(), case.params['threshold'])
        masks = label == torch.arange(1, len(logits) + 1)[:, None, None]
        counts.add(masks, target.bool(), ignored.bool(), ids.tolist())
    scores = counts.scores()
    return {'intersection': counts.intersection, 'union': counts.union, 'miou': torch.tensor([scores['mIoU']]),
            'fb_iou': torch.tensor([scores['FB-IoU']])}


def slide_inference(case: Case) -> dict[str, Tensor]:
    params, network = case.params, _network(case)
    tower = CLIPVisionTransformer(**params['visual'])
    prefix = 'img_model.'
    tower.load_state_dict({key[len(prefix):]: value for key, value in case.weights.items() if key.startswith(prefix)})
    size = tuple(params['decoder']['target_size'])

    def predict(window: Tensor) -> Tensor:
        maps, _ = tower(window, patch_output='projected')
        return network(maps['patch'], case.inputs['text'], size)

    return {'logits': slide_logits(predict, case.inputs['image'], window=params['crop_size'], stride=params['stride'],
                                   pad_value=params['pad_value'], flip=params['flip'])}


def schedule(case: Case) -> dict[str, Tensor]:
    params = case.params
    steps, total = params['niter_per_ep'], params['epochs'] * params['niter_per_ep']
    values = [warmup_cosine(index, base=params['base_value'], final=params['final_value'], total=total,
                            warmup=params['warmup_epochs'] * steps) for index in range(total)]
    return {'values': torch.tensor(values, dtype=torch.float64)}


def train_steps(case: Case) -> dict[str, Tensor]:
    params, network = case.params, _network(case)
    constructor = FusionOptimWrapperConstructor(
        dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=params['decoder_lr'])), dict(constant=['decoder']))
    optimizer, loss_function, losses = constructor(network), FusionerBCELoss(compat=True), []
    lr, decay = params['lr'], params['wd']
    total = lr['epochs'] * lr['niter_per_ep']
    for step in range(params['steps']):
        set_schedule(optimizer.param_groups,
                     warmup_cosine(step, base=lr['base'], final=lr['final'], total=total,
                                   warmup=lr['warmup_epochs'] * lr['niter_per_ep']),
                     warmup_cosine(step, base=decay['start'], final=decay['end'], total=total))
        visual, text, target, ignored = (case.inputs[key][step] for key in ('visual', 'text', 'gt', 'ignore'))
        loss = loss_function(_logits(network, params, visual, text), target, ignored.bool())
        optimizer.update_params(loss)
        losses.append(loss.detach())
    names = _names(case)
    state = network.state_dict()
    outputs = {'loss': torch.stack(losses)}
    for old, new in names.items():
        outputs[f'param.{old}'] = _without_key_bias(case, old, state[new])
    return outputs


def _without_key_bias(case: Case, name: str, value: Tensor) -> Tensor:
    """The key third of a qkv bias has no gradient but rounding noise: the recorded values stand in for it."""
    if not name.endswith('attn.qkv.bias'):
        return value
    third = len(value) // 3
    recorded = case.expected[f'param.{name}'][third:2 * third]
    return torch.cat([value[:third], recorded, value[2 * third:]])


ADAPTERS = {
    'clip_visual_tokens': clip_visual_tokens,
    'text_prompt_ensemble': text_prompt_ensemble,
    'fusion_transformer': fusion_transformer,
    'decoder': decoder,
    'head_end_to_end': head_end_to_end,
    'loss_and_grad': loss_and_grad,
    'miou_fbiou_metric': miou_fbiou_metric,
    'slide_inference': slide_inference,
    'schedule': schedule,
    'train_steps': train_steps,
}
