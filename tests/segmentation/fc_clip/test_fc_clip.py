"""FC-CLIP as an mmdet model."""
from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import ConfigDict
from tiny_segmentors import (
    CONVNEXT,
    RESNET,
    TESTING,
    CountingTower,
    batch,
    classifier_options,
    fc_clip,
    generator_options,
)

from frozenmm.errors import UserError
from frozenmm.foundation import fingerprint
from frozenmm.registry import MODELS
from frozenmm.segmentation.fc_clip.postprocess import MaskPostprocessor
from frozenmm.segmentation.fc_clip.results import instance_offset, panoptic_map


def logits(model, data):
    with torch.no_grad():
        return model(**model.data_preprocessor(data), mode='tensor')


def predict(model, data):
    with torch.no_grad():
        return model.test_step(data)


@pytest.fixture(scope='module')
def model():
    return fc_clip()


@pytest.mark.parametrize('tower', [CONVNEXT, RESNET], ids=['convnext', 'resnet'])
def test_one_forward_gives_all_results_at_original_size(tower):
    model = fc_clip(tower=tower, postprocess=dict(tasks=('semantic', 'panoptic', 'instance', 'proposals')))
    first, second = predict(model, batch((64, 96), (50, 40), output=(33, 47)))
    for sample in (first, second):
        assert sample.pred_sem_seg.sem_seg.shape == (1, 33, 47)
        assert sample.pred_panoptic_seg.sem_seg.shape == (1, 33, 47)
        assert sample.pred_instances.masks.shape[1:] == (33, 47) and sample.pred_instances.bboxes.shape[1] == 4
        assert sample.pred_proposals.masks.shape == (8, 33, 47)
        assert 0 <= sample.pred_sem_seg.sem_seg.min() and sample.pred_sem_seg.sem_seg.max() < len(TESTING)


def test_without_rescale_results_have_network_size(model):
    data = model.data_preprocessor(batch((64, 96), output=(20, 30)))
    with torch.no_grad():
        found = model.predict(data['inputs'], data['data_samples'], rescale=False)[0]
    assert found.pred_sem_seg.sem_seg.shape == (1, 64, 96)


def test_boxes_enclose_their_masks(model):
    instances = predict(model, batch((64, 96)))[0].pred_instances
    filled = instances.masks.flatten(1).any(1)
    assert filled.any()
    for box, mask in zip(instances.bboxes[filled], instances.masks[filled]):
        rows, columns = mask.nonzero().unbind(1)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_two_images_of_one_size_together_are_two_alone(model):
    data = batch((64, 96), (64, 96))
    together = logits(model, data)
    for index in range(2):
        alone = logits(model, {key: value[index:index + 1] for key, value in data.items()})
        for mine, other in zip(alone, together):
            torch.testing.assert_close(mine[0], other[index], atol=1e-3, rtol=1e-3)


def test_changing_the_words_changes_nothing_but_the_classifier(model):
    data = batch((64, 64))
    before, state = logits(model, data), {key: value.clone() for key, value in model.state_dict().items()}
    model.set_vocabulary(['lamp', 'zebra', 'cat', 'tree', 'wall'])
    after = logits(model, data)
    assert torch.equal(before[1], after[1]) and after[0].shape[-1] == 6
    torch.testing.assert_close(before[0][..., [0, 1]], after[0][..., [1, 2]])
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert predict(model, data)[0].pred_sem_seg.sem_seg.max() < 5
    model.set_vocabulary(TESTING)


def test_a_training_step_changes_the_decoder_and_leaves_the_tower():
    model = fc_clip().train()
    frozen = fingerprint(model.image_tower.network)
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = model.data_preprocessor(batch((64, 64), (48, 64), annotated=True), True)
    losses = model(**data, mode='loss')
    assert set(losses) == {f'{prefix}loss_{name}' for prefix in ('', 'd0.', 'd1.', 'd2.', 'd3.')
                           for name in ('ce', 'mask', 'dice')}
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters()))
    assert fingerprint(model.image_tower.network) == frozen


def test_losses_use_the_training_classes_in_eval_mode_too():
    model = fc_clip()
    model.set_vocabulary(['zebra'])
    data = model.data_preprocessor(batch((64, 64), annotated=True), True)
    with torch.no_grad():
        assert model(**data, mode='loss')['loss_ce'] > 0


def test_training_lowers_the_loss():
    model = fc_clip(criterion=dict(num_points=256)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    data = model.data_preprocessor(batch((64, 64), annotated=True), True)
    history = []
    torch.manual_seed(0)
    for _ in range(12):
        loss = sum(model(**data, mode='loss').values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert sum(history[-3:]) / 3 < 0.8 * history[0]


def test_the_checkpoint_holds_the_trained_parts_only(model):
    keys = set(model.state_dict())
    assert {key.split('.')[0] for key in keys} == {'mask_generator', 'classifier', 'image_tower'}
    assert [key for key in keys if key.startswith('image_tower')] == ['image_tower.frozen_record']


def test_a_checkpoint_made_with_another_tower_is_refused(model):
    with pytest.raises(ValueError, match='the checkpoint was made with the frozen network open_clip custom'):
        fc_clip(tower=RESNET, mask_generator=generator_options()).load_state_dict(model.state_dict())


def test_a_plain_mmdet_config_names_it():
    config = ConfigDict(type='frozenmm.FCCLIP', tower=CONVNEXT, classifier=classifier_options(),
                        mask_generator=generator_options())
    assert type(MMDET_MODELS.build(config)).__name__ == 'FCCLIP'


def test_a_tower_that_crops_is_refused():
    with pytest.raises(ValueError, match="must keep the pipeline's resolution: resize_mode='none', got 'squash'"):
        fc_clip(tower=dict(CONVNEXT, resize_mode='squash'))


def test_a_tower_without_the_pyramid_is_refused():
    with pytest.raises(ValueError, match=r"mask generation needs \['res2', 'res3'\] too"):
        fc_clip(tower=dict(CONVNEXT, out_maps=['res4', 'res5', 'clip_vis_dense']))


def test_the_frozen_branch_matters(model):
    data, plain = batch((64, 64)), fc_clip(classifier=classifier_options(ensemble=dict(frozen=False)))
    plain.load_state_dict(model.state_dict())
    preprocessed = model.data_preprocessor(data)
    with torch.no_grad():
        ours, theirs = (net.trunk.classify(*(value[-1] if isinstance(value, list) else value for value in net.generate(
            *preprocessed.values(), all_layers=False))) for net in (model, plain))
    assert (ours.softmax(-1) - theirs.softmax(-1)).abs().max() > 1e-3


def test_padding_left_out_does_not_reach_the_frozen_branch():
    model = fc_clip(mask_padding=True)
    data = model.data_preprocessor(batch((64, 40), (64, 96)))
    with torch.no_grad():
        features = model.extract_feat(**{'batch_inputs': data['inputs'], 'batch_data_samples': data['data_samples']})
        masks = torch.ones(2, 3, 16, 24)
        embeddings, valid = model.trunk.frozen_embeddings(features, masks)
        features.maps['clip_vis_dense'][0, :, :, 2:] += 5.0
        changed, _ = model.trunk.frozen_embeddings(features, masks)
    assert valid.all()
    torch.testing.assert_close(embeddings, changed)


def test_unknown_tasks_and_orders_are_refused():
    with pytest.raises(ValueError, match=r"tasks must be some of \['semantic', 'panoptic', 'instance', 'proposals'\]"):
        MaskPostprocessor(('depth',))
    with pytest.raises(ValueError, match="semantic_order must be one of .* got 'best'"):
        MaskPostprocessor(semantic_order='best')


def test_semantic_alone_follows_the_official_order():
    assert MaskPostprocessor(('semantic',)).semantic_order == 'scores'
    assert MaskPostprocessor(('semantic', 'instance')).semantic_order == 'masks'


def test_panoptic_maps_use_the_encoding_of_mmdet(generator):
    log_probs = torch.full((4, 4), -9.0)
    log_probs[0, 1], log_probs[1, 1], log_probs[2, 2], log_probs[3, 3] = 0, 0, 0, 0
    masks = torch.full((4, 8, 8), -9.0)
    masks[0, :4, :4], masks[1, :4, 4:], masks[2, 4:6], masks[3, 6:] = 9, 9, 9, 9
    from frozenmm.ops import MaskGeometry
    result = MaskPostprocessor(('panoptic',))(log_probs, masks, MaskGeometry.resize_to((8, 8)), (0, 1)).panoptic
    encoded = panoptic_map(result, 3)[0]
    assert encoded[0, 0] == 1 + 1000 and encoded[0, 7] == 1 + 2000 and encoded[5, 0] == 2 and encoded[7, 0] == 3


def test_long_vocabularies_get_a_larger_instance_factor():
    assert [instance_offset(count) for count in (133, 999, 1000, 1203)] == [1000, 1000, 10000, 10000]


def test_a_gray_picture_of_one_colour_gives_finite_results(model):
    data = batch((40, 200))
    data['inputs'][0][:] = 128
    found = predict(model, data)[0]
    assert found.pred_instances.scores.isfinite().all()


def test_a_picture_smaller_than_a_patch_gives_finite_results(model):
    found = predict(model, batch((1, 64)))[0]
    assert found.pred_instances.scores.isfinite().all() and found.pred_instances.masks.shape[1:] == (1, 64)


def test_conse_stands_in_for_the_head_of_clip():
    pytest.importorskip('timm')
    from frozenmm.foundation.conse import ConSE
    from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower
    tower = EfficientNetLiteTower('random', resize_mode='none')
    model = fc_clip(tower=tower, frozen_head=dict(type='ConSE', text_tower=CountingTower()))
    data = model.data_preprocessor(batch((64, 96)))
    with torch.no_grad():
        features = model.extract_feat(data['inputs'], data['data_samples'])
        masks = torch.ones(1, 1, 16, 24)
        embeddings, valid = model.trunk.frozen_embeddings(features, masks)
        whole = ConSE(tower, model.frozen_head.text_tower).combine(tower.posteriors(features))
    assert valid.all()
    torch.testing.assert_close(embeddings[0], whole, atol=1e-4, rtol=1e-3)
    assert predict(model, batch((64, 96)))[0].pred_sem_seg.sem_seg.shape == (1, 64, 96)


def test_small_masks_are_classified_by_area_and_by_a_remembering_tower_too():
    pytest.importorskip('timm')
    tower = dict(type='frozenmm.RememberingTower', tower=dict(type='frozenmm.EfficientNetLiteTower', weights='random'))
    model = fc_clip(tower=tower, frozen_head=dict(type='ConSE', text_tower=CountingTower()), frozen_pool='area',
                    mask_padding=True)
    data = model.data_preprocessor(batch((64, 96)))
    masks = torch.full((1, 2, 16, 24), -1.0)
    masks[0, 0, 4:7, 8:11] = 1  # inside one cell of 8 x 8, whose centre it does not reach
    with torch.no_grad():
        features = model.extract_feat(data['inputs'], data['data_samples'])
        embeddings, valid = model.trunk.frozen_embeddings(features, masks)
        cell = model.frozen_head.dense(features.map('res5'))[0, :, 0, 1]
        model.trunk.frozen_pool = 'hard'
        _, hard = model.trunk.frozen_embeddings(features, masks)
    assert valid.tolist() == [[True, False]] and not hard.any()
    torch.testing.assert_close(embeddings[0, 0], cell, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize('pool', ['area', 'soft'])
def test_a_frozen_pool_that_the_head_does_not_know_is_refused(pool):
    with pytest.raises(ValueError, match=rf"'hard' without a frozen_head; got '{pool}'"):
        fc_clip(frozen_pool=pool)


def test_the_tower_under_its_old_name():
    with pytest.warns(FutureWarning, match='image_tower=.* is now called tower='):
        model = MODELS.build(dict(type='frozenmm.FCCLIP', image_tower=CONVNEXT, classifier=classifier_options(),
                                  mask_generator=generator_options()))
    assert model.image_tower is model.trunk.tower


def test_the_tower_says_which_official_rule_compat_stands_for():
    assert fc_clip().classifier.official_rule == 'all_masks'
    assert fc_clip(tower=RESNET).classifier.official_rule == 'valid_masks'


def test_a_misspelt_option_names_the_nearest_ones():
    with pytest.raises(UserError, match=r"MaskPostprocessor has no option 'top_n'; did you mean one of \['top_k'"):
        fc_clip(postprocess=dict(top_n=3))
