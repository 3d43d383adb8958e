"""Times on a machine that others use too: alternating runs, and the median of their ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

Work = Callable[[], object]


class Paired(NamedTuple):
    """Median seconds of both, and the median of second over first, run by run."""

    first_s: float
    second_s: float
    ratio: float


def seconds(work: Work, device: torch.device) -> float:
    """Of one run: on a GPU until it is done; on a CPU of its cores together, so that nobody else's turn counts."""
    if device.type == "cpu":
        begun = time.process_time()
        work()
        return time.process_time() - begun
    torch.cuda.synchronize(device)
    begun = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def median_seconds(work: Work, rounds: int, device: torch.device, most_s: float = float("inf")) -> float:
    """Of `rounds` runs after one that is not counted; none is begun after `most_s` seconds of counted runs."""
    return statistics.median(own for (own,) in _runs((work,), rounds, device, most_s))


def paired(first: Work, second: Work, rounds: int, device: torch.device, most_s: float = float("inf")) -> Paired:
    """Both in turn, `rounds` times after one that is not counted; none is begun after `most_s` seconds of counted runs.
    A load that comes and goes slows both runs of a pair, so the ratios are steadier than the times."""
    pairs = _runs((first, second), rounds, device, most_s)
    return Paired(
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(b / a for a, b in pairs),
    )


def _runs(works: tuple[Work, ...], rounds: int, device: torch.device, most_s: float) -> list[tuple[float, ...]]:
    for work in works:
        work()
    runs: list[tuple[float, ...]] = []
    while len(runs) < rounds and (not runs or sum(map(sum, runs)) < most_s):
        runs.append(tuple(seconds(work, device) for work in works))
    return runs
