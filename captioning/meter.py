"""Counts what a worker of the job `caption` has done, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Meter:
    """Counts a worker's pictures, tokens, seconds, GPU seconds and cost. They go to `runs/`, never to a table. The
    clock runs on between the answers, so that reading a part, committing it and waiting for the next one count too."""

    def __init__(self, gpus: float, price_per_gpu_hour: float | None) -> None:
        self._gpus, self._price = gpus, price_per_gpu_hour
        self._counts: dict[str, float] = {}
        self._since = time.perf_counter()
        self._within = 0.0
        """Seconds of the blocks that were timed within the one that is being timed."""

    def add(self, **counts: float) -> None:
        for name, count in counts.items():
            self._counts[name] = self._counts.get(name, 0) + count

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add the seconds that the block takes, less those of blocks that are timed within it."""
        begun, before, self._within = time.perf_counter(), self._within, 0.0
        try:
            yield
        finally:
            took = time.perf_counter() - begun
            self.add(**{name: took - self._within})
            self._within = before + took

    def take(self) -> dict[str, float]:
        """Everything counted since the last call: images, tokens, model_s, waiting_s, worker_s, gpu_s,
        and the cost in the currency of the price."""
        now = time.perf_counter()
        worker_s, self._since = now - self._since, now
        self.add(worker_s=worker_s, gpu_s=worker_s * self._gpus)
        if self._price is not None:
            self.add(cost=worker_s * self._gpus / 3600 * self._price)
        counts, self._counts = self._counts, {}
        return counts
