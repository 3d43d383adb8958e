"""Compute a share of a job without a cluster: each process takes parts of its own, and none waits for another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from curation.build import Observer
from curation.ingest.takedown_log import refuse_unfinished
from engine.dataset import Dataset
from engine.job import Job, State
from engine.map_job import MapJob
from engine.preflight import check_needs
from engine.runner import LocalRunner


@dataclass(frozen=True)
class Share:
    """One of `of` shares of the parts of a job: those whose number is `place` modulo `of`."""

    place: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """A share as it is typed, such as 3/64. Raises ValueError: it is none."""
        place, slash, of = text.partition("/")
        if not (slash and place.isdigit() and of.isdigit() and int(place) < int(of)):
            raise ValueError(f"--share {text}: give I/N, from 0/N to N-1/N, such as 3/64")
        return cls(int(place), int(of))


def work(dataset: Dataset, steps: Sequence[Job], job: str, share: Share, observer: Observer | None = None) -> int:
    """Compute the missing parts of a share; `sigma build` then goes on from there. Call with a shared lock held.

    Args:
        steps: all steps of the dataset's recipe, in order.

    Returns:
        Parts that were computed.

    Raises:
        ValueError: the job is no map job with nothing but tables, or a job before it is not done.
        NeedsMissing: something that the job will load is not on this machine.
        PartFailed: a part could not be computed.
    """
    observer = observer or Observer()
    refuse_unfinished(dataset)
    chosen = steps_of(dataset, steps, job, f"sigma work {dataset.root} {job}")
    check_needs(chosen)
    num_computed = 0
    for step in chosen:
        if not isinstance(step, MapJob) or step.files is not None:
            raise ValueError(f"sigma work {dataset.root} {job}: {job} is not computed part by part; run sigma build")
        state = step.state(dataset.held())
        if state in (State.NEW, State.OUTDATED):
            step.prepare(dataset, state, redo=False)
        held = dataset.held()
        numbers = [number for number in step.missing(held) if number % share.of == share.place]
        observer.begin(step.job, step.rows_of(held, numbers))
        LocalRunner().run(dataset, step, step.tasks(held, numbers), partial(observer.advance, step.job))
        num_computed += len(numbers)
    return num_computed


def steps_of(dataset: Dataset, steps: Sequence[Job], job: str, what: str) -> list[Job]:
    """The steps of one job, whose predecessors are done.

    Args:
        steps: in order, up to this job at least.
        what: begins the error's text.

    Raises:
        ValueError: there is no such step, or one before it is not done.
    """
    held = dataset.held()
    if job not in [step.job for step in steps]:
        raise ValueError(f"{what}: the recipe has no such job; it has {', '.join(dict.fromkeys(s.job for s in steps))}")
    for step in steps:
        if step.job == job:
            break
        if step.state(held) is not State.DONE:
            raise ValueError(f"{what}: {step.job} is not done; run sigma build with --until {step.job} first")
    return [step for step in steps if step.job == job]
