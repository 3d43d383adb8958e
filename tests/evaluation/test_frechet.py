"""The Fréchet distance: the originals' numbers, closed forms, invariances, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import frechet
from evaluation.frechet import Moments, distance_of_few, frechet_distance, jackknife, moments, standard_error
from tests.evaluation.conftest import Numbers

TOLERANCES = {
    "moments": 1e-9,
    "diagonal": 1e-9,
    "features": 1e-9,
    "singular": 1e-7,
    "constant": 1e-7,
    "two_rows": 1e-7,
    "large_mean": 1e-6,
}


def features(seed: int, num: int, width: int, mean: float = 0.0, spread: float = 1.0) -> np.ndarray:
    """Rows whose features depend on one another."""
    rng = np.random.default_rng(seed)
    return mean + spread * rng.standard_normal((num, width)) @ rng.standard_normal((width, width)) / width**0.5


def rotation(width: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(width).standard_normal((width, width)))[0]


@pytest.mark.parametrize("name", TOLERANCES)
def test_the_distance_is_that_of_the_originals(original: Numbers, name: str) -> None:
    numbers = original(f"frechet_{name}")
    if "x" in numbers:
        found = frechet_distance(*moments(numbers["x"]), *moments(numbers["y"]))
    else:
        found = frechet_distance(*(numbers[key] for key in ("mu1", "sigma1", "mu2", "sigma2")))
    values = {key: float(value) for key, value in numbers.items() if key.startswith(("value_", "closed"))}
    assert values == {key: pytest.approx(found, rel=TOLERANCES[name]) for key in values}


def test_the_same_rows_in_another_order_are_at_no_distance(original: Numbers) -> None:
    numbers = original("frechet_same")
    assert 0 <= frechet_distance(*moments(numbers["x"]), *moments(numbers["y"])) < 1e-6


@pytest.mark.parametrize(("num", "width"), [(100, 8), (10, 40), (2, 30), (3, 3), (5, 1)])
@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_a_set_is_at_distance_zero_from_itself_in_any_order(num: int, width: int, mean: float) -> None:
    x = features(1, num, width, mean)
    assert frechet_distance(*moments(x), *moments(x)) == 0
    shuffled = np.random.default_rng(2).permutation(x)
    assert 0 <= frechet_distance(*moments(x), *moments(shuffled)) < 1e-12


def test_moments_are_those_of_numpy() -> None:
    x = features(3, 50, 7, mean=2.0)
    mean, covariance = moments(x)
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(x, rowvar=False), rtol=1e-12, atol=1e-14)


def test_moments_of_a_large_mean_keep_their_digits_in_float32() -> None:
    x = (1000 + 0.05 * np.random.default_rng(4).standard_normal((400, 6))).astype(np.float32)
    mean, covariance = moments(x)
    exact = x.astype(np.longdouble) - x.astype(np.longdouble).mean(axis=0)
    np.testing.assert_allclose(covariance, (exact.T @ exact / 399).astype(float), rtol=1e-10, atol=1e-15)
    assert mean.dtype == covariance.dtype == np.float64


@pytest.mark.parametrize("block_bytes", [1, 8 * 7 * 3, 8 * 7 * 50])
def test_the_size_of_a_block_changes_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    x = features(5, 50, 7, mean=30.0)
    monkeypatch.setattr(frechet, "BLOCK_BYTES", block_bytes)
    np.testing.assert_allclose(moments(x)[1], np.cov(x, rowvar=False), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64", "map", "tensor", "int"])
def test_rows_of_any_type_of_number_are_taken(tmp_path, kind: str) -> None:
    x = np.round(features(6, 20, 3) * 8)
    given: object = x.astype(kind) if kind in ("float16", "float32", "float64", "int") else torch.tensor(x)
    if kind == "bfloat16":
        given = torch.tensor(x, dtype=torch.bfloat16)
    if kind == "map":
        np.save(tmp_path / "x.npy", x)
        given = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_allclose(moments(given)[1], np.cov(x, rowvar=False), rtol=1e-12)  # type: ignore[arg-type]


def test_features_that_cannot_be_written_to_stay_as_they_are() -> None:
    x = features(7, 20, 3)
    kept = x.copy()
    x.flags.writeable = False
    moments(x)
    np.testing.assert_array_equal(x, kept)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 59), max_size=5, unique=True), order=st.randoms(use_true_random=False))
def test_parts_add_up_to_the_whole_and_their_order_changes_no_digit(cuts: list[int], order) -> None:
    x = features(8, 60, 5, mean=50.0)
    parts = [Moments.of(part) for part in np.split(x, sorted(cuts))]
    merged = Moments.merge(parts)
    assert merged.num_rows == 60
    np.testing.assert_allclose(merged.mean, x.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(merged.covariance, np.cov(x, rowvar=False), rtol=1e-11)
    order.shuffle(parts)
    again = Moments.merge(iter(parts))
    assert again.mean.tobytes() == merged.mean.tobytes() and again.scatter.tobytes() == merged.scatter.tobytes()


def test_nothing_and_moments_of_two_widths_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="no moments"):
        Moments.merge([])
    with pytest.raises(ValueError, match="different numbers of features"):
        Moments.merge([Moments.of(np.ones((2, 3))), Moments.of(np.ones((2, 4)))])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(0, 100)] * 2, *[st.floats(-50, 50)] * 2), min_size=1, max_size=8),
)
def test_commuting_covariances_have_a_closed_form(axes: list[tuple[float, float, float, float]]) -> None:
    a, b, mu1, mu2 = (np.array(values) for values in zip(*axes, strict=True))
    turn = rotation(len(a))
    found = frechet_distance(turn @ mu1, (turn * a) @ turn.T, turn @ mu2, (turn * b) @ turn.T)
    # a variance of 0 comes out of the rotation as one of rounding, and its root counts
    assert found == pytest.approx(((mu1 - mu2) ** 2).sum() + ((a**0.5 - b**0.5) ** 2).sum(), rel=1e-9, abs=3e-5)
    assert found >= 0


@pytest.mark.parametrize("smallest", [1e-2, 1e-6, 1e-9, 1e-11])
def test_nearly_singular_covariances_keep_their_digits(smallest: float) -> None:
    width = 64
    a, b = np.geomspace(smallest, 1, width), np.geomspace(4 * smallest, 2, width)
    turn = rotation(width)
    found = frechet_distance(np.zeros(width), (turn * a) @ turn.T, np.zeros(width), (turn * b) @ turn.T)
    assert found == pytest.approx(((a**0.5 - b**0.5) ** 2).sum(), rel=1e-9)


def test_rank_deficient_sets_of_no_common_direction_add_their_traces() -> None:
    a, b = np.diag([3.0, 2, 0, 0, 0]), np.diag([0.0, 0, 0, 5, 1])
    assert frechet_distance(np.zeros(5), a, np.zeros(5), b) == pytest.approx(11, rel=1e-14)
    assert frechet_distance(np.zeros(5), a, np.ones(5), 0 * b) == pytest.approx(10, rel=1e-14)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(2, 30), st.integers(1, 20))
def test_turning_moving_and_swapping_both_sets_changes_nothing(seed: int, n: int, m: int, width: int) -> None:
    x, y = features(seed, n, width), features(seed + 1, m, width, mean=0.3, spread=2)
    value = frechet_distance(*moments(x), *moments(y))
    assert value >= 0
    close = pytest.approx(value, rel=1e-6, abs=1e-6)
    turn = rotation(width)
    assert frechet_distance(*moments(y), *moments(x)) == close
    assert frechet_distance(*moments(x @ turn), *moments(y @ turn)) == close
    assert frechet_distance(*moments(x + 7), *moments(y + 7)) == close
    assert frechet_distance(*moments(3 * x), *moments(3 * y)) == pytest.approx(9 * value, rel=1e-6, abs=1e-5)


def test_moving_one_set_adds_the_square_of_the_way() -> None:
    x = features(9, 80, 6)
    way = np.arange(6.0)
    assert frechet_distance(*moments(x), *moments(x + way)) == pytest.approx(way @ way, rel=1e-12)


def test_what_cannot_be_measured_is_refused_by_name() -> None:
    x = features(10, 9, 3)
    x[4, 1] = np.nan
    for bad, message in (
        (x, "NaN or infinity in row 4"),
        (np.where(np.isnan(x), np.inf, x), "NaN or infinity in row 4"),
        (np.ones((1, 3)), "at least 2 rows"),
        (np.ones((0, 3)), r"\(0, 3\)"),
        (np.ones((3, 0)), r"\(3, 0\)"),
        (np.ones(3), r"rows of features.*\(3,\)"),
        (np.ones((2, 3, 4)), "rows of features"),
        (np.array([["a", "b"]] * 3), "real numbers"),
        (np.ones((3, 2)) * 1j, "real numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            moments(bad)


def test_a_row_beyond_the_first_block_is_named_by_its_number_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frechet, "BLOCK_BYTES", 8 * 3 * 2)
    x = features(11, 9, 3)
    x[7, 1] = np.nan
    with pytest.raises(ValueError, match="row 7 "):
        moments(x)


def test_what_is_no_pair_of_moments_is_refused_by_name() -> None:
    mu, sigma = moments(features(12, 9, 3))
    lopsided, negative = sigma.copy(), sigma.copy()
    lopsided[0, 1] += 0.1
    negative[2, 2] = -1
    indefinite = np.array([[1.0, 2, 0], [2, 1, 0], [0, 0, 1]])
    for bad, message in (
        ((mu, sigma[:2, :2]), r"mu2 must be .*\(2, 2\)"),
        ((mu[:2], sigma[:2, :2]), "3 features and mu2 has 2"),
        ((mu[None], sigma), r"\(1, 3\)"),
        ((mu * np.nan, sigma), "NaN or infinity"),
        ((mu, sigma * np.inf), "NaN or infinity"),
        ((mu, lopsided), "sigma2 is no covariance: it is not symmetric"),
        ((mu, negative), "sigma2 is no covariance: a variance is negative"),
        ((mu, indefinite), "sigma2 is no covariance: an eigenvalue is negative"),
        ((mu.astype(object), sigma), "real numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            frechet_distance(mu, sigma, *bad)


def test_a_jackknife_is_as_wide_as_new_draws_are() -> None:
    reference = moments(features(13, 3000, 3))
    drawn = [features(13, 3000, 3)[place : place + 400] + 0.5 for place in range(0, 2800, 400)]
    spread = np.std([frechet_distance(*moments(x), *reference) for x in drawn])
    errors = [standard_error(jackknife([Moments.of(part) for part in np.split(x, 10)], *reference)) for x in drawn]
    assert 0.4 * spread < np.mean(errors) < 2.5 * spread


def test_a_jackknife_of_equal_parts_is_nothing_and_needs_two_of_them() -> None:
    part = Moments.of(features(14, 20, 3))
    reference = moments(features(15, 30, 3))
    assert standard_error(jackknife([part] * 4, *reference)) < 1e-12
    with pytest.raises(ValueError, match="at least 2 parts"):
        jackknife([part], *reference)
    with pytest.raises(ValueError, match="3 features and mu has 2"):
        jackknife([part] * 2, reference[0][:2], reference[1][:2, :2])


@pytest.mark.parametrize(("num_x", "num_y"), [(5, 7), (5, 60), (60, 5), (40, 50)])
def test_few_rows_give_the_distance_of_their_moments(num_x: int, num_y: int) -> None:
    random = np.random.default_rng(num_x)
    x, y = random.normal(size=(num_x, 30)), random.normal(1, 2, size=(num_y, 30))
    parts = np.arange(num_x) % 5
    value, left_out = distance_of_few(x, y, parts)
    assert value == pytest.approx(frechet_distance(*moments(x), *moments(y)), rel=1e-9)
    groups = [Moments.of(x[parts == part]) for part in range(5)]
    assert left_out == pytest.approx(jackknife(groups, *moments(y)), rel=1e-9)
    assert distance_of_few(x, x, parts)[0] == 0
