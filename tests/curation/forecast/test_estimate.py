"""Intervals against published values, and against what sampling itself does."""

from __future__ import annotations

import math

import numpy as np
import pytest

from curation.forecast.estimate import pairs_of, share_of, student_95, total_of


def test_wilson_is_the_published_interval_where_the_population_is_large() -> None:
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I: 81/263, 15/148, 0/20
    for found, sampled, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        estimate = share_of(found, sampled, 10**9)
        assert (estimate.low / 1e9, estimate.high / 1e9) == pytest.approx((low, high), abs=6e-5)
        assert estimate.value == pytest.approx(1e9 * found / sampled)


def test_a_share_never_contradicts_what_was_seen_and_the_whole_has_no_interval() -> None:
    nearly = share_of(3, 9, 10)
    assert (nearly.low, nearly.high) == (3, 4)
    whole = share_of(3, 10, 10)
    assert (whole.value, whole.low, whole.high) == (3, 3, 3)


def test_students_t_is_the_tabulated_one() -> None:
    for freedom, value in ((1, 12.706), (2, 4.303), (3, 3.182), (9, 2.262), (30, 2.042), (499, 1.965)):
        assert student_95(freedom) == pytest.approx(value, rel=0.02)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    population = generator.gamma(2.0, 1000.0, 400)
    kinds = population > 2500
    held = {"share": 0, "total": 0}
    for _ in range(400):
        sample = generator.choice(400, 60, replace=False)
        share = share_of(int(kinds[sample].sum()), 60, 400)
        total = total_of(population[sample].tolist(), 400)
        held["share"] += share.low <= kinds.sum() <= share.high
        held["total"] += total.low <= population.sum() <= total.high
    assert all(360 <= count <= 396 for count in held.values()), held


def test_pairs_are_estimated_without_bias() -> None:
    generator = np.random.default_rng(1)
    partner = {number: number + 1 for number in range(0, 200, 2)}  # 100 pairs among 1000
    found = []
    for _ in range(2000):
        sample = set(generator.choice(1000, 150, replace=False).tolist())
        found.append(sum(one in sample and other in sample for one, other in partner.items()))
    mean = float(np.mean([pairs_of(count, 150, 1000).value for count in found]))
    error = float(np.std([pairs_of(count, 150, 1000).value for count in found])) / math.sqrt(2000)
    assert abs(mean - 100) < 4 * error
    inside = np.mean([pairs_of(count, 150, 1000).low <= 100 <= pairs_of(count, 150, 1000).high for count in found])
    assert inside > 0.93


def test_pairs_of_none_found_and_of_the_whole() -> None:
    none = pairs_of(0, 500, 33_000_000)
    assert none.value == 0
    assert none.high > 33_000_000  # nothing can be said
    whole = pairs_of(7, 20, 20)
    assert (whole.value, whole.low, whole.high) == (7, 7, 7)
    assert pairs_of(0, 1, 20).high == math.inf
