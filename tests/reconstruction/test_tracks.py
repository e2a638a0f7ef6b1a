from __future__ import annotations

import numpy as np
import pytest
import torch

from frozenmm.reconstruction.features import (
    FrameFeatures,
    Matches,
    MatchSettings,
    Tracks,
    build_tracks,
    detect,
    frame_pairs,
    mutual_matches,
)


def _features(counts):
    return [FrameFeatures(np.arange(2.0 * n).reshape(n, 2), torch.zeros(n, 128), np.arange(n)) for n in counts]


def _matches(first, second, pairs, distance=0.1):
    return Matches(first, second, np.array(pairs), np.full(len(pairs), distance))


def test_matches_join_to_tracks_over_all_frames():
    tracks = build_tracks(_features([3, 3, 3]), [_matches(0, 1, [[0, 2]]), _matches(1, 2, [[2, 1], [0, 0]])])
    assert tracks.points == 2
    assert sorted(np.bincount(tracks.point).tolist()) == [2, 3]


def test_a_false_match_never_puts_two_places_of_a_frame_into_a_track():
    good = [_matches(0, 1, [[0, 0], [1, 1]]), _matches(1, 2, [[0, 0], [1, 1]])]
    tracks = build_tracks(_features([2, 2, 2]), [*good, _matches(0, 2, [[0, 1]], distance=0.5)])
    assert np.bincount(tracks.point).tolist() == [3, 3]
    assert len(np.unique(tracks.point * 3 + tracks.frame)) == len(tracks)


def test_no_matches_give_no_tracks():
    assert len(build_tracks(_features([2, 0]), [])) == 0


def test_a_subset_drops_points_that_are_seen_once():
    tracks = Tracks(np.array([0, 1, 2, 0, 1]), np.array([0, 0, 0, 1, 1]), np.zeros((5, 2)))
    left, old, kept = tracks.subset(np.array([True, True, True, True, False]))
    assert left.points == 1 and old.tolist() == [0] and kept.tolist() == [True, True, True, False, False]


def test_only_mutual_and_distinct_matches_are_kept():
    first, second = torch.eye(4, 8), torch.eye(4, 8).roll(1, 0)
    index, distance = mutual_matches(first, torch.cat((second, second[:1])), ratio=0.8)
    assert [3, 0] not in index.tolist()  # its match is there twice, so it is ambiguous
    assert index.tolist() == [[0, 1], [1, 2], [2, 3]] and distance.max() < 1e-6


def test_long_clips_match_neighbours_and_far_partners_only():
    pairs = frame_pairs(100)
    assert len(frame_pairs(20)) == 190 and len(pairs) < 100 * 20
    assert (0, 1) in pairs and max(b - a for a, b in pairs) > 50
    similarity = np.zeros((100, 100))
    similarity[3, 77] = 1
    assert (3, 77) in frame_pairs(100, similarity)


def test_descriptors_are_bytes_of_unit_length_once_they_are_used():
    image = np.random.default_rng(0).integers(0, 255, (15, 20, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    features = detect(image, MatchSettings())
    assert len(features.pixels) > 20 and features.descriptors.dtype == torch.uint8
    np.testing.assert_allclose(features.unit().norm(dim=1), 1, atol=1e-5)


@pytest.mark.parametrize('value', [0, 255])
def test_a_blank_image_has_no_features(value):
    features = detect(np.full((60, 80, 3), value, np.uint8), MatchSettings())
    assert len(features.pixels) == 0 and features.descriptors.shape == (0, 128)
