"""Changes from the first model: by hand, of equal models, and narrower than what each model is known to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evaluation.paired import Distances, Scores, half_width, with_changes
from evaluation.results import distances, groups_of
from tests.evaluation.test_table import row

PROMPTS = [f"p{number}" for number in range(40)]


def of_one_feature(x: np.ndarray, y: np.ndarray) -> float:
    """FID of one feature: the means and the deviations apart."""
    return float((x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2)


def drawn(seed: int, num: int = 40, width: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, width))


def fid(x: np.ndarray, y: np.ndarray, prompts: list[str]) -> Distances:
    found = distances(x, y, prompts)[0]
    return Distances(found.value, found.left_out, prompts)


def test_an_interval_by_hand() -> None:
    own, first = (Distances(value, np.array(out), ["a", "b"]) for value, out in ((11.0, (10, 12)), (8.0, (8, 8))))
    # without the groups the differences are 2 and 4: their deviation of 1, times sqrt(2 - 1), times Student's t
    assert own.change(first) == pytest.approx((3, 3 - 12.71, 3 + 12.71))
    change = Scores([{"a": 0.5, "b": 0.75}]).change(Scores([{"b": 0.75, "a": 0.25}]))
    assert change == pytest.approx((0.125, 0, 0.25))  # of two prompts a quarter of the draws are one of them twice


def test_the_distances_without_each_group_are_those_of_the_other_pictures() -> None:
    x, y = drawn(0, width=1), drawn(1, 60, 1)
    prompts = [f"p{number // 2}" for number in range(40)]  # two pictures of each of twenty
    found = distances(x, y, prompts)[0]
    groups = groups_of(prompts)
    assert found.value == pytest.approx(of_one_feature(x, y))
    assert found.left_out == pytest.approx([of_one_feature(x[groups != group], y) for group in range(10)])
    assert (groups[::2] == groups[1::2]).all() and np.bincount(groups).tolist() == [4] * 10


def test_groups_have_two_prompts_each_or_there_are_none() -> None:
    assert groups_of(["a", "b", "c", "d", "e"]).tolist() == [0, 1, 0, 1, 0]
    assert groups_of(["a", "a", "b", "b"]).tolist() == [0] * 4
    (found, *_) = distances(drawn(0, 4), drawn(1), ["a", "a", "b", "b"])
    assert found.error is None and half_width(found.left_out) is None
    assert Distances(1, found.left_out, "ab").change(Distances(2, found.left_out, "ab")) is None


@pytest.mark.parametrize("num", [20, 200])
def test_two_equal_models_have_no_change_and_no_width(num: int) -> None:
    prompts, y = [f"p{number}" for number in range(num)], drawn(2, 90, 40)  # fewer and more pictures than features
    one, other = (fid(drawn(3, num, 40), y, prompts) for _ in range(2))
    assert one.change(other) == (0, 0, 0)
    scores = Scores.of(prompts, drawn(4, num, 1)[:, 0])
    assert scores.change(scores) == (0, 0, 0)


def test_what_both_models_share_is_not_in_the_interval() -> None:
    x, y = 1 + drawn(5, 400, 3), drawn(6, 900, 3)
    prompts = [f"p{number}" for number in range(400)]
    one, other = fid(x, y, prompts), fid(x + 0.05 * drawn(7, 400, 3), y, prompts)
    change, own = other.change(one), half_width(other.left_out)
    assert change is not None and own is not None
    assert change.low < change.value == other.value - one.value < change.high
    assert change.high - change.low < own / 2  # a quarter of the interval of one model


def test_other_prompts_give_no_interval() -> None:
    one, other = (fid(drawn(7), drawn(8), prompts) for prompts in (PROMPTS, [*PROMPTS[1:], "another"]))
    assert one.change(other) is None
    assert Scores([{"a": 1.0}]).change(Scores([{"b": 1.0}])) is None


def test_changes_are_from_the_first_model_and_only_between_rows_that_compare() -> None:
    def measured(model: str, value: float | None, score: float | None = None, **changes: Any) -> dict[str, Any]:
        basis = {} if score is None else {"basis": Scores([{"a": score, "b": score}])}
        return row(model, value, **changes) | basis

    rows = [
        measured("first", 40.0, 1.0),
        measured("first", 0.5, metric="recall"),
        measured("second", 38.0, 3.0),
        measured("second", 0.25, metric="recall"),
        measured("second", None, metric="kid", reason="why"),
        measured("third", 39.0, 3.0, num_generated=99),
        measured("third", 39.0, 3.0, protocol="pytorch"),
    ]
    found = list(with_changes(rows, "first"))
    assert not any("basis" in each for each in found)
    changes = [tuple(each.get(name) for name in ("change", "change_low", "change_high")) for each in found]
    nothing = (None, None, None)
    assert changes == [nothing, nothing, (2, 2, 2), (-0.25, None, None), nothing, nothing, nothing]
