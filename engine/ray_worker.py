"""Runs inside an actor of Ray: computes the parts that it is handed, and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from engine import ray_cluster
from engine.dataset import Dataset
from engine.runner import Committed, PartJob, Task, once

Counts = dict[int, tuple[int, dict[str, float]]]
"""Place of a queue -> the rows and counts for its `engine.runner.Progress`."""

_ROWS = "rows"


class PartWorker:
    """One actor: builds the workers of jobs once, then runs the parts it is handed."""

    def __init__(self, root: str, holds_one: bool) -> None:
        """Build nothing yet. `holds_one`: whether the worker of one job at a time is loaded, as a GPU has no room for
        more."""
        self._dataset, self._holds_one = Dataset(Path(root)), holds_one
        self._lock = Lock()  # one thread or two count, another asks
        self._turn = -1
        self._workers: dict[int, Callable[[], Any]] = {}
        self._counts = dict[int, Counter[str]]()

    def why_blind(self, probe: str | None) -> str:
        """See `ray_cluster.why_blind`."""
        return ray_cluster.why_blind(probe) if probe else ""

    def run(self, turn: int, queue: int, job: PartJob, task: Task) -> tuple[Committed, Counts]:
        """Compute and commit a part.

        Args:
            turn: counts what the runner has run; a new one drops the workers of the last one and their weights.
            queue: the place of the job in it.

        Returns:
            What `PartJob.run_part` returns, and the counts that nobody has asked for yet.
        """
        with self._lock:
            if turn != self._turn or (self._holds_one and queue not in self._workers):
                self._turn, self._workers = turn, {}
            worker = self._workers.setdefault(queue, once(job.build))
        return job.run_part(self._dataset, worker, task, partial(self._count, queue)), self.take_counts()

    def take_counts(self) -> Counts:
        """Rows finished since the last call, and what was counted over them, by queue."""
        with self._lock:
            counts, self._counts = self._counts, {}
        return {queue: (int(found.pop(_ROWS)), dict(found)) for queue, found in counts.items()}

    def _count(self, queue: int, rows: int, counts: Mapping[str, float] = {}) -> None:
        with self._lock:
            found = self._counts.setdefault(queue, Counter())
            found[_ROWS] += rows
            found.update(counts)
