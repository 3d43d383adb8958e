"""CMMD and KID: the originals' numbers, closed forms, invariances, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import mmd
from evaluation.mmd import cmmd, cubic_mmd, kid
from tests.evaluation.conftest import Numbers


def unit(seed: int, num: int, width: int = 16, shift: float = 0.0) -> np.ndarray:
    """Embeddings of length 1, in float32."""
    rows = np.random.default_rng(seed).standard_normal((num, width)) + shift
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def plain_cmmd(x: np.ndarray, y: np.ndarray, sigma: float = 10.0) -> float:
    """The definition, in long doubles."""

    def less(a: np.ndarray, b: np.ndarray) -> np.longdouble:
        square = ((a[:, None].astype(np.longdouble) - b[None].astype(np.longdouble)) ** 2).sum(axis=2)
        return -np.expm1(-square / (2 * sigma**2)).mean()

    return float(1000 * (2 * less(x, y) - less(x, x) - less(y, y)))


def plain_cubic(x: np.ndarray, y: np.ndarray) -> float:
    """The definition, pair by pair."""

    def mean(a: np.ndarray, b: np.ndarray, own: bool) -> float:
        values = [(p @ q / len(p) + 1) ** 3 for i, p in enumerate(a) for j, q in enumerate(b) if own or i != j]
        return sum(values) / len(values)

    return mean(x, x, False) + mean(y, y, False) - 2 * mean(x, y, True)


@pytest.mark.parametrize("name", ["cmmd", "cmmd_near", "cmmd_not_normalised", "cmmd_same", "cmmd_unequal"])
def test_cmmd_is_the_formula_in_float64_and_near_the_originals(original: Numbers, name: str) -> None:
    numbers = original(name)
    found = cmmd(numbers["x"], numbers["y"])
    assert found == pytest.approx(float(numbers["float64"]), rel=0, abs=1e-9)
    assert [float(numbers[key]) for key in ("cmmd_pytorch", "google")] == [pytest.approx(found, rel=0, abs=1e-3)] * 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30), st.sampled_from([0.0, 0.5, 3.0, 40.0]))
def test_cmmd_has_nine_digits_of_its_definition(seed: int, num: int, other: int, shift: float) -> None:
    x, y = unit(seed, num, shift=shift), unit(seed + 1, other, shift=shift + 0.1)
    for scale in (1, 30):  # small distances by the series, large ones in full
        truth = plain_cmmd(scale * x, scale * y)
        assert cmmd(scale * x, scale * y) == pytest.approx(truth, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("sigma", [0.5, 3.0, 4.5, 6.0, 1000.0])
def test_both_ways_of_summing_meet_at_any_width_of_the_kernel(sigma: float) -> None:
    x, y = unit(1, 40), unit(2, 30, shift=0.3)
    assert cmmd(x, y, sigma=sigma) == pytest.approx(plain_cmmd(x, y, sigma), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("block", [1, 7, 40, 4096])
@pytest.mark.parametrize("scale", [1, 30])
def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch, block: int, scale: int) -> None:
    x, y = scale * unit(3, 41), scale * unit(4, 30, shift=0.3)
    whole, whole_cubic = cmmd(x, y), cubic_mmd(x, y)
    monkeypatch.setattr(mmd, "BLOCK_ROWS", block)
    assert cmmd(x, y) == pytest.approx(whole, rel=1e-10)
    assert cubic_mmd(x, y) == pytest.approx(whole_cubic, rel=1e-10)


def test_cmmd_of_two_points_is_the_kernel_of_their_distance() -> None:
    x, y = np.array([[0.0, 0, 0]]), np.array([[3.0, 0, 4]])
    assert cmmd(x, y) == pytest.approx(2000 * (1 - np.exp(-25 / 200)), rel=1e-14)
    assert cmmd(x, y, sigma=1, scale=1) == pytest.approx(2 * (1 - np.exp(-25 / 2)), rel=1e-14)
    assert cmmd(x, x) == 0
    assert cmmd(1e8 + x, 1e8 + y) == pytest.approx(2000 * (1 - np.exp(-25 / 200)), rel=1e-7)


def test_cmmd_stays_under_moving_turning_swapping_and_shuffling_both_sets() -> None:
    x, y = unit(5, 40).astype(np.float64), unit(6, 30, shift=0.4).astype(np.float64)
    value = pytest.approx(cmmd(x, y), rel=1e-9)
    turn = np.linalg.qr(np.random.default_rng(7).standard_normal((16, 16)))[0]
    shuffled = np.random.default_rng(8).permutation(x)
    assert [cmmd(x + 3, y + 3), cmmd(x @ turn, y @ turn), cmmd(y, x), cmmd(shuffled, y)] == [value] * 4


def test_the_unbiased_value_leaves_out_rows_compared_with_themselves() -> None:
    for scale in (1, 30):
        x, y = (scale * unit(seed, n).astype(float) for seed, n in ((9, 12), (10, 9)))
        own = [1000 * (1 - np.exp(-((a[:, None] - a[None]) ** 2).sum(axis=2) / 200)).sum() for a in (x, y)]
        biased = sum(total / n**2 for total, n in zip(own, (12, 9), strict=True))
        unbiased = sum(total / (n * n - n) for total, n in zip(own, (12, 9), strict=True))
        assert cmmd(x, y, unbiased=True) == pytest.approx(cmmd(x, y) + biased - unbiased, rel=1e-9)


def test_kid_draws_the_subsets_of_torch_fidelity(original: Numbers) -> None:
    numbers = original("kid")
    x, y = numbers["x"], numbers["y"]
    mean, std = kid(x, y, subsets=int(numbers["subsets"]), subset_size=int(numbers["subset_size"]))
    assert (mean, std) == pytest.approx(
        (float(numbers["torch_fidelity_mean"]), float(numbers["torch_fidelity_std"])), rel=0, abs=1e-6
    )
    drawn = zip(numbers["subset_x"], numbers["subset_y"], strict=True)
    assert mean == pytest.approx(np.mean([cubic_mmd(x[of_x], y[of_y]) for of_x, of_y in drawn]), rel=1e-12)


def test_kid_of_clean_fid_has_its_draws_and_its_rounding(original: Numbers) -> None:
    numbers = original("kid")
    found = kid(numbers["x"], numbers["y"], subsets=40, subset_size=60, seed=0, protocol="clean-fid")
    assert found.mean == pytest.approx(float(numbers["clean_fid_numpy_seed_0"]), rel=0, abs=1e-9)


def test_the_discrepancy_of_whole_sets_is_that_of_the_originals(original: Numbers) -> None:
    numbers = original("kid")
    first = int(numbers["first_rows"])
    found = cubic_mmd(numbers["x"][:first], numbers["y"][:first])
    for key in ("torch_fidelity_first_rows", "torchmetrics_first_rows"):
        assert float(numbers[key]) == pytest.approx(found, rel=0, abs=1e-6)


def test_the_cubic_discrepancy_is_its_definition_for_sets_of_two_sizes() -> None:
    x, y = unit(11, 9).astype(np.float64), 2 * unit(12, 14).astype(np.float64)
    assert cubic_mmd(x, y) == pytest.approx(plain_cubic(x, y), rel=1e-11)
    assert cubic_mmd(x, y) == pytest.approx(cubic_mmd(y, x), rel=1e-11)


def test_kid_of_whole_sets_has_no_spread_and_is_the_same_for_every_seed() -> None:
    x, y = unit(13, 20), unit(14, 20, shift=1)
    found = kid(x, y, subsets=3, subset_size=20)
    assert found.mean == pytest.approx(cubic_mmd(x, y), rel=1e-12)
    assert found.std < 1e-15
    assert kid(x, y, subsets=3, subset_size=10) == kid(x, y, subsets=3, subset_size=10)
    assert kid(x, y, subsets=3, subset_size=10) != kid(x, y, subsets=3, subset_size=10, seed=1)


def test_halves_of_one_set_are_at_no_distance_on_average() -> None:
    rows = unit(15, 400)
    found = kid(rows[:200], rows[200:], subsets=50, subset_size=50)
    assert abs(found.mean) < 0.003 < kid(rows[:200], unit(16, 200, shift=1), subsets=5, subset_size=50).mean


@pytest.mark.parametrize("measure", [cmmd, lambda x, y: kid(x, y, subsets=2, subset_size=9), cubic_mmd])
def test_what_cannot_be_measured_is_refused_by_name(measure) -> None:
    x, nan = unit(17, 1200, 4), unit(18, 1200, 4)
    nan[1100, 2] = np.nan
    for bad, message in (
        (nan, "y holds NaN or infinity in row 1100"),
        (x[:, :3], "x has 4 features a row and y has 3"),
        (x[:0], r"y must be rows.*\(0, 4\)"),
        (x[0], r"y must be rows.*\(4,\)"),
        (x * 1j, "real numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            measure(x, bad)
    assert measure(torch.from_numpy(x), torch.from_numpy(x).bfloat16()) is not None


def test_too_few_rows_and_senseless_knobs_are_refused() -> None:
    x = unit(19, 5)
    with pytest.raises(ValueError, match=r"x has 5 rows and y has 5.*subset of 1000.*set subset_size"):
        kid(x, x)
    with pytest.raises(ValueError, match="at least 2 rows"):
        kid(x, x, subset_size=1)
    with pytest.raises(ValueError, match="at least 1 subset"):
        kid(x, x, subsets=0, subset_size=3)
    for measure in (cubic_mmd, lambda a, b: cmmd(a, b, unbiased=True)):
        with pytest.raises(ValueError, match="at least 2 rows a side"):
            measure(x, x[:1])
    for sigma in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="must be above 0"):
            cmmd(x, x, sigma=sigma)
