"""The bounds of `make bench-smoke`: ten of them, and what falls below one is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.smoke import CHECKS, Check, run


def giving(*ratios: float) -> Callable[[Path], float]:
    """A measurement that gives one ratio after the other."""
    left = list(ratios)
    return lambda folder: left.pop(0)


def test_a_ratio_below_its_bound_is_measured_again_and_then_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [
        Check("fast", 2.0, giving(2.5)),
        Check("busy for a moment", 2.0, giving(1.0, 2.1)),
        Check("slow", 2.0, giving(1.0, 1.5)),
    ]
    assert run(checks, tmp_path) == ["slow: 1.50, at least 2"]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(line[0], line[1]) for line in lines] == [("ok", "2.50,"), ("ok", "2.10,"), ("MISSED", "1.50,")]


def test_there_are_ten_ratios_of_different_names() -> None:
    assert len({check.what for check in CHECKS}) == len(CHECKS) == 10
