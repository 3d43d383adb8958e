"""A job as data, and whether it is up to date: parts that hold are kept, and what the recipe contradicts is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import yaml

from engine.dataset import Dataset, JobRecord
from engine.names import Held
from engine.run_log import JobResult
from schemas.files import delete_files, remove_folder
from schemas.strict import DUCKDB_MEMORY

PLAIN = re.compile(r"[\w./:+-]+")
"""Values that a command line takes as they are."""


class State(Enum):
    """How a job compares with the recipe."""

    DONE = "done"
    BEGUN = "begun"
    """Some parts are missing, or hold too many failures; the others are right."""
    OUTDATED = "outdated"
    """A part was made from other inputs than there are now."""
    NEW = "new"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One step of a pipeline as data: it can be sent to any machine, and compared with what made existing tables.
    `MapJob` and `ReduceJob` are its two kinds."""

    job: str
    """A verb of `schemas.recipe.JOBS`, which is also its section of the recipe. `headers`, which no build runs, is none
    of them."""
    outputs: tuple[str, ...]
    """The tables it writes."""
    inputs: tuple[str, ...]
    """The tables it reads."""
    knobs: Mapping[str, Any]
    """The part of the recipe it depends on, keyed by dotted path."""
    needs: tuple[Callable[[], object], ...] = ()
    """Checks that run before a build, one per model, package or key. Each finds what a worker will load in the way the
    worker does, loads nothing, and raises `ValueError` where it is missing; see `engine.preflight`. Picklable."""
    after: Callable[[Held], object] | None = None
    """Called with what holds at the end of each build in which the job is up to date, whether it ran or not."""

    def check(self, dataset: Dataset, result: JobResult) -> None:
        """Refuse the result of a run in which more rows failed than the job allows; its parts are committed. Raises
        ValueError: with the knob that allows more."""
        return

    def run(self, dataset: Dataset, memory: str = DUCKDB_MEMORY) -> JobResult:
        """Compute all of its parts in this process, after `prepare`; of a map job its workers do it part by part.
        `memory`: limit of DuckDB, as DuckDB writes it."""
        raise NotImplementedError(f"{self.job} is computed part by part")

    def is_waited_for(self, held: Held) -> bool:
        """Whether outdated parts or files are still there, or failures to be counted: the run was killed at its very
        end."""
        return any(held.outdated(table) for table in self.outputs)

    def expected(self, held: Held) -> list[str | None]:
        """What each part of its tables is made from, as its inputs are now; None where a part of them is missing."""
        return held.expected(self.outputs[-1], self.job, self.knobs, self.inputs)

    def source(self, held: Held) -> Callable[[int], str | None]:
        """The same of one part, also when parts of its inputs come; see `Held.source_of`."""
        return held.source_of(self.outputs[-1], self.job, self.knobs, self.inputs)

    def missing(self, held: Held) -> list[int]:
        """Parts that are not there as they should be made."""
        there = [{(name.number, name.made_from) for name in held.listed(table)} for table in self.outputs]
        wanted = enumerate(self.expected(held))
        return [number for number, digest in wanted if not all((number, digest) in names for names in there)]

    def parts_to_compute(self, held: Held) -> list[int]:
        """Parts that a job which has begun will compute."""
        return self.missing(held)

    def state(self, held: Held, redo: bool = False) -> State:
        """Compare what made its tables with the recipe. Raises ValueError: a knob of the job itself was changed, and
        `redo` does not allow it; the message names the knob."""
        made_by = held.record(self.outputs[-1])
        if made_by is None:
            return State.NEW
        knobs = json.loads(json.dumps(dict(self.knobs)))
        if made_by.knobs != knobs:
            # A job that stopped before its first part, for want of weights say, may run with other knobs.
            if not redo and any(held.listed(table) for table in self.outputs):
                raise ValueError(_changed_knob(held.dataset, self.job, made_by.knobs, knobs))
            return State.OUTDATED
        expected = self.expected(held)
        known = {(number, digest) for number, digest in enumerate(expected) if digest is not None}
        there = {(name.number, name.made_from) for table in self.outputs for name in held.listed(table)}
        is_lost = any(held.record(table) is None for table in self.outputs)
        if (
            is_lost
            or set(made_by.inputs) != set(self.inputs)
            or not {name[0] for name in there - known} <= {name[0] for name in there & known}
        ):
            return State.OUTDATED
        return State.BEGUN if self.is_waited_for(held) or self.parts_to_compute(held) else State.DONE

    def prepare(self, dataset: Dataset, state: State, redo: bool) -> None:
        """Record what makes its tables, before the first part is written. `state`: what `state` says, with the same
        `redo`. `redo`: compute it although it is done, and although its knobs were changed."""
        dataset.catalog.unlink(missing_ok=True)  # it names parts: a build that is killed leaves none that is outdated
        if state is State.BEGUN and not redo:
            return
        before = {table: dataset.record(table) for table in self.outputs}
        knobs, made_by = json.loads(json.dumps(dict(self.knobs))), before[self.outputs[-1]]
        if redo and made_by is not None and made_by.knobs == knobs:  # the user wants it computed all the same
            self.delete(dataset)
        for table, record in before.items():
            shards = None if record is None else record.shards  # those that there are, until others are planned
            dataset.write_record(table, JobRecord(self.job, knobs, list(self.inputs), shards))

    def delete(self, dataset: Dataset) -> None:
        """Delete its tables, and whatever of them could be used again."""
        for table in self.outputs:
            remove_folder(dataset.folder(table))

    def delete_outdated(self, held: Held) -> None:
        """Delete every part that does not hold, once its tables are whole."""
        for table in self.outputs:
            delete_files(*(held.dataset.folder(table) / name.file for name in held.outdated(table)))

    def delete_unwanted(self, dataset: Dataset) -> None:
        """Delete tables that it wrote with other knobs and does not write with these. Call once its knobs were found
        to be allowed."""
        return


def _changed_knob(dataset: Dataset, job: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    new = [f"{name} did not count and is now {now[name]!r}" for name in sorted(now.keys() - was.keys())]
    gone = [f"{name} was {was[name]!r} and does not count now" for name in sorted(was.keys() - now.keys())]
    common = sorted(was.keys() & now.keys())
    changed = [f"{name} was {was[name]!r} and is now {now[name]!r}" for name in common if was[name] != now[name]]
    made = "another recipe" if changed else "another recipe or version of sigma"
    what = ", ".join(changed + new + gone)
    back = {name: "null" if was[name] is None else str(was[name]) for name in common if was[name] != now[name]}
    can_be_typed = back and all(
        PLAIN.fullmatch(text) and yaml.safe_load(text) == was[name] for name, text in back.items()
    )
    how = f" with {' '.join(f'{name}={text}' for name, text in back.items())}" if can_be_typed else ""
    return (
        f"{dataset.root}: made by {made}: {what}; add --redo {job} to compute {job} and what depends on it anew, "
        f"set it back{how}, or name another out"
    )
