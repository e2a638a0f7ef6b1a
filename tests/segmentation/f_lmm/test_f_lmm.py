"""F-LMM's steps against plain restatements, on a LLaVA with random weights, and learning from made-up attention."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, PixelData
from torch.nn import functional as F

pytest.importorskip('mmseg')
pytest.importorskip('segment_anything')

from frozenmm.apis import PhraseInferencer
from frozenmm.registry import MODELS
from frozenmm.segmentation.f_lmm.evidence import Placement, phrase_attention, phrase_words
from frozenmm.segmentation.f_lmm.grounder import FrozenLMMGrounder, dice_loss
from frozenmm.segmentation.f_lmm.head import AttentionUNetHead
from frozenmm.segmentation.f_lmm.refiner import SAMMaskRefiner, box_around

SAM = dict(type='frozenmm.SAMPrompter', weights='random', decoder=dict(
    channels=32, depth=2, heads=4, mlp_channels=32, iou_channels=32), model=dict(
        img_size=64, patch_size=16, embed_dim=16, depth=2, num_heads=2, global_attn_indexes=(1, ), window_size=3,
        out_chans=32))
MADE_UP = dict(type='frozenmm.MadeUpEvidence', layers=2, heads=3, width=8, grid=12)


@pytest.mark.parametrize('merge', ['mean', 'max'])
def test_attention_of_phrases_token_by_token(generator, merge):
    layers = [torch.rand(3, 10, 10, generator=generator).softmax(-1) for _ in range(2)]
    owner = torch.tensor([-1, -1, -1, -1, -1, -1, 0, -1, 1, 1])
    found = phrase_attention(layers, owner, torch.arange(1, 5), (2, 2), merge=merge)
    assert found.shape == (2, 6, 2, 2)
    for layer in range(2):
        for head in range(3):
            a, b = layers[layer][head, 8, 1:5], layers[layer][head, 9, 1:5]
            both = (a + b) / 2 if merge == 'mean' else torch.maximum(a, b)
            torch.testing.assert_close(found[1, 3 * layer + head], both.view(2, 2))
            torch.testing.assert_close(found[0, 3 * layer + head], layers[layer][head, 6, 1:5].view(2, 2))


def test_embeddings_are_no_layer(generator):
    states = [torch.randn(4, 5, generator=generator) for _ in range(3)]
    words = phrase_words(states, torch.tensor([-1, 0, 1, 1]))
    assert [tuple(part.shape) for part in words] == [(1, 2, 5), (2, 2, 5)]
    assert torch.equal(words[1][0, 0], states[1][2]) and torch.equal(words[1][1, 1], states[2][3])


def test_the_padding_is_cut_with_the_official_rounding():
    placed = Placement.centred(100, 301)
    assert (placed.top, placed.left, placed.side) == (100, 0, 301)
    maps = torch.arange(64).float().view(1, 64, 1).expand(1, 64, 64)
    cut = placed.cut(maps)
    start, count = int(100 * 64 / 301), int(100 * 64 / 301 + 0.5)
    assert cut.shape == (1, count, 64) and cut[0, 0, 0] == start


def test_maps_are_divided_by_their_sum_before_they_are_enlarged(generator):
    head = AttentionUNetHead(3, channels=8, side=30).eval()
    seen = []
    handle = head.unet.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    attention = torch.rand(2, 3, 9, 12, generator=generator)
    logits = head(attention)
    handle.remove()
    assert logits.shape == (2, 1, 22, 30)  # 9 * 2.5 floored, then cut after padding to 24 and 32
    expected = attention / attention.sum((2, 3))[:, :, None, None]
    expected = F.interpolate(expected, scale_factor=2.5, mode='bilinear')
    torch.testing.assert_close(seen[0][..., :22, :30], expected)
    assert seen[0].shape == (2, 3, 24, 32) and not seen[0][..., 22:, :].any()
    torch.testing.assert_close(head(5 * attention), logits, rtol=1e-3, atol=1e-4)
    norms = [module for module in head.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert norms and {norm.num_groups for norm in norms} == {1}


def test_sam_gets_mask_box_and_words(generator):
    refiner = SAMMaskRefiner(SAM)
    picture = 255 * torch.rand(3, 40, 60, generator=generator)
    features = refiner.embed(picture)
    logits = 4 * torch.randn(2, 12, 18, generator=generator)
    prompts = refiner.mask_prompts(features, logits)
    shown = F.interpolate(logits[:, None], (43, 64), mode='bilinear')
    square = torch.full((2, 1, 64, 64), min(-1.0, shown.min().item()))
    square[..., :43, :] = shown
    torch.testing.assert_close(prompts, F.interpolate(square, (16, 16), mode='bilinear'))
    words = [torch.randn(3, 32, generator=generator), torch.randn(1, 32, generator=generator)]
    asked = []
    handle = refiner.decoder.mask_decoder.transformer.register_forward_pre_hook(
        lambda module, given: asked.append(given[2]))
    found = refiner(features, logits, words, (40, 60))
    handle.remove()
    assert found.shape == (2, 40, 60)
    # IoU token, four mask tokens, two corners, then the words
    assert [part.shape[1] for part in asked] == [5 + 2 + 3, 5 + 2 + 1]
    torch.testing.assert_close(asked[0][0, 7:], words[0])
    found.sum().backward()
    assert all(p.grad is not None for p in refiner.decoder.prompt_encoder.mask_downscaling.parameters())
    names = {name.split('.')[0] for name, parameter in refiner.named_parameters() if parameter.requires_grad}
    assert names == {'decoder'} and 'tower.frozen_record' in refiner.state_dict()


def test_boxes_reach_one_pixel_further_and_the_whole_picture_when_empty():
    mask = torch.zeros(10, 20, dtype=torch.bool)
    assert box_around(mask).tolist() == [0, 0, 20, 10]
    mask[2:5, 7:9] = True
    assert box_around(mask).tolist() == [7, 2, 9, 5]


def sample(masks, phrases):
    found = BaseDataElement(metainfo=dict(phrases=phrases))
    found.set_data(dict(gt_phrase_masks=PixelData(data=masks)))
    return found


def squares(generator, count=2, side=48):
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    for mask in masks:
        top, left = torch.randint(0, side // 2, (2, ), generator=generator).tolist()
        mask[top:top + side // 2, left:left + side // 3] = True
    return masks


def test_loss_is_the_mean_over_phrases_of_four_terms(generator):
    model = FrozenLMMGrounder(MADE_UP, head=dict(channels=4, side=16), refiner=dict(sam=SAM))
    pictures = [255 * torch.rand(3, 48, 48, generator=generator) for _ in range(2)]
    masks = [squares(generator, 1), squares(generator, 3)]
    samples = [sample(part, ['x'] * len(part)) for part in masks]
    state = model.provider.generator.get_state()
    losses = model(pictures, samples, mode='loss')
    model.provider.generator.set_state(state)
    wanted = dict.fromkeys(losses, 0.0)
    for picture, part in zip(pictures, masks):
        first, refined = model.ground(picture, ['x'] * len(part), part)
        small = part[:, np.arange(16) * 3][:, :, np.arange(16) * 3].float()
        for name, logits, truth in ('first', first, small), ('refined', refined, part.float()):
            p = logits.sigmoid()
            bce = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean()
            dice = sum(1 - (2 * (a * b).sum() + 1) / (a.sum() + b.sum() + 1) for a, b in zip(p, truth)) / len(part)
            wanted[f'loss_{name}_mask'] += bce * len(part) / 4
            wanted[f'loss_{name}_dice'] += dice * len(part) / 4
    torch.testing.assert_close(losses, {key: value for key, value in wanted.items()}, rtol=1e-3, atol=1e-4)
    sum(losses.values()).backward()
    assert model.layer_weights.grad.abs().sum() > 0 and model.to_prompt.weight.grad.abs().sum() > 0


def test_it_learns_to_read_made_up_attention(generator):
    torch.manual_seed(0)
    model = FrozenLMMGrounder(dict(MADE_UP, noise=0.3), head=dict(channels=8, side=16))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    picture, held_out = torch.zeros(3, 48, 48), squares(generator, 8)

    def iou():
        with torch.no_grad():
            found = model.eval()([picture], [sample(held_out, ['x'] * 8)], mode='predict')[0].pred_phrase_masks.data
        model.train()
        return ((found & held_out).sum() / (found | held_out).sum().clamp(min=1)).item()

    before = iou()
    for _ in range(30):
        optimizer.zero_grad()
        sum(model([picture], [sample(squares(generator, 8), ['x'] * 8)], mode='loss').values()).backward()
        optimizer.step()
    assert iou() > max(0.6, before + 0.2)


@pytest.fixture(scope='module')
def llava(tmp_path_factory):
    """A LLaVA with random weights in transformers' layout, and a tokenizer of whole words."""
    transformers, tokenizers = pytest.importorskip('transformers'), pytest.importorskip('tokenizers')
    path = tmp_path_factory.mktemp('llava')
    words = 'USER : Please give me a description of the image . ASSISTANT red mug on table'.split()
    vocabulary = {word: index for index, word in enumerate(['[PAD]', '[UNK]', '<image>', *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token='[UNK]'))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token='[PAD]').save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=3,
                                                    num_attention_heads=2, image_size=56, patch_size=14),
        text_config=transformers.LlamaConfig(hidden_size=24, intermediate_size=32, num_hidden_layers=2,
                                             num_attention_heads=4, vocab_size=len(vocabulary)),
        image_token_index=2, image_seq_length=16)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(path)
    return path


def test_a_llava_gives_maps_that_depend_on_picture_and_phrase(llava, generator):
    provider = MODELS.build(dict(type='frozenmm.LlavaEvidence', folder=str(llava)))
    assert (provider.channels, provider.layers, provider.width, provider.grid) == (8, 2, 24, (4, 4))
    ids, owner = provider.tokens(['red mug', 'table'])
    assert (ids == 2).sum() == 16 and owner.tolist()[-5:] == [0, 0, -1, 1, -1]
    picture = 255 * torch.rand(3, 30, 50, generator=generator)
    evidence = provider(picture, ['red mug', 'table'])
    assert evidence.attention.shape == (2, 8, 4, 4) and 0 < evidence.attention.min() <= evidence.attention.max() < 1
    assert [tuple(words.shape) for words in evidence.words] == [(2, 2, 24), (1, 2, 24)]
    seen = provider.pixels(picture)
    grey = (torch.tensor([0.5, 0.5, 0.5]) - 0.48).abs().max()
    assert seen.shape == (1, 3, 56, 56) and seen[0, :, 0].abs().max() < grey  # padded with the mean colour
    with torch.no_grad():
        outputs = provider.network(input_ids=ids[None], pixel_values=seen, output_attentions=True)
    rows = outputs.attentions[1][0, 3, -5:-3, :]
    torch.testing.assert_close(evidence.attention[0, 7], rows[:, ids == 2].mean(0).view(4, 4))
    other = provider(255 - picture, ['red mug', 'table'])
    assert (other.attention - evidence.attention).abs().max() > 1e-6
    assert not any(parameter.requires_grad for parameter in provider.network.parameters())


def test_masks_of_phrases_from_a_picture(llava, generator, tmp_path):
    cfg = dict(default_scope='mmseg', custom_imports=dict(imports=['frozenmm']), model=dict(
        type='frozenmm.FrozenLMMGrounder', provider=dict(type='frozenmm.LlavaEvidence', folder=str(llava)),
        head=dict(channels=4, side=16), refiner=dict(sam=SAM)))
    find = PhraseInferencer(cfg, ['red mug', 'table'], device='cpu')
    with torch.no_grad():
        find.model.head.predict.bias.fill_(1)
    picture = (255 * torch.rand(30, 50, 3, generator=generator)).byte().numpy()
    result, = find(picture, out_dir=tmp_path)
    assert result.classes == ('red mug', 'table') and len(result) <= 2
    assert all(mask.shape == (30, 50) and mask.any() for mask in result.pred_instances.masks)
    assert list(tmp_path.iterdir())
    find.set_vocabulary([])
    with pytest.raises(ValueError, match='there is no phrase to look for'):
        find(picture)


def test_what_is_missing_is_said(tmp_path):
    model = FrozenLMMGrounder(MADE_UP)
    with pytest.raises(ValueError, match='needs data samples whose metainfo names the phrases'):
        model([torch.zeros(3, 8, 8)])
    with pytest.raises(ValueError, match='names no phrases in its metainfo'):
        model([torch.zeros(3, 8, 8)], [BaseDataElement()])
    with pytest.raises(ValueError, match='made-up attention .*, one for each of 1 phrases, got 0'):
        model([torch.zeros(3, 8, 8)], [BaseDataElement(metainfo=dict(phrases=['x']))])
    with pytest.raises(FileNotFoundError, match='is no folder of a LLaVA'):
        MODELS.build(dict(type='frozenmm.LlavaEvidence', folder=str(tmp_path)))
    (tmp_path / 'config.json').write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match='the prompt must have <image> once'):
        MODELS.build(dict(type='frozenmm.LlavaEvidence', folder=str(tmp_path), prompt='no picture'))
    with pytest.raises(ValueError, match="of type 'bert'; LlavaEvidence takes llava"):
        MODELS.build(dict(type='frozenmm.LlavaEvidence', folder=str(tmp_path)))
    with pytest.raises(TypeError, match='sam must be a frozenmm.SAMPrompter, got Linear'):
        SAMMaskRefiner(torch.nn.Linear(1, 1))
    assert dice_loss(torch.full((1, 2, 2), 50.0), torch.ones(1, 2, 2)) == 0
