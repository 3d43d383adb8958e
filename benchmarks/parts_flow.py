"""Two jobs whose workers sleep, a fast one and a slow one, in one flow on Ray, beside what an ideal cluster takes."""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from curation.build import Observer
from engine.dataset import Dataset
from engine.flow import Flow
from engine.job import State
from engine.map_job import MapJob
from engine.ray_runner import RayRunner
from engine.runner import Progress
from schemas.tables import schema_of

NUM_PARTS = 2000
FAST_S, SLOW_S = 0.25, 0.5
WORKERS = 4
"""of each job; the slow one's hold a GPU each, of which none is used"""
GOAL = 0.9
TABLES = {"raw_captions": schema_of("raw_captions"), "scores": schema_of("scores")}


@dataclass(frozen=True)
class Sleeping:
    """A worker that sleeps, and passes its row on."""

    seconds: float
    reads: str
    writes: str

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:
        """One part."""
        time.sleep(self.seconds)
        rows = [{"row_id": row, "removed": []} for row in inputs[self.reads]["row_id"].to_pylist()]
        progress(len(rows))
        return {self.writes: pa.Table.from_pylist(rows, schema=TABLES[self.writes])}


def jobs() -> list[MapJob]:
    """The fast job and the slow one, which reads it."""

    def job(name: str, reads: str, writes: str, seconds: float, num_gpus: float) -> MapJob:
        build = partial(partial, Sleeping(seconds, reads, writes))
        return MapJob(job=name, outputs=(writes,), inputs=(reads,), build=build, knobs={}, num_gpus=num_gpus)

    return [job("clean", "listing", "raw_captions", FAST_S, 0), job("aesthetic", "raw_captions", "scores", SLOW_S, 1)]


def ideal_s(num_parts: int) -> tuple[float, float]:
    """Seconds of a cluster that loses none: as parts flow, and job after job."""
    fast, slow = [0.0] * WORKERS, [0.0] * WORKERS
    for _ in range(num_parts):
        done = heapq.heappop(fast) + FAST_S
        heapq.heappush(fast, done)
        heapq.heappush(slow, max(done, heapq.heappop(slow)) + SLOW_S)
    return max(slow), -(-num_parts // WORKERS) * (FAST_S + SLOW_S)


def flow_s(runner: RayRunner, root: Path, num_parts: int) -> float:
    """Seconds from the first part to the end of the last job."""
    dataset = Dataset(root)
    for number in range(num_parts):
        row = {"row_id": number, "source": "/photos", "source_name": "photos", "member": f"{number}.jpg"}
        dataset.commit_part("listing", number, "0" * 12, pa.Table.from_pylist([row], schema=schema_of("listing")))
    begun = list[float]()

    class First(Observer):
        def begin(self, job: str, rows: int) -> None:
            begun.append(time.perf_counter())

    for job in jobs():
        job.prepare(dataset, State.NEW, redo=False)
    Flow(dataset, [(job, True) for job in jobs()], First(), lambda *_: None).run(lambda: runner)
    return time.perf_counter() - begun[0]


def parts_flow(folder: Path) -> Iterator[str]:
    """Seconds beside the ideal, the start of the actors included; less than job after job could ever take."""
    small: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 80_000_000}
    ray.init("local", num_cpus=WORKERS, num_gpus=WORKERS, **small)
    try:
        runner = RayRunner(WORKERS, 0)
        flow_s(runner, folder / "warm", WORKERS * 4)  # starts the actors on CPUs; those with GPUs go at the end
        ideal, one_by_one = ideal_s(NUM_PARTS)
        seconds = flow_s(runner, folder / "flow", NUM_PARTS)
        verdict = "reached" if ideal / seconds >= GOAL else "missed"
        yield (
            f"| {NUM_PARTS:,} parts, {FAST_S:g} s and {SLOW_S:g} s, {WORKERS} workers each | {seconds:.1f} s | "
            f"ideal {ideal:.1f} s, job after job {one_by_one:.1f} s | {ideal / seconds:.2f} | {GOAL}, {verdict} | "
            f"load {os.getloadavg()[0]:.1f} |"
        )
    finally:
        ray.shutdown()


BENCHMARKS = (parts_flow,)
