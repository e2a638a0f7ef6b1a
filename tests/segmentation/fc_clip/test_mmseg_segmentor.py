"""The open-vocabulary models behind mmseg's interface."""
from __future__ import annotations

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from tiny_segmentors import CONVNEXT, classifier_options, generator_options, picture

MODEL = dict(type='frozenmm.FCCLIP', tower=CONVNEXT, mask_generator=generator_options(),
             criterion=dict(num_points=64))


def segmentor(**changes):
    torch.manual_seed(0)
    model = dict(MODEL, classifier=classifier_options(), **changes.pop('model', {}))
    config = dict(dict(type='frozenmm.OpenVocabularySegmentor', model=model, data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True, size_divisor=32,
        test_cfg=dict(size_divisor=32))), **changes)
    return MMSEG_MODELS.build(config).eval()


def batch(height, width, output=None, **metainfo):
    sample = SegDataSample(metainfo=dict(img_shape=(height, width), ori_shape=output or (height, width), **metainfo))
    return dict(inputs=[picture(height, width)], data_samples=[sample])


def predict(model, data):
    with torch.no_grad():
        return model.test_step(data)[0]


def test_labels_come_at_original_size():
    labels = predict(segmentor(), batch(64, 90, (40, 50))).pred_sem_seg.data
    assert labels.shape == (1, 40, 50) and labels.dtype == torch.int64


def test_kept_logits_give_the_labels_of_the_official_order():
    model = dict(postprocess=dict(tasks=('semantic',)))
    plain = predict(segmentor(model=model), batch(64, 90, (40, 50)))
    kept = predict(segmentor(model=model, test_cfg=dict(logits=True)), batch(64, 90, (40, 50)))
    assert kept.seg_logits.data.shape == (3, 40, 50)
    assert (plain.pred_sem_seg.data != kept.pred_sem_seg.data).float().mean() < 0.01


def test_a_window_of_the_whole_picture_is_the_whole_picture():
    slide = dict(mode='slide', crop_size=(64, 96), stride=(32, 32))
    whole = predict(segmentor(test_cfg=dict(logits=True)), batch(64, 96))
    window = predict(segmentor(test_cfg=slide), batch(64, 96))
    torch.testing.assert_close(whole.seg_logits.data, window.seg_logits.data, atol=1e-4, rtol=1e-3)


def test_windows_cover_a_larger_picture():
    sliding = predict(segmentor(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(32, 48))), batch(96, 160))
    assert sliding.pred_sem_seg.data.shape == (1, 96, 160) and sliding.seg_logits.data.isfinite().all()


def test_a_flipped_picture_gives_unflipped_labels():
    model = segmentor(test_cfg=dict(logits=True))
    flipped = batch(64, 96, flip=True, flip_direction='horizontal')
    plain = predict(model, batch(64, 96)).pred_sem_seg.data
    assert torch.equal(predict(model, flipped).pred_sem_seg.data, plain.flip(-1))
    assert torch.equal(predict(segmentor(), flipped).pred_sem_seg.data.flip(-1),
                       predict(segmentor(), batch(64, 96)).pred_sem_seg.data)


def test_an_unknown_flip_is_an_error():
    with pytest.raises(ValueError, match="flip_direction must be one of .* got 'inside out'"):
        predict(segmentor(), batch(64, 64, flip=True, flip_direction='inside out'))


def test_one_class_is_a_class():
    model = segmentor(test_cfg=dict(logits=True))
    model.set_vocabulary(['thing'])
    assert not predict(model, batch(64, 64)).pred_sem_seg.data.any()


def test_the_inner_model_normalises_by_the_outer_preprocessor():
    model = segmentor()
    assert model.model.data_preprocessor is model.data_preprocessor
    assert not any('data_preprocessor' in key for key in model.state_dict())


def test_semantic_maps_alone_train_it():
    model = segmentor().train()
    data = batch(64, 64)
    data['data_samples'][0].gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, 64, 64)))
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    sum(losses.values()).backward()
    assert losses['loss_mask'] > 0 and model.model.classifier.logit_scale.grad is not None


@pytest.mark.parametrize('test_cfg, message', [
    (dict(mode='tiles'), r"test_cfg\.mode must be one of \['whole', 'slide'\], got 'tiles'"),
    (dict(mode='slide', stride=(1, 1)), "mode='slide' needs crop_size and stride")])
def test_impossible_test_settings_are_refused(test_cfg, message):
    with pytest.raises(ValueError, match=message):
        segmentor(test_cfg=test_cfg)


def test_a_model_without_semantic_task_is_an_error():
    with pytest.raises(ValueError, match="has no semantic task; add 'semantic' to its tasks"):
        predict(segmentor(model=dict(postprocess=dict(tasks=('panoptic',)))), batch(64, 64))
