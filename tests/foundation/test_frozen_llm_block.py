"""A frozen language block against its formula, against transformers' blocks, and as a plugin."""
from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from frozenmm.foundation.frozen_llm_block import FrozenLLMBlock, FrozenLLMNeck
from frozenmm.foundation.language_blocks import LAYOUTS, rotated

SIZES = dict(layout='llama', width=16, heads=4, hidden=24)
NAMES = dict(LAYOUTS['llama'].names)


def rms(x):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def restated(module, x):
    """W2 norm(h + FFN(RMS h)), h = W1 x + Attn(RMS W1 x), one head and one token after the other."""
    block, x = module.layer.network.blocks[0], x @ module.enter.weight.T
    normed = rms(x) * block.norm1.weight
    q, k, v = (normed @ part.weight.T for part in (block.query, block.key, block.value))
    heads = []
    for head in range(4):
        part = slice(4 * head, 4 * head + 4)
        weight = (q[..., part] @ k[..., part].transpose(1, 2) / 4**0.5).exp()
        heads.append(weight / weight.sum(-1, keepdim=True) @ v[..., part])
    h = x + torch.cat(heads, -1) @ block.out.weight.T
    normed = rms(h) * block.norm2.weight
    gate = normed @ block.gate.weight.T
    h = h + (gate / (1 + (-gate).exp()) * (normed @ block.up.weight.T)) @ block.down.weight.T
    return rms(h) @ module.leave.weight.T


def strong(module):
    """Weights of a size at which attention and norms matter; on a copy, as frozen networks are shared."""
    for parameter in module.layer.network.parameters():
        with torch.no_grad():
            parameter.mul_(20 if parameter.dim() > 1 else 1)
    return module


def test_values_and_gradients_are_those_of_the_formula(generator):
    module = strong(FrozenLLMBlock(6, 'random:1', sizes=SIZES))
    x = torch.randn(2, 5, 6, generator=generator, requires_grad=True)
    found, expected = module(x), restated(module, x)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(found.shape, generator=generator)
    wanted = [x, module.enter.weight, module.leave.weight]
    for one, other in zip(*(torch.autograd.grad((value * weight).sum(), wanted) for value in (found, expected))):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert [name for name, _ in module.named_parameters()] == ['enter.weight', 'leave.weight']


def test_the_size_of_the_official_block():
    with torch.device('meta'):
        from frozenmm.foundation.frozen_llm_block import LanguageLayer
        layer = LanguageLayer(LAYOUTS['llama'], 4096, 32, 11008)
    assert sum(value.numel() for value in layer.parameters()) == 202_387_456


@pytest.fixture(scope='module')
def models():
    """Language models of transformers with random weights, and the state of each family's file."""
    transformers = pytest.importorskip('transformers')
    torch.manual_seed(0)
    common = dict(hidden_size=16, num_attention_heads=4, num_hidden_layers=2, vocab_size=20)
    found = {}
    found['hf_llama'] = transformers.LlamaForCausalLM(transformers.LlamaConfig(**common, intermediate_size=24))
    found['opt'] = transformers.OPTForCausalLM(transformers.OPTConfig(**common, ffn_dim=24, word_embed_proj_dim=16))
    found['bert'] = transformers.BertModel(transformers.BertConfig(**common, intermediate_size=24))
    for model in found.values():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return {kind: model.eval() for kind, model in found.items()}


def theirs(kind, model, x):
    """The last block of transformers' model, without mask; LLaMA's positions all 0, which turns nothing."""
    if kind == 'hf_llama':
        width = model.config.head_dim
        still = torch.ones(1, x.shape[1], width), torch.zeros(1, x.shape[1], width)
        return model.model.layers[-1](x, position_embeddings=still, attention_mask=torch.zeros(1, 1, 1, 1))
    if kind == 'opt':
        return model.model.decoder.layers[-1](x, attention_mask=torch.zeros(1, 1, 1, 1))
    return model.encoder.layer[-1](x)


@pytest.mark.parametrize('kind', ['hf_llama', 'opt', 'bert'])
def test_blocks_of_transformers_files_equal_transformers(models, tmp_path, generator, kind):
    save_file({key: value.contiguous() for key, value in models[kind].state_dict().items() if 'lm_head' not in key},
              tmp_path / 'model.safetensors')
    module = FrozenLLMBlock(16, tmp_path, heads=4)
    x = torch.randn(2, 7, 16, generator=generator)
    with torch.no_grad():
        expected = theirs(kind, models[kind], x)
        expected = expected[0] if isinstance(expected, tuple) else expected
        torch.testing.assert_close(module.layer.network.blocks[0](x), expected, rtol=1e-4, atol=1e-4)


def test_llamas_own_file_equals_its_conversion_also_with_rotary_positions(models, tmp_path, generator):
    """The conversion permutes rows of query and key, so that halves are turned in place of neighbours."""
    state = {key.removeprefix('model.'): value for key, value in models['hf_llama'].state_dict().items()}
    own = {}
    for ours, name in NAMES.items():
        value = state[f'layers.1.{LAYOUTS["hf_llama"].names[ours]}.weight']
        if ours in ('query', 'key'):
            value = value.view(4, 2, 2, 16).transpose(1, 2).reshape(16, 16)
        own[f'layers.1.{name}.weight'] = value
    torch.save(own, tmp_path / 'consolidated.00.pth')
    save_file({key: value.contiguous() for key, value in state.items() if 'lm_head' not in key},
              tmp_path / 'hf.safetensors')
    x = torch.randn(1, 6, 16, generator=generator)
    for options in dict(), dict(rope=True, causal=True):
        first, second = (FrozenLLMBlock(16, tmp_path / file, heads=4, options=options).layer.run(
            lambda network, x: network(x, None), x) for file in ('consolidated.00.pth', 'hf.safetensors'))
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        places = models['hf_llama'].model.rotary_emb(x, torch.arange(6)[None])
        mask = torch.full((6, 6), float('-inf')).triu(1)[None, None]
        expected = models['hf_llama'].model.layers[-1](x, position_embeddings=places, attention_mask=mask)
        torch.testing.assert_close(second, rms(expected), rtol=1e-4, atol=1e-4)


def test_rotary_positions_keep_lengths_and_know_only_differences(generator):
    x = torch.randn(1, 1, 1, 8, generator=generator).expand(1, 1, 9, 8)
    for halves in (True, False):
        turned = rotated(x, halves=halves)[0, 0]
        torch.testing.assert_close(turned.norm(dim=-1), x[0, 0].norm(dim=-1))
        torch.testing.assert_close(turned[2] @ turned[5], turned[4] @ turned[7])


def test_windows_are_maps_of_their_own_and_padding_is_not_seen(generator):
    module = strong(FrozenLLMBlock(6, 'random:2', sizes=SIZES, window=4))
    whole = FrozenLLMBlock(6, 'random:2', sizes=SIZES)
    whole.layer, whole.enter, whole.leave = module.layer, module.enter, module.leave
    x = torch.randn(2, 6, 8, 10, generator=generator)
    found = module(x)
    torch.testing.assert_close(found[..., :4, 4:8], whole(x[..., :4, 4:8]))
    torch.testing.assert_close(found[..., 4:, 8:], whole(x[..., 4:, 8:]))  # a window of which half is padding


def test_minilms_last_block_is_the_default_and_is_proved(minilm):
    module = FrozenLLMBlock(32)
    layer = minilm.network.encoder.layer[-1]
    assert torch.equal(module.layer.network.blocks[0].query.weight, layer.attention.self.query.weight)
    assert FrozenLLMBlock(8, checksum=module.checksum).checksum == module.checksum
    with pytest.raises(ValueError, match=f'has the checksum {module.checksum}, but 00 was asked for'):
        FrozenLLMBlock(8, checksum='00')
    other = FrozenLLMBlock(32, 'random', sizes=dict(layout='bert', width=384, heads=12, hidden=1536))
    with pytest.raises(ValueError, match='was made with the frozen network'):
        other.load_state_dict(module.state_dict())


def test_it_is_a_neck_and_a_plugin_of_a_backbone(generator):
    block = dict(weights='random', sizes=SIZES)
    neck = FrozenLLMNeck([4, 8], block=block)
    maps = [torch.randn(1, 4, 4, 4, generator=generator), torch.randn(1, 8, 2, 2, generator=generator)]
    found = neck(maps)
    assert found[0] is maps[0] and found[1].shape == maps[1].shape and not torch.equal(found[1], maps[1])
    pytest.importorskip('mmseg')
    from mmseg.models.backbones import ResNet
    plugin = dict(cfg=dict(type='frozenmm.FrozenLLMBlock', **block, options=dict(residual=True)),
                  stages=(False, False, False, True), position='after_conv3')
    backbone = ResNet(50, base_channels=8, stem_channels=8, plugins=[plugin])
    assert backbone(torch.zeros(1, 3, 64, 64))[-1].shape == (1, 256, 2, 2)
    assert any('frozen_llm_block' in name for name, _ in backbone.named_parameters())


def test_files_and_options_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match='unknown option of FrozenLLMBlock .ropes.; did you mean one of .*rope'):
        FrozenLLMBlock(4, 'random', sizes=SIZES, options=dict(ropes=True))
    with pytest.raises(ValueError, match="a random block needs sizes with .'layout', 'width', 'heads', 'hidden'"):
        FrozenLLMBlock(4, 'random')
    with pytest.raises(FileNotFoundError, match='is no file and no folder with model.safetensors'):
        FrozenLLMBlock(4, tmp_path)
    save_file({'layers.0.self_attn.q_proj.weight': torch.ones(4, 4)}, tmp_path / 'model.safetensors')
    with pytest.raises(ValueError, match=r"block 0 of .* lacks \['self_attn.k_proj.weight'"):
        FrozenLLMBlock(4, tmp_path, heads=2)
    save_file({'other': torch.ones(4, 4)}, tmp_path / 'model.safetensors')
    with pytest.raises(ValueError, match='holds no blocks of'):
        FrozenLLMBlock(4, tmp_path, heads=2)
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(dict(weight={})))
    with pytest.raises(ValueError, match='index.json'):
        FrozenLLMBlock(4, tmp_path, heads=2)
    (tmp_path / 'consolidated.01.pth').touch()
    with pytest.raises(ValueError, match='split by columns'):
        FrozenLLMBlock(4, tmp_path, heads=2)
    with pytest.raises(ValueError, match='level must be the place of one of the 1 maps, got 1'):
        FrozenLLMNeck([4], level=1)
