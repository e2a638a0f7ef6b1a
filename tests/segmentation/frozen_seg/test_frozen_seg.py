"""FrozenSeg as an mmdet model."""
from __future__ import annotations

import pytest
import torch
from tiny_segmentors import SAM, batch, classifier_options, fc_clip, frozen_seg
from tiny_segmentors import generator_options as fc_clip_options

from frozenmm.foundation import fingerprint
from frozenmm.segmentation.fc_clip.segmentor import FCCLIP
from frozenmm.segmentation.frozen_seg.mask_files import write_masks
from frozenmm.segmentation.frozen_seg.sam_masks import SAMMasks
from frozenmm.segmentation.frozen_seg.vote_options import VoteOptions

TASKS = dict(tasks=('semantic', 'panoptic', 'instance', 'proposals'), class_scores=True)


def predict(model, data):
    with torch.no_grad():
        return model.test_step(data)[0]


@pytest.fixture(scope='module')
def model():
    return frozen_seg(postprocess=TASKS)


def quadrants(height=64, width=96):
    logits = torch.full((2, height, width), -4.0)
    logits[0, :height // 2, :width // 2] = 4.0
    logits[1, height // 2:] = 4.0
    return SAMMasks(logits, (height, width))


def test_one_forward_gives_all_results_at_original_size(model):
    found = predict(model, batch((64, 90), output=(33, 47)))
    assert found.pred_sem_seg.sem_seg.shape == found.pred_panoptic_seg.sem_seg.shape == (1, 33, 47)
    assert found.pred_proposals.masks.shape == (8, 33, 47)


def test_masks_of_a_data_sample_change_the_semantic_result_alone(model):
    plain = predict(model, batch((64, 96)))
    data = batch((64, 96))
    data['data_samples'][0].sam_masks = quadrants()
    joined = predict(model, data)
    assert not torch.equal(plain.seg_logits.data, joined.seg_logits.data)
    torch.testing.assert_close(plain.seg_logits.data[1], joined.seg_logits.data[1])  # the seen class
    assert torch.equal(plain.pred_panoptic_seg.sem_seg, joined.pred_panoptic_seg.sem_seg)
    assert joined.pred_proposals.masks.shape[0] == 10
    assert torch.equal(joined.pred_proposals.masks[8:], quadrants().logits > 0)


def test_masks_come_from_a_folder(tmp_path):
    write_masks(tmp_path / 'picture.safetensors', quadrants())
    model = frozen_seg(postprocess=TASKS, sam_masks=dict(folder=str(tmp_path)))
    from_folder = predict(model, batch((64, 96)))
    data = batch((64, 96))
    data['data_samples'][0].sam_masks = quadrants().largest()
    torch.testing.assert_close(from_folder.seg_logits.data, predict(model, data).seg_logits.data)


def test_an_image_without_prepared_masks_is_an_error(tmp_path):
    model = frozen_seg(sam_masks=dict(folder=str(tmp_path)))
    with pytest.raises(FileNotFoundError, match='no SAM masks were prepared for the image folder/picture.jpg'):
        predict(model, batch((64, 96)))


def test_an_empty_list_of_masks_is_the_plain_result(model):
    data = batch((64, 96))
    data['data_samples'][0].sam_masks = SAMMasks(torch.zeros(0, 4, 4), (64, 96))
    assert torch.equal(predict(model, data).seg_logits.data, predict(model, batch((64, 96))).seg_logits.data)


def test_other_things_than_masks_are_refused(model):
    data = batch((64, 96))
    data['data_samples'][0].sam_masks = [1, 2]
    with pytest.raises(TypeError, match='`sam_masks` of a data sample must be a SAMMasks, got list'):
        predict(model, data)


def test_a_training_step_leaves_both_towers():
    model = frozen_seg().train()
    before = [fingerprint(tower.network) for tower in (model.image_tower, model.sam_tower)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sum(model(**model.data_preprocessor(batch((64, 64), annotated=True), True), mode='loss').values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimizer.step()
    assert [fingerprint(tower.network) for tower in (model.image_tower, model.sam_tower)] == before


def test_a_checkpoint_of_fc_clip_starts_it(model):
    missing, unexpected = model.load_state_dict(fc_clip().state_dict(), strict=False)
    assert not unexpected
    assert {key.rsplit('.', 1)[0].split('.')[1 if key.startswith('sam') else 2] if 'feature' in key else
            key.split('.')[1] for key in missing} <= {'sam_branch', 'feature_injectors', 'frozen_record'}


def test_without_a_sam_tower_it_is_fc_clip_whose_masks_can_vote():
    plain, voting = fc_clip(postprocess=TASKS), frozen_seg(
        sam_tower=None, mask_generator=fc_clip_options(), postprocess=TASKS)
    voting.load_state_dict(plain.state_dict())
    data = batch((64, 96))
    assert torch.equal(predict(plain, data).seg_logits.data, predict(voting, batch((64, 96))).seg_logits.data)
    data = batch((64, 96))
    data['data_samples'][0].sam_masks = quadrants()
    assert predict(voting, data).pred_proposals.masks.shape[0] == 10
    with pytest.raises(ValueError, match='this model has no SAM tower'):
        voting.sam_embedding(torch.zeros(1, 3, 64, 64), batch((64, 64))['data_samples'])


def test_a_sam_of_another_width_is_refused():
    narrow = dict(SAM, model=dict(SAM['model'], out_chans=16))
    with pytest.raises(ValueError, match="SAM's embedding has 16 channels and the mask features 32"):
        predict(frozen_seg(sam_tower=narrow), batch((64, 64)))


def test_the_official_mapping_of_masks_is_an_option(model):
    official = frozen_seg(postprocess=TASKS, sam_masks=dict(pad_before_pool=True))
    official.load_state_dict(model.state_dict())
    logits = quadrants(50, 70).logits
    geometry = model.trunk.geometries(torch.zeros(1, 3, 64, 96), batch((50, 70))['data_samples'])[0]
    data = model.data_preprocessor(batch((50, 70)))
    with torch.no_grad():
        features = model.extract_feat(data['inputs'], data['data_samples'])
        ours, theirs = (net.sam_probabilities(logits, geometry, features) for net in (model, official))
    assert (ours - theirs).abs().max() > 1e-4


def test_the_official_second_postprocessing_of_proposals_is_an_option(model):
    official = frozen_seg(postprocess=TASKS, sam_masks=dict(postprocess_twice=True))
    official.load_state_dict(model.state_dict())
    found = []
    for net in (model, official):
        data = batch((64, 96), output=(128, 192))
        data['data_samples'][0].sam_masks = quadrants(128, 192)
        found.append(predict(net, data).pred_proposals.masks)
    assert torch.equal(found[0][8:], quadrants(128, 192).logits > 0)
    # the cut shows the top left quarter, which the first mask fills
    assert found[1][8].all() and not found[1][9].any()


def test_options_of_the_votes_under_their_old_names():
    with pytest.warns(FutureWarning, match='proposals is now called sam_masks'):
        old = frozen_seg(proposals=dict(epsilon=0.3, scale_always=False))
    assert old.votes == VoteOptions(epsilon=0.3, compat=False)


def test_one_switch_turns_every_official_step_of_the_votes_on_or_off():
    for compat in (True, False):
        model = frozen_seg(sam_masks=dict(compat=compat))
        assert model.official(None) is compat
        assert model.official(not compat) is not compat
    assert frozen_seg(classifier=classifier_options(compat=True)).official(None) is True


def test_frozen_seg_holds_its_trunk_and_keeps_the_names_of_checkpoints():
    model = frozen_seg()
    assert not isinstance(model, FCCLIP) and model.trunk.classifier is model.classifier
    assert {key.split('.')[0] for key in model.state_dict()} == {
        'image_tower', 'mask_generator', 'classifier', 'sam_tower'}
