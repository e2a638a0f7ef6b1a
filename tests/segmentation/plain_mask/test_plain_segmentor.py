"""PMT as a model of mmdet and mmseg: towers of every kind, any size, training and prediction."""
from __future__ import annotations

import pytest
import tiny_segmentors as tiny
import torch

from frozenmm.foundation.frozen_module import frozen_modules
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.registry import MODELS

SAM = dict(img_size=64, patch_size=16, embed_dim=24, depth=2, num_heads=3, global_attn_indexes=(1,), window_size=2,
           out_chans=16)
TOWERS = {
    'DINOv3': (dict(type='DINOv3Tower', weights='random', model=dict(embed_dim=24, depth=3, num_heads=3)), [0, 2]),
    'DINOv2': (dict(type='DINOv2Tower', weights='random', model=dict(img_size=56, embed_dim=24, depth=2, num_heads=3,
                                                                    num_register_tokens=2)), [0, 1]),
    'CLIP': (dict(type='CLIPTower', weights='random', patch_output='projected', model=dict(
        input_resolution=64, patch_size=16, width=24, layers=2, heads=3, output_dim=16)), [0, 1]),
    'SAM': (dict(type='SAMTower', weights='random', model=SAM), [0, 1]),
    'timm': (dict(type='TimmTower', model='test_vit', weights='random'), [1, 3]),
    'maps': (dict(type='TimmTower', model='test_resnet', weights='random'), ['res3', 'res4', 'res5'])}


def model(kind='DINOv3', seed=0, **changes):
    tower, taps = TOWERS[kind]
    torch.manual_seed(seed)
    options = dict(type='frozenmm.PlainMaskSegmentor', tower=dict(tower, type=f'frozenmm.{tower["type"]}'), taps=taps,
                   classifier=dict(vocabulary=tiny.TRAINING), criterion=dict(num_points=64),
                   mask_generator=dict(channels=24, num_heads=3, num_queries=6, num_blocks=2),
                   data_preprocessor=dict(type='mmdet.DetDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3,
                                          bgr_to_rgb=True))
    return MODELS.build(dict(options, **changes)).eval()


def batch(height=70, width=90):
    generator = torch.Generator().manual_seed(0)
    samples = [tiny.sample(height, width, annotated=True), tiny.sample(height - 20, width - 30, annotated=True)]
    return torch.randn(2, 3, height, width, generator=generator), samples


@pytest.mark.parametrize('kind', TOWERS)
def test_any_tower_and_size_trains_and_predicts(kind):
    segmentor = model(kind)
    inputs, samples = batch()
    losses = segmentor.train().loss(inputs, samples)
    assert {'loss_ce', 'd0.loss_mask', 'd1.loss_dice'} <= set(losses) and len(losses) == 9
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for name, parameter in segmentor.named_parameters()
               if not name.startswith('mask_generator.prediction') or 'bias' not in name)
    assert all(parameter.grad is None for module in frozen_modules(segmentor).values()
               for parameter in module.network.parameters())
    with torch.no_grad():
        found = segmentor.eval().predict(inputs, samples)
    assert found[0].pred_panoptic_seg.sem_seg.shape == (1, 70, 90)
    assert found[1].pred_sem_seg.sem_seg.shape == (1, 50, 60)
    assert found[1].pred_instances.masks.shape[1:] == (50, 60)


def test_padding_does_not_change_what_an_image_gives():
    """Of the decoder: the tower sees the padding as it sees pixels of the mean colour."""
    segmentor = model('maps')
    inputs, samples = batch(64, 96)
    features = segmentor.extract_feat(inputs, samples)
    features.maps['res5'][1, :, 2:], features.maps['res4'][1, :, 3:] = 9.0, 9.0
    taps, grid = segmentor.reader(features, (64, 96))
    one = segmentor.mask_generator(taps, grid, padding=segmentor.padding(inputs, samples))[-1]
    for tap in taps:
        tap[1].view(*grid, -1)[3:] = 1e3
    other = segmentor.mask_generator(taps, grid, padding=segmentor.padding(inputs, samples))[-1]
    torch.testing.assert_close(one.embeddings, other.embeddings)
    segmentor.mask_generator.compat = True
    assert segmentor.padding(inputs, samples) is None


def test_images_without_padding_run_without_masks():
    segmentor = model()
    inputs = torch.randn(2, 3, 64, 96)
    assert segmentor.padding(inputs, [tiny.sample(64, 96)] * 2) is None
    assert segmentor.padding(inputs, None) is None
    assert segmentor.padding(torch.randn(1, 3, 60, 96), None) is not None


def test_a_text_classifier_in_the_place_of_the_closed_set_reads_words():
    from frozenmm.segmentation.fc_clip.classifier import MaskClassifier
    options = tiny.classifier_options(channels=24, ensemble=dict(frozen=False))
    segmentor = model('CLIP', classifier=MaskClassifier(**options))
    inputs, samples = batch()
    assert torch.isfinite(sum(segmentor.train().loss(inputs, samples).values()))
    segmentor.eval().set_vocabulary(['road', 'zebra'])
    assert segmentor.predict(inputs, samples)[0].pred_sem_seg.sem_seg.max() < 2
    with pytest.raises(ValueError, match='its classifier has no frozen branch'):
        model('CLIP', classifier=MaskClassifier(**dict(options, ensemble=None)))


def test_the_closed_set_keeps_its_classes():
    segmentor = model()
    segmentor.set_vocabulary(tiny.TRAINING)
    assert segmentor.classifier.rows.things == (0, 1)
    with pytest.raises(ValueError, match='knows the 3 classes that it was trained on and no others'):
        segmentor.set_vocabulary(['zebra'])


def test_the_inferencer_shows_the_closed_set():
    import numpy as np

    from frozenmm.apis import OpenVocabularyInferencer
    inferencer = OpenVocabularyInferencer(model('maps'))
    picture = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    found = inferencer(picture)
    found = found[0] if isinstance(found, list) else found
    assert found.classes == ('cat', 'dog', 'sky') and found.pred_panoptic_seg.sem_seg.shape == (1, 50, 70)
    with pytest.raises(ValueError, match='the 3 classes that it was trained on and no others'):
        inferencer.set_vocabulary(['zebra'])


def test_mmseg_trains_and_labels():
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    tower, taps = TOWERS['maps']
    segmentor = MODELS.build(dict(
        type='frozenmm.OpenVocabularySegmentor', data_preprocessor=dict(type='mmseg.SegDataPreProcessor'),
        model=dict(type='frozenmm.PlainMaskSegmentor', tower=dict(tower, type='frozenmm.TimmTower'), taps=taps,
                   classifier=dict(vocabulary=['a', 'b', 'c']), criterion=dict(num_points=64),
                   mask_generator=dict(channels=24, num_heads=3, num_queries=6, num_blocks=2),
                   postprocess=dict(tasks=('semantic',)))))
    sample = SegDataSample(metainfo=dict(img_shape=(60, 90), ori_shape=(30, 45)))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 4, (1, 60, 90)))
    inputs = torch.rand(1, 3, 60, 90) * 255
    assert torch.isfinite(sum(segmentor.train().loss(inputs, [sample]).values()))
    with torch.no_grad():
        found = segmentor.eval().predict(inputs, [sample])[0]
        scores = segmentor.encode_decode(inputs, [sample.metainfo])
    assert found.pred_sem_seg.data.shape == (1, 30, 45) and scores.shape == (1, 3, 60, 90)


def test_finer_maps_are_folded_and_coarser_ones_resized():
    segmentor = model('maps')
    assert segmentor.reader.folds == [2, 1, 1]
    widths = [segmentor.image_tower.channels[name] for name in ('res3', 'res4', 'res5')]
    assert segmentor.reader.in_channels == [4 * widths[0], *widths[1:]]
    inputs = torch.randn(1, 3, 64, 96)
    features = segmentor.extract_feat(inputs)
    taps, grid = segmentor.reader(features, (64, 96))
    assert grid == (4, 6) and [tap.shape[1] for tap in taps] == [24] * 3
    folded = torch.nn.functional.pixel_shuffle(taps[0].transpose(1, 2).unflatten(2, grid), 2)
    assert torch.equal(folded, features.map('res3')) and torch.equal(
        taps[1].transpose(1, 2).unflatten(2, grid), features.map('res4'))


def semantic(**test_cfg):
    tower, taps = TOWERS['DINOv3']
    return MODELS.build(dict(
        type='frozenmm.PlainMaskSemanticSegmentor', data_preprocessor=dict(type='mmseg.SegDataPreProcessor'),
        model=dict(type='frozenmm.PlainMaskSegmentor', tower=dict(tower, type='frozenmm.DINOv3Tower'), taps=taps,
                   classifier=dict(vocabulary=['a', 'b', 'c']),
                   mask_generator=dict(num_heads=3, num_queries=6, num_blocks=2)),
        test_cfg=dict(dict(mode='slide', window='spread', crop_size=(48, 48), stride=(48, 48)), **test_cfg))).eval()


@pytest.mark.parametrize('turned', [False, True])
def test_windows_are_spread_evenly_along_the_longer_side(turned):
    segmentor, inputs = semantic(), torch.rand(1, 3, 48, 112) * 255
    inputs = inputs.transpose(2, 3) if turned else inputs
    with torch.no_grad():
        found = segmentor.slide_inference(inputs, [dict(img_shape=tuple(inputs.shape[-2:]))])
        axis, total, counts = 2 if turned else 3, torch.zeros_like(found), torch.zeros_like(found)
        for start in (0, 32, 64):
            total.narrow(axis, start, 48).add_(segmentor.encode_decode(inputs.narrow(axis, start, 48), [{}]))
            counts.narrow(axis, start, 48).add_(1)
    torch.testing.assert_close(found, total / counts)


def test_spread_windows_say_what_they_need():
    with pytest.raises(ValueError, match="test_cfg.window must be one of .*'spread'"):
        semantic(window='random')
    with pytest.raises(ValueError, match='needs images without padding; use batch_size=1'):
        semantic().slide_inference(torch.rand(1, 3, 48, 112), [dict(img_shape=(48, 100))])


@pytest.mark.parametrize(('changes', 'message'), [
    (dict(taps=[0, 'patch']), 'either blocks of a ViT or names of maps'),
    (dict(taps=[]), 'either blocks of a ViT or names of maps'),
    (dict(taps=['res3']), r"the decoder needs \['res3'\]; name them in the tower's out_maps or taps"),
    (dict(taps=[0], stride=8), 'blocks have its patch size of 16 pixels'),
    (dict(mask_generator=dict(blocks=3)), "PlainMaskDecoder has no option 'blocks'; did you mean")])
def test_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        model(**changes)


def test_a_built_tower_must_keep_the_taps_itself():
    tower: ImageTower = MODELS.build(dict(TOWERS['DINOv3'][0], type='frozenmm.DINOv3Tower', resize_mode='none'))
    with pytest.raises(ValueError, match=r"taps of the blocks \[\], but the decoder needs \['0', '2'\]"):
        model(tower=tower)
