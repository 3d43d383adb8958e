"""Precision and recall: the originals' numbers, small sets counted by hand, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import manifold
from evaluation.manifold import precision_recall
from tests.evaluation.conftest import Numbers


def plain(generated: np.ndarray, real: np.ndarray, k: int) -> tuple[float, float]:
    """The definition on whole numbers, whose distances are exact."""

    def share(points: np.ndarray, centres: np.ndarray) -> float:
        own = ((centres[:, None] - centres[None]) ** 2).sum(axis=2)
        radii = np.array([np.sort(np.delete(row, i))[k - 1] for i, row in enumerate(own)])
        return float((((points[:, None] - centres[None]) ** 2).sum(axis=2) <= radii).any(axis=1).mean())

    return share(generated, real), share(real, generated)


def test_the_shares_are_those_of_the_original(original: Numbers) -> None:
    numbers = original("precision_recall")
    found = precision_recall(numbers["generated"], numbers["real"], k=int(numbers["neighborhood"]))
    assert found == pytest.approx([float(numbers[key]) for key in ("precision", "recall", "f_score")], abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 20), st.integers(4, 20), st.integers(1, 3), st.sampled_from([0, 2**20]))
def test_distances_that_are_equal_count_as_inside(seed: int, n: int, m: int, k: int, far: int) -> None:
    rng = np.random.default_rng(seed)
    generated, real = rng.integers(0, 4, (n, 3)), rng.integers(1, 5, (m, 3))
    assert precision_recall(generated + far, real + far, k)[:2] == plain(generated, real, k)


def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    generated, real = rng.standard_normal((40, 5)), rng.standard_normal((33, 5))
    whole = precision_recall(generated, real)
    for block in (1, 2, 7, 33):
        monkeypatch.setattr(manifold, "BLOCK_ROWS", block)
        assert precision_recall(generated, real) == whole


def test_equal_sets_have_all_of_both_and_far_ones_none() -> None:
    rows = np.random.default_rng(2).standard_normal((30, 4))
    assert precision_recall(rows, rows[::-1].copy()) == (1, 1, 1)
    assert precision_recall(rows, rows + 100) == (0, 0, 0)


def test_one_picture_over_and_over_is_precise_and_reaches_next_to_nothing() -> None:
    real = np.random.default_rng(3).standard_normal((30, 4))
    found = precision_recall(np.repeat(real[:1], 20, axis=0), real)
    assert found[:2] == (1, 1 / 30)


def test_what_cannot_be_measured_is_refused() -> None:
    rows = np.random.default_rng(4).standard_normal((5, 3))
    nan = rows.copy()
    nan[2] = np.nan
    for generated, real, k, message in (
        (rows, rows[:3], 3, "generated has 5 and real has 3"),
        (rows, rows, 0, "k of at least 1"),
        (nan, rows, 3, "generated holds NaN or infinity in row 2"),
        (rows, rows[:, :2], 3, "features a row"),
    ):
        with pytest.raises(ValueError, match=message):
            precision_recall(generated, real, k)
