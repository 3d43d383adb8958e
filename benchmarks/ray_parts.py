"""Parts per second that one driver hands out on Ray: many short parts, and one worker that does not answer."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import ray

from engine.dataset import Dataset
from engine.ray_runner import RayRunner
from engine.runner import Committed, PartJob, Progress, Task

WORKERS = 16
PART_S = 0.01
NUM_PARTS = 4000
HELD_S = 5


@dataclass(frozen=True, kw_only=True)
class Waiting(PartJob):
    """Parts that wait, and do nothing else."""

    held_part: int | None = None
    """This one keeps Python's lock, so that its worker answers nothing."""
    job: str = "wait"
    build: Callable[[], Any] = NoneType
    workers: int | None = WORKERS

    def run_part(self, dataset: Dataset, worker: Callable[[], Any], task: Task, progress: Progress) -> Committed:
        """Wait for 10 ms, or for seconds with the lock held."""
        if task.number == self.held_part:
            ctypes.PyDLL(None).sleep(HELD_S)  # PyDLL does not let go of the lock
        else:
            time.sleep(PART_S)
        progress(1)
        return Committed()


@contextmanager
def cluster(workers: int) -> Iterator[RayRunner]:
    """A cluster on this machine that has room for more workers than there are cores."""
    small = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 80_000_000}
    ray.init("local", num_cpus=workers, **small)  # without the word it joins a cluster that somebody else runs here
    try:
        yield RayRunner(None, 0)
    finally:
        ray.shutdown()


def tasks(num_parts: int) -> list[Task]:
    """Parts that are made from nothing."""
    return [Task(number) for number in range(num_parts)]


def measure(runner: RayRunner, folder: Path, held: bool, num_parts: int = NUM_PARTS) -> tuple[float, int]:
    """Parts per second with all workers up, and the rows that were counted. Of a held worker the other parts count,
    which must be done before it is."""
    dataset = Dataset(folder)
    rows = 0
    begun = ended = 0.0

    def count(more: int, _: object = None) -> None:
        nonlocal rows, ended
        rows += more
        if rows >= num_parts - held and not ended:
            ended = time.perf_counter()

    while sum(len(pool.idle) for pool in runner._pools.values()) < WORKERS:
        runner.run(dataset, Waiting(), tasks(WORKERS * 4), lambda *_: None)
    begun = time.perf_counter()
    runner.run(dataset, Waiting(held_part=0 if held else None), tasks(num_parts), count)
    return (num_parts - held) / (ended - begun), rows


def ray_parts(folder: Path) -> Iterator[str]:
    """Rates with all workers free, and with one that holds Python's lock for seconds."""
    with cluster(WORKERS) as runner:
        for held in (False, True, False, True):
            folder.mkdir(parents=True, exist_ok=True)
            rate, _ = measure(runner, folder, held)
            what = f"one of them held for {HELD_S} s" if held else "all free"
            load = os.getloadavg()[0]
            yield f"| {WORKERS} workers, parts of {PART_S * 1000:.0f} ms, {what} | {rate:,.0f} parts/s | {load:.1f} |"


BENCHMARKS = (ray_parts,)
