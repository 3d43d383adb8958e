"""Numbers of two sets of features are those of the measures, with what they suffer from."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.frechet import frechet_distance, moments
from evaluation.manifold import precision_recall
from evaluation.results import distances, flags_of


def features(seed: int, num: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num, width)).astype(np.float32)


def test_numbers_are_those_of_the_measures() -> None:
    x, y = features(1, 60), features(2, 50)
    fid, kid, precision, recall = distances(x, y)
    assert fid.value == pytest.approx(frechet_distance(*moments(x), *moments(y)), rel=1e-12)
    assert fid.error and 0 < fid.error < fid.value
    assert (kid.metric, precision.metric) == ("kid of 50", "precision")
    assert (precision.value, recall.value) == precision_recall(x, y)
    assert flags_of(x, y) == ()


def test_few_pictures_and_equal_ones_are_measured_and_flagged() -> None:
    assert flags_of(features(3, 6), features(4, 60)) == ("rank_deficient",)
    same = np.ones((20, 6), np.float32)
    assert flags_of(same, features(6, 20)) == ("constant",)
    assert distances(same, features(6, 20))[0].value > 0


def test_a_picture_whose_features_are_not_finite_is_named() -> None:
    x = features(10, 20)
    x[13, 2] = np.nan
    with pytest.raises(ValueError, match="generated holds NaN or infinity in row 13"):
        distances(x, features(11, 20))
