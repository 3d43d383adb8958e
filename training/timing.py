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


def median_seconds(work: Work, rounds: int, device: torch.device) -> float:
    """Of `rounds` runs after one that is not counted."""
    work()
    return statistics.median(seconds(work, device) for _ in range(rounds))


def paired(first: Work, second: Work, rounds: int, device: torch.device) -> Paired:
    """Both in turn, `rounds` times after one that is not counted.

    A load that comes and goes slows both runs of a pair, so the ratios are steadier than the times.
    """
    first(), second()
    pairs = [(seconds(first, device), seconds(second, device)) for _ in range(rounds)]
    return Paired(
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(b / a for a, b in pairs),
    )
