"""Every method from an image to labels, through mmseg's interface."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_dense_clip import CLIP, DINO, DINOV2, PARTS, SAM_TOWER, SLIDE, run

from frozenmm.errors import UserError


@pytest.mark.parametrize('mode', ['whole', 'slide'])
@pytest.mark.parametrize('method', sorted(PARTS))
def test_every_method_labels_a_picture_at_its_original_size(segmentor, picture, method, mode):
    model = segmentor(method, test_cfg=dict(SLIDE, logits=True) if mode == 'slide' else dict(logits=True))
    found = run(model, *picture)
    assert found.pred_sem_seg.data.shape == (1, 50, 70)
    assert found.seg_logits.data.shape == (3, 50, 70)
    assert found.seg_logits.data.isfinite().all()
    assert (found.pred_sem_seg.data[0] == found.seg_logits.data.argmax(0)).float().mean() == 1
    assert found.seg_logits.data.flatten(1).std(1).max() > 1e-4


@pytest.mark.parametrize('proxy', [DINO, DINOV2, SAM_TOWER], ids=lambda proxy: proxy['type'])
def test_any_tower_can_be_the_proxy(segmentor, picture, proxy):
    found = run(segmentor('proxyclip', proxy=proxy, test_cfg=dict(SLIDE, logits=True)), *picture)
    assert found.seg_logits.data.isfinite().all()


def test_windows_in_one_batch_are_windows_one_by_one(segmentor, picture):
    for method in ('sclip', 'naclip', 'proxyclip', 'trident', 'radseg'):
        together, alone = (run(segmentor(method, test_cfg=dict(SLIDE, logits=True, windows_at_once=count)), *picture)
                           for count in (8, 1))
        torch.testing.assert_close(together.seg_logits.data, alone.seg_logits.data, atol=1e-5, rtol=1e-4)


def test_an_image_does_not_change_with_its_neighbours(segmentor, picture):
    pixels, sample = picture
    for method in ('sclip', 'naclip', 'proxyclip', 'radseg'):
        model = segmentor(method, test_cfg=dict(SLIDE, logits=True))
        alone = run(model, pixels, sample)
        pair = model.test_step(dict(inputs=[pixels.flip(2) * 0.3, pixels],
                                    data_samples=[sample.clone(), sample.clone()]))[1]
        torch.testing.assert_close(pair.seg_logits.data, alone.seg_logits.data)


def test_classes_follow_the_order_of_the_vocabulary(segmentor, picture):
    words = ['sky', 'cat, kitten', 'dog']
    model = segmentor('naclip', test_cfg=dict(logits=True))
    forward = run(model, *picture).seg_logits.data
    model.set_vocabulary(words[::-1])
    torch.testing.assert_close(run(model, *picture).seg_logits.data, forward.flip(0), atol=1e-6, rtol=1e-5)


def test_background_words_are_a_class_before_the_others(segmentor, picture):
    model = segmentor('sclip', text=dict(background=['wall', 'floor']), test_cfg=dict(logits=True),
                      rule=dict(threshold=1.0))
    assert model.vocabulary.names == ['background', 'sky', 'cat', 'dog']
    assert model.vocabulary[0].synonyms == ('wall', 'floor') or model.vocabulary[0].words[-1] == 'floor'
    found = run(model, *picture)
    assert found.seg_logits.data.shape[0] == 4 and not found.pred_sem_seg.data.any()


def test_a_class_file_keeps_names_and_blanks(segmentor, tmp_path):
    (tmp_path / 'cls.txt').write_text('background; wall\nbed, beds\nwood \n')
    model = segmentor('sclip', vocabulary=dict(class_file=str(tmp_path / 'cls.txt'), separator='; '))
    assert model.vocabulary.words == ('background', 'wall', 'bed, beds', 'wood ')
    with pytest.raises(UserError, match='there is no .*none.txt'):
        model.set_vocabulary(dict(class_file=str(tmp_path / 'none.txt')))


def test_refinement_by_pamr_and_by_sam_changes_labels_and_nothing_else(segmentor, picture):
    plain = run(segmentor('sclip', test_cfg=dict(logits=True)), *picture)
    refined = run(segmentor('sclip', refine=dict(pamr=dict(steps=2, dilations=(1, 2))), test_cfg=dict(logits=True)),
                  *picture)
    assert (plain.seg_logits.data - refined.seg_logits.data).abs().max() > 1e-3
    options = dict(coarse=0.0, area=1, iou=0.0)
    sam = run(segmentor('trident', refine=dict(sam=options), test_cfg=dict(SLIDE, logits=True)), *picture)
    assert sam.pred_sem_seg.data.shape == (1, 50, 70) and sam.seg_logits.data.isfinite().all()


def test_sam_sees_the_file_where_there_is_one(segmentor, picture, tmp_path):
    import cv2
    pixels, sample = picture
    model = segmentor('trident', test_cfg=dict(SLIDE, logits=True))
    from_batch = run(model, pixels, sample)
    cv2.imwrite(str(tmp_path / 'p.png'), np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8))
    sample.set_metainfo(dict(img_path=str(tmp_path / 'p.png')))
    from_file = run(model, pixels, sample)
    assert (from_batch.seg_logits.data - from_file.seg_logits.data).abs().max() > 1e-4


def test_half_precision_stays_near(segmentor, picture):
    full, half = (run(segmentor('naclip', tower=dict(CLIP, precision=precision), test_cfg=dict(logits=True)), *picture)
                  for precision in ('fp32', 'bf16'))
    assert (full.seg_logits.data - half.seg_logits.data).abs().max() < 0.05


def test_nothing_learns_and_nothing_is_stored_but_records(segmentor):
    model = segmentor('trident')
    assert not list(model.parameters())
    assert all(key.endswith('frozen_record') for key in model.state_dict())
    with pytest.raises(UserError, match='nothing to train'):
        model.loss(torch.zeros(1, 3, 32, 32), [])


@pytest.mark.parametrize('options, words', [
    (dict(method=dict(name='naclip', splce='logits')), 'splice'),
    (dict(method=dict(name='naclip', splice='tokens')), 'method.splice must be one of'),
    (dict(method=dict(name='naclip', attention=dict(type='neighbour', std=-1))), 'std must be a number above 0'),
    (dict(method='proxyclip', proxy=None), 'needs a proxy tower'),
    (dict(method='trident', sam=None), 'needs sam='),
    (dict(method='naclip', rule=dict(threshold=3)), 'rule.threshold must lie in 0..1'),
    (dict(method='naclip', rule=dict(treshold=0.1)), 'threshold'),
    (dict(method='naclip', refine=dict(crf={})), "refine may have 'pamr' and 'sam'"),
    (dict(method='naclip', refine=dict(pamr=dict(steps=0))), 'pamr needs steps'),
    (dict(method='naclip', refine=dict(sam={})), 'refinement by SAM gives mask prompts'),
    (dict(method='naclip', test_cfg=dict(mode='slides')), 'test_cfg.mode must be'),
    (dict(method='naclip', test_cfg=dict(mode='slide', crop_size=32, stride=16)), 'needs crop_size='),
    (dict(method='naclip', test_cfg=dict(crop=3)), "test_cfg has no 'crop'"),
    (dict(method='naclip', tower=DINO), 'has no last block to replace'),
    (dict(method='naclip', text_tower=DINO), 'needs a text tower'),
    (dict(method='naclip', sam=DINO), 'SAMPrompter'),
])
def test_what_a_config_gets_wrong_is_said_in_a_sentence(segmentor, options, words):
    with pytest.raises(UserError, match=words):
        segmentor(options.pop('method'), **options)


def test_a_misspelt_method_names_the_nearest(segmentor):
    with pytest.raises(ValueError, match='naclip'):
        segmentor('nacip')


def test_without_vocabulary_it_says_so(segmentor, picture):
    with pytest.raises(UserError, match='there is no vocabulary'):
        run(segmentor('naclip', vocabulary=None), *picture)
