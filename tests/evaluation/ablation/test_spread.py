"""When a difference counts as seen."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.ablation.spread import T_95, paired_difference


def test_a_difference_within_the_spread_is_not_seen() -> None:
    found = paired_difference([1.0, 1.4, 0.9], [1.1, 1.0, 1.2])
    assert not found.is_seen
    assert str(found) == "no difference seen"


def test_a_difference_beyond_the_spread_is_seen_with_its_interval() -> None:
    found = paired_difference([2.0, 2.1, 1.9], [1.0, 1.0, 1.0])
    assert found.is_seen
    assert found.mean == pytest.approx(1.0)
    assert found.low == pytest.approx(1 - 4.303 * 0.1 / 3**0.5)
    assert str(found) == "+1 (+0.752 to +1.25)"


def test_seeds_are_paired_so_that_what_they_share_does_not_hide_a_difference() -> None:
    seeds = [0.0, 10.0, 20.0]
    assert paired_difference(
        [seed - 1.0 + noise for seed, noise in zip(seeds, (0, 0.1, -0.1), strict=True)], seeds
    ).is_seen
    assert not paired_difference([19.0, -1.0, 9.1], seeds).is_seen, "the same values of other seeds"


def test_equal_cells_have_no_difference() -> None:
    assert str(paired_difference([1.5, 2.5, 3.5], [1.5, 2.5, 3.5])) == "no difference seen"


@pytest.mark.parametrize("num", [3, 5, 12])
def test_chance_alone_is_seen_in_at_most_one_of_twenty(num: int) -> None:
    draws = np.random.default_rng(num).normal(size=(4000, 2, num))
    seen = np.mean([paired_difference(list(a), list(b)).is_seen for a, b in draws])
    assert 0.02 < seen < 0.06
    assert min(T_95) == 2
