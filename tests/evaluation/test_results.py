"""Results name what they depend on, and pairs that do not compare are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluation.clip_score import clip_score
from evaluation.features import Features, clip_features
from evaluation.frechet import frechet_distance, moments
from evaluation.manifold import precision_recall
from evaluation.results import agree, compare
from models.clip import Clip
from tests.evaluation.test_features import encoded
from tests.tiny_models import save_clip


def features(seed: int, num: int, width: int = 6) -> Features:
    rows = np.random.default_rng(seed).standard_normal((num, width)).astype(np.float32)
    return Features(rows, "network@1234", "clean")


def test_results_are_those_of_the_measures_with_all_that_they_depend_on() -> None:
    x, y = features(1, 60), features(2, 50)
    fid, kid, precision, recall = compare(x, y)
    assert fid.value == pytest.approx(frechet_distance(*moments(x.rows), *moments(y.rows)), rel=1e-12)
    assert fid.error and 0 < fid.error < fid.value
    assert (kid.metric, precision.metric) == ("kid of 50", "precision")
    assert (precision.value, recall.value) == precision_recall(x.rows, y.rows)[:2]
    for row in (fid, kid, precision, recall):
        assert (row.network, row.protocol, row.num_generated, row.num_reference) == ("network@1234", "clean", 60, 50)
        assert row.flags == ()


def test_few_pictures_and_equal_ones_are_measured_and_flagged() -> None:
    assert compare(features(3, 6), features(4, 60))[0].flags == ("rank_deficient",)
    same = replace(features(5, 20), rows=np.ones((20, 6), np.float32))
    fid, *_ = compare(same, features(6, 20))
    assert fid.flags == ("constant",) and fid.value > 0


def test_features_that_do_not_compare_are_refused_by_both_names() -> None:
    x = features(7, 20)
    with pytest.raises(ValueError, match="network network@1234 do not compare with those of network@5678"):
        compare(x, replace(x, network="network@5678"))
    with pytest.raises(ValueError, match="protocol clean do not compare with those of pytorch"):
        compare(x, replace(x, protocol="pytorch"))
    with pytest.raises(ValueError, match="at least 4 pictures a side; there are 3 and 20"):
        compare(features(8, 3), x)


def test_pictures_that_are_missing_are_named_and_left_out_only_on_request() -> None:
    x = features(9, 20)
    lacking = replace(x, unreadable={7: "cut short"})
    with pytest.raises(ValueError, match="1 of the reference pictures could not be read, first number 7: cut short"):
        compare(x, lacking)
    assert compare(x, lacking, allow_missing=True)[0].value < 1e-12


def test_a_picture_whose_features_are_not_finite_is_named() -> None:
    x = features(10, 20)
    x.rows[13, 2] = np.nan
    with pytest.raises(ValueError, match="generated holds NaN or infinity in row 13"):
        compare(x, features(11, 20))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return Clip.load(str(save_clip(tmp_path_factory.mktemp("clip"))), "clip", device="cpu")


def test_the_clip_score_is_of_each_picture_and_its_text_and_says_how_much_was_read(clip: Clip) -> None:
    pictures = clip_features([encoded(level) for level in (10, 90, 200)], clip, threads=2, batch=2)
    long = "a photo of a cat " * 60
    found = agree(pictures, ["red", long, "a dog"], clip)
    np.testing.assert_allclose(
        found.cosines, clip_score(pictures.rows, clip.embed_texts(["red", long, "a dog"])), atol=1e-6
    )
    assert found.mean.value == pytest.approx(found.cosines.mean()) and found.network == clip.name
    assert found.share_cut == pytest.approx(1 / 3)
    assert found.share_read == pytest.approx((2 + clip.max_tokens / clip.num_tokens(long)) / 3)


def test_a_picture_that_is_missing_takes_its_text_with_it(clip: Clip) -> None:
    texts = ["red", "green", "a dog"]
    pictures = clip_features([encoded(10), b"", encoded(200)], clip)
    with pytest.raises(ValueError, match="1 of the generated pictures could not be read, first number 1"):
        agree(pictures, texts, clip)
    found = agree(pictures, texts, clip, allow_missing=True)
    np.testing.assert_allclose(found.cosines, clip_score(pictures.rows, clip.embed_texts(["red", "a dog"])), atol=1e-6)
    with pytest.raises(ValueError, match="3 pictures and 2 texts"):
        agree(pictures, texts[:2], clip, allow_missing=True)


def test_features_of_another_network_have_no_clip_score(clip: Clip) -> None:
    with pytest.raises(ValueError, match="do not compare with texts of"):
        agree(features(1, 3), ["a"] * 3, clip)
