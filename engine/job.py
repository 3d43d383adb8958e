"""Bring one job up to date: what is done stays, what is outdated is redone, what the recipe contradicts is refused."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import duckdb

from engine import catalog
from engine.dataset import (
    ROW_GROUP_ROWS,
    Dataset,
    JobRecord,
    count_rows,
    forget_index,
    forget_previous,
    last_value,
    read_parquet,
    retire,
    schema_of,
)
from engine.failed_rows import ask_again, check_failures, failed_parts, forget_failures, has_too_many
from engine.journal import forget_journals
from engine.reduce import Reduce, commit_batches, explaining_memory, stream
from engine.run_log import JobResult, write_run
from engine.runner import Runner
from engine.stage import Stage, counts_of
from schemas import tables
from schemas.strict import fingerprint

PLAN_ROW_GROUP_ROWS = 4096
"""Rows per row group of the shard plan: its rows are wide, and each shard's writer reads a few hundred of them."""


class State(Enum):
    """How a job stands against the recipe."""

    DONE = "done"
    BEGUN = "begun"
    """Some parts are missing, or hold too many failures; the others are right."""
    OUTDATED = "outdated"
    """A table it reads has been computed anew."""
    NEW = "new"


@dataclass(frozen=True)
class Step:
    """One job of the pipeline, with what it takes to know whether it is done."""

    work: Stage | Reduce

    @property
    def job(self) -> str:
        """The job's name, which is also its section of the recipe."""
        return self.work.job

    @property
    def outputs(self) -> tuple[str, ...]:
        """The tables it writes; the last one marks a part as done."""
        return self.work.outputs if isinstance(self.work, Stage) else (self.work.output,)

    def record(self, dataset: Dataset) -> JobRecord:
        """What its tables must be recorded as to be up to date."""
        upstream = {}
        for table in self.work.inputs:
            made_by = dataset.record(table)
            upstream[table] = made_by.fingerprint if made_by else ""
        knobs = json.loads(json.dumps(dict(self.work.knobs)))
        return JobRecord(self.job, knobs, upstream, fingerprint([self.job, knobs, upstream]))

    def num_parts(self, dataset: Dataset) -> int:
        """Parts that its tables have when it is done; a reduce table is one part."""
        if isinstance(self.work, Reduce):
            return 1
        return num_shards(dataset) if self.work.parts_by == "shard_id" else dataset.num_parts()

    def missing(self, dataset: Dataset) -> list[int]:
        """Parts that are not committed yet."""
        if isinstance(self.work, Reduce):
            return [] if dataset.reduced(self.work.output).is_file() else [0]
        wanted = range(self.num_parts(dataset))
        present = set.intersection(*({path.name for path in dataset.parts(table)} for table in self.outputs))
        return [number for number in wanted if dataset.part(self.outputs[0], number).name not in present]


def open_parts(dataset: Dataset, step: Step) -> list[int]:
    """The parts of a job that has begun which it will compute: those missing, and those that are asked for again."""
    stage, missing = step.work, step.missing(dataset)
    if isinstance(stage, Stage) and has_too_many(dataset, stage):
        return sorted({*missing, *failed_parts(dataset, stage)})
    return missing


def num_shards(dataset: Dataset) -> int:
    """Shards that the plan has; 0 without a plan."""
    path = dataset.reduced("shard_plan")
    if not path.is_file():
        return 0
    last = last_value(path, "shard_id")  # the plan is sorted by it
    return 0 if last is None else int(last) + 1


def state_of(dataset: Dataset, step: Step, redo: bool = False) -> State:
    """Compare what made a job's tables with the recipe.

    Raises:
        ValueError: a knob of the job itself was changed, and `redo` does not allow it; the message names the knob.
    """
    made_by = dataset.record(step.outputs[-1])
    if made_by is None:
        return State.NEW
    wanted = step.record(dataset)
    if made_by.knobs != wanted.knobs:
        if not redo and _has_begun(dataset, step):
            raise ValueError(_changed_knob(dataset, step.job, made_by.knobs, wanted.knobs))
        return State.OUTDATED
    if made_by.upstream != wanted.upstream:
        return State.OUTDATED
    failed = isinstance(step.work, Stage) and has_too_many(dataset, step.work)
    return State.BEGUN if failed or step.missing(dataset) else State.DONE


def _has_begun(dataset: Dataset, step: Step) -> bool:
    """Whether anything was written by the knobs on record: a job that stopped before its first part, for want of
    weights say, may be told another way to run."""
    if isinstance(step.work, Reduce):
        return dataset.reduced(step.work.output).is_file()
    return any(dataset.parts(table) for table in step.outputs)


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


def run_step(
    dataset: Dataset,
    step: Step,
    runner: Runner,
    on_rows: Callable[[int], None],
    redo: bool = False,
    memory: str = "4GB",
) -> JobResult | None:
    """Bring a job's tables up to date.

    Args:
        redo: compute it although it is done, and although its knobs were changed.
        memory: limit of a reduce job, as DuckDB writes it.

    Returns:
        What was done, or None where the job was done already.

    Raises:
        ValueError: more rows failed than the job allows; its parts are committed.
    """
    state = state_of(dataset, step, redo)
    if state is State.DONE and not redo:
        return None
    return run_from(dataset, step, state, runner, on_rows, redo, memory)


def run_from(
    dataset: Dataset,
    step: Step,
    state: State,
    runner: Runner,
    on_rows: Callable[[int], None],
    redo: bool,
    memory: str,
) -> JobResult:
    """`run_step` from a state that the caller has asked for, and that leaves something to do."""
    begun = time.perf_counter()
    prepare(dataset, step, state, redo)
    if isinstance(step.work, Reduce):
        result = run_reduce(dataset, step.work, memory)
    else:
        result = _run_stage(dataset, step, step.work, runner, on_rows)
    result = JobResult(**{**vars(result), "seconds": round(time.perf_counter() - begun, 3)})
    write_run(dataset, result)
    if isinstance(step.work, Stage):
        check_failures(dataset, step.work, result.rows, result.reasons)
    return result


def prepare(dataset: Dataset, step: Step, state: State, redo: bool) -> None:
    """Put outdated tables aside and record what the new ones are made by, before the first part is written."""
    if state is State.BEGUN and not redo:
        if "samples" in step.outputs:
            forget_index(dataset)  # a shard that is written again need not hold what the index says
        if isinstance(step.work, Stage) and has_too_many(dataset, step.work):
            ask_again(dataset, step.work)
        return
    if isinstance(step.work, Stage):
        forget_failures(dataset, step.work)
    record = step.record(dataset)
    made_by = dataset.record(step.outputs[-1])
    if redo and made_by is not None and made_by.knobs == record.knobs:  # the user wants it computed all the same
        outdate_dependents(dataset, step.outputs)
        for table in step.outputs:
            discard(dataset, table)
    elif isinstance(step.work, Stage):
        for table in step.outputs:
            retire(dataset, table)
    else:
        dataset.reduced(step.work.output).unlink(missing_ok=True)
    for table in step.outputs:
        dataset.write_record(table, record)


def outdate_dependents(dataset: Dataset, outputs: Sequence[str]) -> None:
    """Mark every table that was made from these as outdated, on the disk, before they are computed anew.

    Their rows may come out other than before with the same knobs: originals change, and so do the answers of a server.
    """
    records = {table: record for table in dataset.recorded() if (record := dataset.record(table)) is not None}
    changed = set(outputs)
    while found := {table for table, record in records.items() if changed & set(record.upstream)} - changed:
        for table in found:
            dataset.write_record(table, replace(records[table], upstream={}))
        changed |= found


def discard(dataset: Dataset, table: str) -> None:
    """Delete a table, nothing of it to be taken over."""
    if tables.is_map_table(table):
        retire(dataset, table)
        forget_previous(dataset, table)
        forget_journals(dataset, table)
    else:
        dataset.reduced(table).unlink(missing_ok=True)


def drop_unasked(dataset: Dataset, step: Step) -> None:
    """Delete the tables that a job has written by other knobs and does not write by these, so that nothing reads what
    is never brought up to date. Call once the knobs were found to be allowed."""
    for table in step.work.drops if isinstance(step.work, Stage) else ():
        if dataset.record(table) is not None or dataset.parts(table):
            discard(dataset, table)
            dataset.record_path(table).unlink(missing_ok=True)


def _run_stage(dataset: Dataset, step: Step, stage: Stage, runner: Runner, on_rows: Callable[[int], None]) -> JobResult:
    missing = step.missing(dataset)
    counts = Counter[str]()

    def count(rows: int) -> None:
        counts.update(counts_of(rows))
        on_rows(rows)

    done = runner.run(dataset, stage, missing, count) if missing else []
    _drop_surplus(dataset, step)
    for table in stage.outputs:
        forget_previous(dataset, table)
        forget_journals(dataset, table)
    rows, reasons = _count_rows(dataset, stage.outputs[-1])
    computed = sum(part.computed for part in done)
    return JobResult(stage.job, stage.outputs, step.num_parts(dataset), computed, rows, reasons, counts=dict(counts))


def _drop_surplus(dataset: Dataset, step: Step) -> None:
    """Parts beyond the last: left by an earlier plan with more shards."""
    for table in step.outputs:
        for path in dataset.parts(table)[step.num_parts(dataset) :]:
            path.unlink()


def _count_rows(dataset: Dataset, table: str) -> tuple[int, dict[str, int]]:
    has_reason = "reason" in schema_of(table).names
    rows, reasons = 0, Counter[str]()
    for path in dataset.parts(table):
        rows += count_rows(path)
        if has_reason:
            reasons.update(read_parquet(path, ["reason"])["reason"].drop_null().to_pylist())
    return rows, dict(sorted(reasons.items()))


def run_reduce(dataset: Dataset, reduce: Reduce, memory: str) -> JobResult:
    """Compute a reduce table and commit it under the record that is there.

    Raises:
        ValueError: the memory does not suffice, or a table it reads is damaged.
    """
    record = dataset.record(reduce.output)
    assert record is not None
    path, schema = dataset.reduced(reduce.output), schema_of(reduce.output)
    group_rows = PLAN_ROW_GROUP_ROWS if reduce.output == "shard_plan" else ROW_GROUP_ROWS
    with catalog.connect(dataset, memory) as connection, explaining_memory(reduce.job, memory):
        try:
            batches = stream(connection, reduce.query(connection), group_rows)
            rows, reasons = commit_batches(path, batches, schema, {"sigma.made_by": record.fingerprint}, group_rows)
        except (duckdb.DataError, duckdb.IOException, duckdb.InvalidInputException) as error:
            why = str(error).splitlines()[0]
            raise ValueError(
                f"{reduce.job}: {why}; where a file is damaged, sigma doctor {dataset.root} names it"
            ) from None
    shutil.rmtree(dataset.root / ".duckdb-spill", ignore_errors=True)
    return JobResult(reduce.job, (reduce.output,), 1, 1, rows, reasons)
