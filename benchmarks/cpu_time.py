"""CPU time of every process that this one has started, Ray's and the peers' pools included, however they end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SAMPLE_S = 0.2
"""What a process does after its last sample is not seen."""
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Spent:
    """Seconds, once the block is left."""

    seconds = 0.0


@contextmanager
def descendants_cpu() -> Iterator[Spent]:
    """CPU seconds of all descendants inside a block, read from /proc again and again: a killed worker's time goes to
    nobody whom one could ask later."""
    spent, over = Spent(), threading.Event()
    before = _descendants()
    seen: dict[tuple[int, str], float] = {}

    def sample() -> None:
        while not over.wait(SAMPLE_S):
            seen.update(_descendants())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield spent
    finally:
        over.set()
        sampler.join()
        seen.update(_descendants())
        spent.seconds = sum(seconds - before.get(process, 0.0) for process, seconds in seen.items())


def _descendants() -> dict[tuple[int, str], float]:
    """(pid, when it began) -> its own CPU seconds, threads included."""
    children: dict[int, list[int]] = {}
    found: dict[int, tuple[str, float]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        pid = int(path.parent.name)
        found[pid] = (fields[19], (int(fields[11]) + int(fields[12])) * _TICK_S)
        children.setdefault(int(fields[1]), []).append(pid)
    below: dict[tuple[int, str], float] = {}
    waiting = list(children.get(os.getpid(), ()))
    while waiting:
        pid = waiting.pop()
        begun, seconds = found[pid]
        below[pid, begun] = seconds
        waiting += children.get(pid, ())
    return below
