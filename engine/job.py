"""A job as data, and whether it is up to date: done parts are kept, and what the recipe contradicts is refused."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from engine.dataset import Dataset, JobRecord
from engine.run_log import JobResult
from engine.runner import Progress, Runner
from schemas.strict import fingerprint


class State(Enum):
    """How a job compares with the recipe."""

    DONE = "done"
    BEGUN = "begun"
    """Some parts are missing, or hold too many failures; the others are right."""
    OUTDATED = "outdated"
    """A table it reads has been computed anew."""
    NEW = "new"


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """One step of a pipeline as data: it can be sent to any machine, and compared with what made existing tables.

    `MapJob` and `ReduceJob` are its two kinds; everything else asks a job only for what is defined here.
    """

    job: str
    """A verb of `schemas.recipe.JOBS`, which is also its section of the recipe. `headers`, which no build runs, is none
    of them."""
    outputs: tuple[str, ...]
    """The tables it writes; the last one marks a part as done."""
    inputs: tuple[str, ...]
    """The tables it reads."""
    knobs: Mapping[str, Any]
    """The part of the recipe it depends on, keyed by dotted path."""
    needs: tuple[Callable[[], object], ...] = ()
    """Checks that run before a build, one per model, package or key. Each finds what a worker will load in the way the
    worker does, loads nothing, and raises `ValueError` where it is missing; see `engine.preflight`. Picklable."""
    after: Callable[[Dataset], object] | None = None
    """Called at the end of each build in which the job is up to date, whether it ran or not."""

    @abstractmethod
    def num_parts(self, dataset: Dataset) -> int:
        """Parts that its tables have when it is done."""

    @abstractmethod
    def missing(self, dataset: Dataset) -> list[int]:
        """Parts that are not committed yet."""

    @abstractmethod
    def set_aside(self, dataset: Dataset) -> None:
        """Take its outdated tables away; what cost much to compute waits to be taken back."""

    @abstractmethod
    def delete(self, dataset: Dataset) -> None:
        """Delete its tables, and whatever of them could be taken back."""

    @abstractmethod
    def run(self, dataset: Dataset, runner: Callable[[], Runner], progress: Progress, memory: str = "4GB") -> JobResult:
        """Compute what is missing of its tables, after `prepare`.

        Args:
            runner: gives the runner, and is only called where there is a part to compute.
            memory: limit of DuckDB, as DuckDB writes it.

        Raises:
            ValueError: the memory does not suffice, or a table it reads is damaged.
            PartFailed: a part could not be computed.
        """

    def check(self, dataset: Dataset, result: JobResult) -> None:
        """Refuse the result of a run in which more rows failed than the job allows; its parts are committed.

        Raises:
            ValueError: with the knob that allows more.
        """
        return

    def is_waited_for(self, dataset: Dataset) -> bool:
        """Whether outdated parts or files still wait to be taken back, or failures to be counted: the run was killed at
        its very end."""
        return False

    def parts_to_compute(self, dataset: Dataset) -> list[int]:
        """Parts that a job which has begun will compute."""
        return self.missing(dataset)

    def rows_to_compute(self, dataset: Dataset, state: State, redo: bool) -> int:
        """Input rows that `run` will go through; 0 where they are not counted one by one."""
        return 0

    def record(self, dataset: Dataset) -> JobRecord:
        """The record that its tables have when they are up to date."""
        made_by = {table: dataset.record(table) for table in self.inputs}
        upstream = {table: record.fingerprint if record else "" for table, record in made_by.items()}
        knobs = json.loads(json.dumps(dict(self.knobs)))
        return JobRecord(self.job, knobs, upstream, fingerprint([self.job, knobs, upstream]))

    def state(self, dataset: Dataset, redo: bool = False) -> State:
        """Compare what made its tables with the recipe.

        Raises:
            ValueError: a knob of the job itself was changed, and `redo` does not allow it; the message names the knob.
        """
        made_by = dataset.record(self.outputs[-1])
        if made_by is None:
            return State.NEW
        wanted = self.record(dataset)
        if made_by.knobs != wanted.knobs:
            # A job that stopped before its first part, for want of weights say, may run with other knobs.
            if not redo and any(dataset.has_rows(table) for table in self.outputs):
                raise ValueError(_changed_knob(dataset, self.job, made_by.knobs, wanted.knobs))
            return State.OUTDATED
        if made_by.upstream != wanted.upstream:
            return State.OUTDATED
        return State.BEGUN if self.is_waited_for(dataset) or self.parts_to_compute(dataset) else State.DONE

    def prepare(self, dataset: Dataset, state: State, redo: bool) -> None:
        """Take outdated tables away and record what makes the new ones, before the first part is written.

        Args:
            state: what `state` says, with the same `redo`.
            redo: compute it although it is done, and although its knobs were changed.
        """
        if state is State.BEGUN and not redo:
            return
        record, made_by = self.record(dataset), dataset.record(self.outputs[-1])
        if redo and made_by is not None and made_by.knobs == record.knobs:  # the user wants it computed all the same
            outdate_dependents(dataset, self.outputs)
            self.delete(dataset)
        else:
            self.set_aside(dataset)
        for table in self.outputs:
            dataset.write_record(table, record)

    def delete_unwanted(self, dataset: Dataset) -> None:
        """Delete tables that it wrote with other knobs and does not write with these. Call once its knobs were found
        to be allowed."""
        return


def _changed_knob(dataset: Dataset, job: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    new = [f"{name} is a new knob, now {now[name]!r}" for name in sorted(now.keys() - was.keys())]
    gone = [f"{name} was {was[name]!r} and is no knob any more" for name in sorted(was.keys() - now.keys())]
    common = sorted(was.keys() & now.keys())
    changed = [f"{name} was {was[name]!r} and is now {now[name]!r}" for name in common if was[name] != now[name]]
    made = "another recipe" if changed else "another version of sigma"
    what = ", ".join(changed + new + gone)
    return (
        f"{dataset.root}: made by {made}: {what}; add --redo {job} to compute {job} and what depends on it anew, "
        "set it back, or name another out"
    )


def outdate_dependents(dataset: Dataset, outputs: Sequence[str]) -> None:
    """Mark every table that was made from these as outdated, on the disk, before they are computed anew.

    With the same knobs their rows may still differ from before: originals change, and so do the answers of a server.
    """
    records = {table: record for table in dataset.recorded() if (record := dataset.record(table)) is not None}
    changed, marked = set(outputs), list[str]()
    while found := {table for table, record in records.items() if changed & set(record.upstream)} - changed:
        marked += sorted(found)
        changed |= found
    for table in reversed(marked):  # where this is killed, the way to each table that is left is still on the disk
        dataset.write_record(table, replace(records[table], upstream={}))
