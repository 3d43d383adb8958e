"""Bring the steps of a pipeline up to date, in order; the parts of map jobs flow from one to the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from engine.flow import Flow, Observer
from engine.job import Job, State
from engine.map_job import MapJob
from engine.names import Held
from engine.run_log import JobResult, write_run
from engine.runner import Runner
from schemas.strict import DUCKDB_MEMORY


def run_steps(
    held: Held,
    steps: Sequence[Job],
    observer: Observer,
    redo: frozenset[str],
    runner: Callable[[], Runner],
    memory: str = DUCKDB_MEMORY,
) -> tuple[list[JobResult], Held]:
    """Bring each step up to date: those that read whole tables one by one, the map jobs between two of them together.

    Args:
        redo: jobs to compute anew.
        runner: gives the runner of map jobs, and is only called where there is a part to compute.
        memory: limit of DuckDB.

    Returns:
        What came of the steps that had something to do, and what holds after them.

    Raises:
        ValueError: a knob was changed, or too many rows failed.
        PartFailed: a part could not be computed.
    """
    dataset, results = held.dataset, list[JobResult]()

    def ended(step: Job, result: JobResult | None) -> None:
        if result is not None:
            results.append(result)
            write_run(dataset, result)
            step.check(dataset, result)
        observer.end(step.job, result)

    for _, group in groupby(steps, lambda step: isinstance(step, MapJob)):
        segment, flowing = list(group), list[tuple[MapJob, bool]]()
        for step in segment:
            force, state = step.job in redo, step.state(held, step.job in redo)
            if state is State.DONE and not force:
                ended(step, None)
                continue
            before = held.record(step.outputs[-1])
            step.prepare(dataset, state, force)
            if not isinstance(step, MapJob):
                observer.begin(step.job, 0)
                begun = time.perf_counter()
                result = step.run(dataset, memory)
                ended(step, replace(result, seconds=round(time.perf_counter() - begun, 3)))
            held = dataset.held()
            if isinstance(step, MapJob):
                flowing.append((step, force or held.record(step.outputs[-1]) != before))
        if flowing:
            Flow(dataset, flowing, observer, ended).run(runner)
            held = dataset.held()
        for step in segment:
            if step.after is not None:
                step.after(held)
    return results, held


def to_run(states: Sequence[tuple[Job, State]], redo: frozenset[str]) -> Iterator[Job]:
    """The steps that are not done, and those whose tables will be outdated once the ones before have run."""
    anew: set[str] = set()
    for step, state in states:
        will_be_outdated = step.job in redo or not anew.isdisjoint(step.inputs)
        if will_be_outdated or state in (State.NEW, State.OUTDATED):
            anew.update(step.outputs)
        if will_be_outdated or state is not State.DONE:
            yield step
