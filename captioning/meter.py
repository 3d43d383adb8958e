"""What a captioning worker did and where its time went: pictures, tokens, seconds in the model, GPU time, cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from engine.stage import Finished


class Meter:
    """What a worker has done since it was last asked, and where its time went. Times go to `runs/`, never to a table.

    The clock runs from batch to batch, so that reading a part, committing it and waiting for the next one count too.
    """

    def __init__(self, gpus: float, price_per_gpu_hour: float | None) -> None:
        self._gpus, self._price = gpus, price_per_gpu_hour
        self._counts: dict[str, float] = {}
        self._since = time.perf_counter()

    def add(self, **counts: float) -> None:
        """Count something."""
        for name, count in counts.items():
            self._counts[name] = self._counts.get(name, 0) + count

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Count the seconds inside."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(**{name: time.perf_counter() - begun})

    def take(self, rows: int) -> Finished:
        """Rows, and all that was counted since the last call: images, tokens, model_s, waiting_s, worker_s, gpu_s, and
        the cost of these in the currency of the price."""
        now = time.perf_counter()
        worker_s, self._since = now - self._since, now
        self.add(worker_s=worker_s, gpu_s=worker_s * self._gpus)
        if self._price is not None:
            self.add(cost=worker_s * self._gpus / 3600 * self._price)
        counts, self._counts = self._counts, {}
        return Finished(rows, **counts)


def uses_gpu() -> bool:
    """Whether the captioner that was just made lies on a GPU; torch is not imported for those that need none."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
