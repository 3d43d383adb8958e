from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.pace import Pace, commit_times, pace
from tests.engine.flowing import listed


def test_the_rate_is_that_of_the_last_parts() -> None:
    slow, fast = range(0, 1000, 10), [1000 + place / 2 for place in range(100)]
    assert pace([*fast, *slow], num_missing=20, now=1050) == Pace(2.0, 10.0)


def test_a_break_between_two_runs_does_not_count() -> None:
    assert pace([0, 1, 2, 3, 5000, 5004, 5008], 5, now=5010) == Pace(0.25, 20.0)


@pytest.mark.parametrize(("now", "is_at_work"), [(3 + 69, True), (3 + 71, False)])
def test_a_table_that_gets_nothing_any_more_has_no_pace(now: float, is_at_work: bool) -> None:
    assert (pace([0, 1, 2, 3], 1, now) is not None) == is_at_work


def test_parts_that_take_hours_are_no_silence() -> None:
    found = pace([0, 3600, 7200], 2, now=7200 + 9 * 3600)
    assert found is not None and found.seconds_left == pytest.approx(7200)


@pytest.mark.parametrize("committed", [[], [1.0], [1.0, 1.0]])
def test_too_few_parts_tell_nothing(committed: list[float]) -> None:
    assert pace(committed, 3, now=9000.0) is None
    assert pace([1, 2, 3], 0, now=3) is None, "nor does a table that is whole"


def test_parts_have_the_times_of_their_files(tmp_path: Path) -> None:
    dataset = listed(tmp_path, 3)
    held = dataset.held()
    for seconds, path in enumerate(held.paths("listing")):
        os.utime(path, (seconds, seconds))
    held.paths("listing")[1].unlink()
    assert commit_times(held, "listing") == [0.0, 2.0]
