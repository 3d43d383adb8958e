"""Preferences: intervals and strengths of the originals, verdicts counted by hand, and judges that judge nothing."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.preference import bootstrap, bradley_terry, outcome, summarise, wilson
from tests.evaluation.conftest import Numbers


def test_wilson_is_that_of_statsmodels(original: Numbers) -> None:
    numbers = original("preferences")
    columns = json.loads(str(numbers["interval_columns"]))
    for row in numbers["intervals"]:
        known = dict(zip(columns, row.tolist(), strict=True))
        found = wilson(known["wins"], known["losses"])
        assert found[1:] == pytest.approx((known["wilson_low"], known["wilson_high"]), abs=1e-9)


def test_strengths_are_those_of_choix(original: Numbers) -> None:
    numbers = original("preferences")
    truth = numbers["bradley_terry_log_strength"]
    wins = np.zeros((len(truth), len(truth)))
    np.add.at(wins, tuple(numbers["games_winner_loser"].T), 1)
    found = bradley_terry(wins)
    np.testing.assert_allclose(found, truth, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("wins", "losses"), [(0, 1), (1, 0), (1, 1), (7, 3), (0.5, 0.5), (10**6, 1)])
def test_wilson_holds_the_share_and_turns_over_with_it(wins: float, losses: float) -> None:
    found, other = wilson(wins, losses), wilson(losses, wins)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert (found.low, found.high) == pytest.approx((1 - other.high, 1 - other.low))


def test_300_even_games_are_within_six_points_of_a_tie() -> None:
    low, high = wilson(150, 150)[1:]
    assert (high - low) / 2 == pytest.approx(0.056, abs=5e-4)


def test_senseless_counts_and_confidences_are_refused() -> None:
    for wins, losses in ((0, 0), (-1, 2), (2, -1), (float("nan"), 1)):
        with pytest.raises(ValueError, match="won or lost"):
            wilson(wins, losses)
    for confidence in (0, 1, 95):
        with pytest.raises(ValueError, match="between 0 and 1"):
            wilson(1, 1, confidence)
        with pytest.raises(ValueError, match="between 0 and 1"):
            bootstrap(np.ones(3), confidence=confidence)
    for values in (np.empty(0), np.ones((2, 2)), np.array([1, np.nan])):
        with pytest.raises(ValueError, match="finite values"):
            bootstrap(values)


def test_a_bootstrap_is_seeded_and_as_wide_as_the_normal_interval() -> None:
    values = np.random.default_rng(1).standard_normal(400)
    found = bootstrap(values, draws=4000)
    assert found == bootstrap(values, draws=4000) != bootstrap(values, draws=4000, seed=1)
    half = 1.96 * values.std() / 20
    assert found[1:] == pytest.approx((found.value - half, found.value + half), abs=0.15 * half)
    assert bootstrap(np.ones(5)) == (1, 1, 1)


SWAPPED = {"win": "loss", "half_win": "half_loss", "loss": "win", "half_loss": "half_win"}


def test_two_orders_make_one_outcome() -> None:
    assert outcome("first", "second") == "win"
    assert outcome("second", "first") == "loss"
    assert outcome("first", "first") == outcome("second", "second") == "position"
    assert outcome("first", "tie") == outcome("tie", "second") == "half_win"
    assert outcome("tie", "tie") == "tie"
    for other in ("first", "second", "tie", "unparsed", "refused"):
        for silent in ("unparsed", "refused"):
            assert outcome(silent, other) == outcome(other, silent) == "unanswered"  # type: ignore[arg-type]
    for one, two in itertools.product(("first", "second", "tie"), repeat=2):
        name = outcome(one, two)  # type: ignore[arg-type]
        assert outcome(two, one) == SWAPPED.get(name, name)  # type: ignore[arg-type]


def test_a_pair_that_was_asked_about_in_one_order_counts_as_it_says() -> None:
    assert outcome("first", None) == outcome(None, "second") == "win"
    assert outcome("second", None) == outcome(None, "first") == "loss"
    assert outcome("tie", None) == outcome(None, "tie") == "tie"
    assert outcome("unparsed", None) == outcome(None, "refused") == outcome(None, None) == "unanswered"
    found = summarise([("first", None), (None, "first")], draws=10)
    assert (found.win_rate.value, found.lean.value, found.wins, found.losses) == (0.5, 0.5, 1, 1)


def test_pairs_of_one_prompt_count_once_together() -> None:
    pairs = [("first", "second")] * 4 + [("second", "first")]
    found = summarise(pairs, draws=2000, prompts="aaaab")  # type: ignore[arg-type]
    assert found.win_rate == (0.5, 0.0, 1.0)
    assert found.num_pairs == 5 and found.decided == wilson(4, 1)


def test_verdicts_are_counted() -> None:
    pairs = [("first", "second")] * 6 + [("second", "first")] * 2 + [("tie", "tie"), ("first", "first")]
    found = summarise([*pairs, ("first", "tie"), ("unparsed", "first")], draws=200)  # type: ignore[list-item]
    assert found.win_rate.value == pytest.approx((6 + 0.5 + 0.5 + 0.75) / 11)
    assert found.win_rate.low < found.win_rate.value < found.win_rate.high
    assert found.decided == wilson(6, 2)
    assert (found.share_tied, found.share_position) == (1 / 11, 1 / 11)
    assert found.share_unanswered == pytest.approx(1 / 12) and found.num_pairs == 12
    assert found.lean.value == pytest.approx(12 / 20 - 0.5)
    assert (found.wins, found.losses, found.share_unparsed, found.share_refused) == (6, 2, 1 / 24, 0)


def test_a_judge_that_always_says_first_gives_a_tie_and_a_lean_of_fifty_points() -> None:
    found = summarise([("first", "first")] * 20, draws=50)
    assert found.win_rate == (0.5, 0.5, 0.5) and found.share_position == 1
    assert found.lean.value == 0.5 and found.lean.low > 0.3
    assert np.isnan(found.decided.value) and found.decided[1:] == (0, 1)


def test_a_judge_that_answers_nothing_has_no_win_rate() -> None:
    with pytest.raises(ValueError, match="none of 2 pairs is answered"):
        summarise([("unparsed", "first"), ("refused", "refused")])
    with pytest.raises(ValueError, match="none of 0 pairs"):
        summarise([])


def test_the_strengths_of_two_models_are_their_odds() -> None:
    found = bradley_terry(np.array([[0, 3], [1, 0]]))
    np.testing.assert_allclose(found, [np.log(3) / 2, -np.log(3) / 2], atol=1e-12)


def test_the_message_names_the_models() -> None:
    with pytest.raises(ValueError, match="model sigma has no win, direct or through others, over alpha, xl;"):
        bradley_terry(np.array([[0, 0, 0], [1, 0, 1], [1, 1, 0]]), ["sigma", "alpha", "xl"])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 7))
def test_strengths_expect_the_wins_that_were_seen(seed: int, size: int) -> None:
    wins = np.random.default_rng(seed).integers(1, 60, (size, size)) * (1 - np.eye(size))
    wins[0, 1:] *= 50
    found = bradley_terry(wins)
    chance = 1 / (1 + np.exp(found[None] - found[:, None]))
    np.testing.assert_allclose(((wins + wins.T) * chance).sum(axis=1) - wins.sum(axis=1) * 1.0, 0, atol=1e-6)
    assert abs(found.mean()) < 1e-12
    turn = np.random.default_rng(seed).permutation(size)
    np.testing.assert_allclose(bradley_terry(wins[turn][:, turn]), found[turn], atol=1e-9)


@pytest.mark.parametrize(
    ("wins", "message"),
    [
        ([[0, 5], [0, 0]], r"model 1 has no win, direct or through others, over \[0\]"),
        ([[0, 1, 0], [1, 0, 0], [0, 0, 0]], r"model 0 has no win, .* over \[2\]"),
        ([[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]], "strengths are infinite"),
        ([[1, 1], [1, 0]], "0 of a model against itself"),
        ([[0, -1], [1, 0]], "counts"),
        ([[0, 1, 1], [1, 0, 1]], "one row and one column"),
    ],
)
def test_games_that_decide_no_strengths_are_refused(wins: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bradley_terry(np.array(wins))
