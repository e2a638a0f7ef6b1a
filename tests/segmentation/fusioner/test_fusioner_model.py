"""Fusioner as an mmseg model: vocabulary, modes, mixed batches, loss, windows, what is frozen."""
from __future__ import annotations

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

IMAGE = dict(type='frozenmm.CLIPTower', weights='random', patch_output='projected',
             model=dict(input_resolution=32, patch_size=8, width=16, layers=1, heads=2, output_dim=12))
TEXT = dict(type='frozenmm.CLIPTextTower', weights='random',
            model=dict(width=16, layers=1, heads=2, output_dim=20))


@pytest.fixture
def build():
    def make(**changes):
        test_cfg = changes.pop('test_cfg', dict(mode='whole'))
        torch.manual_seed(0)
        head = dict(type='frozenmm.FusionerHead', in_channels=12, text_tower=TEXT, channels=16,
                    fusion=dict(num_layers=2, num_heads=2), templates='simple', store_text=False,
                    vocabulary=['cat', 'dog', 'tree'])
        model = MODELS.build(dict(
            type='frozenmm.FusionerSegmentor',
            data_preprocessor=dict(type='mmseg.SegDataPreProcessor', mean=[0.0] * 3, std=[255.0] * 3, bgr_to_rgb=True,
                                   size=(32, 32)),
            backbone=dict(type='frozenmm.FrozenBackbone', tower=IMAGE),
            decode_head=dict(head, **changes), test_cfg=test_cfg))
        model.init_weights()
        return model.eval()
    return make


def image_of(side=32, count=1, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def logits_of(model, images, names=None):
    metas = [dict(img_shape=images.shape[-2:], **({} if names is None else dict(class_names=row)))
             for row in names or [None] * len(images)]
    return model.encode_decode(images, metas)


def sample_of(labels, **meta):
    return SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=dict(img_shape=labels.shape[-2:], **meta))


def test_the_background_is_the_constant_zero_channel(build):
    logits = logits_of(build(), image_of())
    assert logits.shape == (1, 4, 32, 32)
    assert not logits[:, 0].any() and logits[:, 1:].abs().max() > 0.1


def test_per_class_masks_do_not_depend_on_the_other_names(build):
    model, image = build(mode='per_class', class_chunk=2), image_of()
    both = logits_of(model, image, [['cat', 'dog', 'tree']])
    alone = logits_of(model, image, [['tree']])
    torch.testing.assert_close(both[:, 3], alone[:, 1], atol=1e-5, rtol=1e-4)


def test_joint_masks_depend_on_the_other_names(build):
    model, image = build(), image_of()
    both, alone = logits_of(model, image, [['cat', 'dog']]), logits_of(model, image, [['cat']])
    assert (both[:, 1] - alone[:, 1]).abs().max() > 1e-3


def test_the_order_of_the_names_orders_the_masks(build):
    model, image = build(), image_of()
    forward, backward = (logits_of(model, image, [names]) for names in (['cat', 'dog'], ['dog', 'cat']))
    torch.testing.assert_close(forward[:, [0, 2, 1]], backward, atol=1e-5, rtol=1e-4)


def test_images_with_different_numbers_of_names_do_not_disturb_each_other(build):
    model, images = build(), image_of(count=2)
    head, maps = model.decode_head, model.extract_feat(images)
    mixed = head(maps, [['cat'], ['dog', 'tree']], (32, 32))
    first = head([x[:1] for x in maps], [['cat']], (32, 32))
    second = head([x[1:] for x in maps], [['dog', 'tree']], (32, 32))
    torch.testing.assert_close(mixed[:1, :1], first, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mixed[1:], second, atol=1e-5, rtol=1e-4)


def test_a_mixed_batch_has_the_mean_of_the_single_losses(build):
    model, images = build(), image_of(count=2)
    labels = torch.randint(0, 2, (2, 1, 32, 32), generator=torch.Generator().manual_seed(1))
    labels[0, 0, :4] = 255
    samples = [sample_of(labels[0], class_names=['cat']), sample_of(labels[1], class_names=['dog', 'tree'])]
    together = model.loss(images, samples)['decode.loss_mask']
    singles = [model.loss(images[i:i + 1], samples[i:i + 1])['decode.loss_mask'] for i in range(2)]
    torch.testing.assert_close(together, sum(singles) / 2)


def test_training_moves_the_head_and_leaves_the_towers_alone(build):
    model = build()
    towers = model.backbone.tower.network.state_dict(), model.decode_head.texts.tower.network.state_dict()
    before = [{key: value.clone() for key, value in state.items()} for state in towers]
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    samples = [sample_of(torch.ones(1, 32, 32, dtype=torch.long), class_names=['cat'])]
    losses = []
    for _ in range(8):
        loss = model.loss(image_of(), samples)['decode.loss_mask']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    for state, kept in zip(towers, before):
        assert all(torch.equal(state[key], kept[key]) for key in kept)
    trained = [key for key in model.state_dict() if not key.endswith('frozen_record')]
    assert all('.tower.' not in key for key in trained)
    assert any('texts.tower' in key for key in set(model.state_dict()) - set(trained))


def test_the_vocabulary_changes_without_a_new_head(build):
    model = build()
    model.set_vocabulary(['zebra'])
    assert model.out_channels == 2 and logits_of(model, image_of()).shape[1] == 2
    result = model.predict(255 * image_of(), [sample_of(torch.zeros(1, 32, 32, dtype=torch.long), ori_shape=(32, 32))])
    assert set(result[0].pred_sem_seg.data.unique().tolist()) <= {0, 1}


def test_a_name_is_encoded_once(build, monkeypatch):
    texts, asked = build().decode_head.texts, []
    encode = texts.tower.encode
    monkeypatch.setattr(texts.tower, 'encode', lambda prompts: asked.extend(prompts) or encode(prompts))
    texts(['cat', 'dog'])
    texts(['dog', 'cat', 'dog'])
    assert asked == ['a photo of a cat.', 'a photo of a dog.']


@pytest.mark.parametrize('compat', [False, True])
def test_windows_cover_a_larger_image(build, compat):
    model = build(test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(21, 21), compat=compat))
    logits = model.inference(image_of(50), [dict(img_shape=(50, 50), ori_shape=(50, 50), class_names=['cat', 'dog'])])
    assert logits.shape == (1, 3, 50, 50) and logits.isfinite().all()
    whole = logits_of(model, image_of(50)[..., :32, :32], [['cat', 'dog']])
    torch.testing.assert_close(logits[..., :18, :18], whole[..., :18, :18], atol=1e-5, rtol=1e-4)


def test_a_sample_without_names_needs_a_vocabulary(build):
    model = build(vocabulary=None)
    with pytest.raises(ValueError, match='no classes to look for.*set_vocabulary'):
        logits_of(model, image_of())


def test_an_image_that_names_nothing_is_refused(build):
    model = build()
    with pytest.raises(ValueError, match='image 1 of the batch names no class'):
        model.decode_head(model.extract_feat(image_of(count=2)), [['cat'], []])


def test_a_test_batch_must_name_equally_many_classes(build):
    with pytest.raises(ValueError, match=r'equally many classes, got \[1, 2\]'):
        logits_of(build(), image_of(count=2), [['cat'], ['dog', 'tree']])


def test_rows_per_class_fix_the_number_of_classes(build):
    model = build(fusion=dict(num_layers=2, num_heads=2, num_class_rows=3))
    with pytest.raises(ValueError, match='3 classes, but 1 classes'):
        logits_of(model, image_of(), [['cat']])


@pytest.mark.parametrize(('change', 'message'), [
    (dict(masks=dict(mode='both')), 'mode must be one of'),
    (dict(masks=dict(stride=0)), 'the stride of the masks must be at least 1'),
    (dict(masks=dict(temperature=0.0)), 'temperature must be positive'),
    (dict(test_cfg=dict(mode='slide', window='wrap')), "True for 'cut' and False for 'shift'; got 'wrap'"),
    (dict(test_cfg=dict(mode='slide', compat=True, crop_size=(32, 16), stride=(8, 8))), 'square crop_size'),
])
def test_wrong_settings_are_refused(build, change, message):
    with pytest.raises(ValueError, match=message):
        build(**change)


def test_old_names_of_options_work(build):
    with pytest.warns(FutureWarning) as said:
        old = MODELS.build(dict(
            type='frozenmm.FusionerHead', in_channels=12, text=TEXT, channels=16, num_layers=1, num_heads=4,
            mask_stride=2, mode='per_class', templates='simple', store_text=False))
    assert (old.mode, old.mask_stride, len(old.network.fusion.blocks)) == ('per_class', 2, 1)
    words = ' '.join(str(entry.message) for entry in said)
    for new in ("text_tower={", 'fusion=dict(num_layers=1, num_heads=4)', "masks=dict(mode='per_class', stride=2)"):
        assert new in words
    with pytest.warns(FutureWarning, match="test_cfg.window='cut' is now called test_cfg.compat=True"):
        assert build(test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(21, 21), window='cut')).test_cfg.compat


def test_a_text_that_is_no_text_tower_is_refused(build):
    with pytest.raises(TypeError, match='text_tower must be a text tower, got CLIPTower'):
        build(text_tower=IMAGE)


def test_masks_on_a_coarser_grid_come_back_at_full_size(build):
    fine, coarse = build(), build(masks=dict(stride=4))
    coarse.load_state_dict(fine.state_dict())
    image = image_of()
    assert coarse.decode_head(coarse.extract_feat(image), size=(30, 32)).shape[-2:] == (8, 8)
    logits = logits_of(coarse, image)
    assert logits.shape == (1, 4, 32, 32) and not logits[:, 0].any()
    assert (logits - logits_of(fine, image)).abs().mean() < 0.3 * logits_of(fine, image)[:, 1:].abs().mean()
    labels = torch.zeros(1, 32, 32, dtype=torch.long)
    labels[:, 2::4, 2::4] = 1  # the pixels that stand for their cells
    ones = torch.ones(1, 32, 32, dtype=torch.long)
    losses = [coarse.loss(image, [sample_of(value, class_names=['cat'])])['decode.loss_mask']
              for value in (labels, ones)]
    assert torch.equal(*losses)


def test_several_maps_are_joined_at_the_size_of_the_first():
    torch.manual_seed(0)
    head = MODELS.build(dict(type='frozenmm.FusionerHead', in_channels=[4, 6], text_tower=TEXT, channels=16,
                             fusion=dict(num_layers=1, num_heads=2), templates='simple', store_text=False,
                             vocabulary=['cat'])).eval()
    fine, coarse = torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4)
    logits = head([fine, coarse], size=(16, 16))
    assert logits.shape == (1, 1, 16, 16)
    assert not torch.allclose(logits, head([fine, coarse + 1], size=(16, 16)), atol=1e-3)


def test_a_name_longer_than_the_text_context_is_refused(build):
    model = build()
    with pytest.raises(ValueError, match=r'(?s)1 1 1.*77'):
        model.decode_head(model.extract_feat(image_of()), [['1 ' * 90 + 'cat']])
    assert logits_of(model, image_of(), [['cat']]).isfinite().all()


def two_maps(**changes):
    """A head over a map of 4 channels and one in the space of the text tower."""
    torch.manual_seed(0)
    return MODELS.build(dict(type='frozenmm.FusionerHead', in_channels=[4, 20], text_tower=TEXT, channels=16,
                             templates='simple', store_text=False, vocabulary=['cat', 'dog'],
                             **(dict(fusion=dict(num_layers=1, num_heads=2), masks=dict(shared_map=1)) | changes))
                        ).eval()


def test_the_shared_space_starts_without_influence_and_adds_the_cosine():
    head, plain = two_maps(), two_maps()
    maps = [torch.randn(2, 4, 4, 4), torch.randn(2, 20, 2, 2)]
    plain.network.similarity = None
    plain.load_state_dict(head.state_dict(), strict=False)
    torch.testing.assert_close(head(maps, size=(8, 8)), plain(maps, size=(8, 8)))
    with torch.no_grad():
        head.network.similarity.factor += 0.01
    names = head.texts(['cat', 'dog'])
    cosine = torch.einsum('bchw,kc->bkhw', torch.nn.functional.normalize(maps[1], dim=1),
                          torch.nn.functional.normalize(names, dim=1))
    wide = torch.nn.functional.interpolate(cosine, size=(8, 8), mode='bilinear', align_corners=False)
    for mode in 'joint', 'per_class':
        head.mode = plain.mode = mode
        added = head(maps, size=(8, 8)) - plain(maps, size=(8, 8))
        torch.testing.assert_close(added, 200 * 0.01 * (wide - 0.35), atol=1e-5, rtol=1e-4)


def test_the_fusion_is_left_out_for_some_images_in_training_only():
    head = two_maps(masks=dict(shared_map=1, fusion_drop=0.5))
    maps = [torch.randn(1, 4, 4, 4).expand(64, -1, -1, -1), torch.randn(1, 20, 2, 2).expand(64, -1, -1, -1)]
    assert (head(maps, size=(4, 4)).flatten(1).abs().sum(1) > 0).all()
    head.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kept = head(maps, size=(4, 4)).flatten(1).abs().sum(1) > 0  # the factor of the cosine is still 0
    assert 16 < kept.sum() < 48


def test_maps_of_different_scale_weigh_the_same():
    head = two_maps()
    maps = [torch.randn(1, 4, 4, 4), torch.randn(1, 20, 2, 2)]
    scaled = [50 * maps[0], 0.1 * maps[1]]
    torch.testing.assert_close(head(maps, size=(8, 8)), head(scaled, size=(8, 8)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(('change', 'message'), [
    (dict(in_channels=[20, 4]), 'shared_map=1 has 4 channels, but CLIP text custom.* gives vectors of 20'),
    (dict(masks=dict(shared_map=2)), r'shared_map must be in 0..1, the places of in_channels=\[4, 20\], got 2'),
    (dict(masks=dict(shared_map=1, fusion_drop=1.0)), 'fusion_drop must be in 0..1, below 1, got 1.0'),
])
def test_an_unfit_shared_map_is_refused(change, message):
    settings = dict(type='frozenmm.FusionerHead', in_channels=[4, 20], text_tower=TEXT, channels=16,
                    fusion=dict(num_layers=1, num_heads=2), masks=dict(shared_map=1), templates='simple',
                    store_text=False)
    with pytest.raises(ValueError, match=message):
        MODELS.build({**settings, **change})


def test_a_network_with_shared_space_needs_the_shared_map():
    network = two_maps().network
    with pytest.raises(ValueError, match='but no shared_map came'):
        network(torch.randn(1, 24, 4, 4), torch.randn(2, 20), (8, 8))


def test_without_layers_and_convolution_the_head_is_linear_in_its_tokens():
    """No cell sees another one: changing one leaves the others alone."""
    head = two_maps(fusion=dict(num_layers=0, num_heads=2),
                    decoder=dict(type='frozenmm.LightFusionerDecoder', convolution=False))
    maps = [torch.randn(1, 4, 4, 4), torch.randn(1, 20, 4, 4)]
    before = head(maps, size=(4, 4))
    maps[0][:, :, 1, 2] += 1
    moved = (head(maps, size=(4, 4)) - before).abs().amax((0, 1)) > 1e-6
    assert moved.nonzero().tolist() == [[1, 2]]


def test_the_dice_term_is_that_of_the_classes_shown():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 6, generator=generator)
    targets = torch.rand(2, 3, 6, 6, generator=generator) > 0.5
    targets[0, 2] = targets[1] = False  # image 0 shows two classes, image 1 none
    ignored = torch.zeros(2, 6, 6, dtype=torch.bool)
    ignored[:, :2] = True
    plain, with_dice = (MODELS.build(dict(type='frozenmm.FusionerBCELoss', dice_weight=weight))
                        for weight in (0.0, 2.0))
    expected = []
    for k in range(2):
        p, t = logits[0, k, 2:].sigmoid(), targets[0, k, 2:].float()
        expected.append(1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
    difference = with_dice(logits, targets, ignored) - plain(logits, targets, ignored)
    torch.testing.assert_close(difference, 2 * (sum(expected) / 2) / 2)
