"""A map job: part n of its inputs becomes part n of its outputs, same rows, same order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from engine.dataset import (
    CONTENT_KEY,
    DIGEST_KEY,
    Dataset,
    commit_table,
    content_digest,
    count_rows,
    delete_set_aside,
    digest_of,
    forget_inputs,
    read_parquet,
    schema_of,
    set_aside,
)
from engine.failed_rows import FailureLimit
from engine.job import Job, State
from engine.journal import Journal, delete_journals
from engine.part_files import PartFiles
from engine.run_log import JobResult
from engine.runner import Progress, Runner
from schemas import tables
from schemas.strict import fingerprint


class Worker(Protocol):
    """What a map job builds once per process (weights are loaded here) and then calls once per part."""

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:
        """Tables in, tables out, by name. A bad image is a row with a reason, never an exception."""
        ...


class PayingWorker(Protocol):
    """The worker of a job that `reuses` rows: it writes each row that costs money into the journal at once."""

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress, journal: Journal) -> Mapping[str, pa.Table]:
        """As `Worker`; `journal` holds what this part has paid for before it was interrupted."""
        ...


@dataclass(frozen=True, kw_only=True)
class MapJob(Job):
    """A map job as data. Of a map table among its inputs a worker gets part n; of a reduce table the rows whose row_id
    belongs to that part. It writes one row (or `rows_per_input`) per input row into each of its outputs."""

    build: Callable[[], Worker | PayingWorker]
    """Makes the worker; must be picklable (a `functools.partial` of a class and a recipe section)."""
    rows_per_input: int = 1
    parts_by: str = "row_id"
    """How the first input is cut: 'row_id' by the parts of a map table, or the column of a reduce table whose value n
    makes part n ('shard_id')."""
    reuses: bool = False
    """For a job whose rows cost money: the worker (a `PayingWorker`) also gets the rows of earlier runs as
    `<table>.previous`, and saves each batch to a journal at once, so that a crash loses one batch at most. The job has
    one table; where that has a `reason` column, rows without a reason outlive a rule that drops them."""
    failures: FailureLimit | None = None
    """How many rows may end with a reason in place of a result; None is all. Changes no row."""
    workers: int | None = None
    """Workers at once; None is as many as the runner has for any job. Changes no row, as `num_gpus`."""
    num_gpus: float | None = 0
    """GPUs that each worker holds for itself, a part of one where it is under 1; None takes one where there are any
    and none where there are none."""
    drops: tuple[str, ...] = ()
    """Map tables that the job writes with other knobs only. A leftover one is deleted."""
    files: PartFiles | None = None
    """What keeps the files besides its tables; None where the job writes none."""

    def num_parts(self, dataset: Dataset) -> int:
        if self.parts_by == "row_id":
            return dataset.num_parts()
        return dataset.num_values(self.inputs[0], self.parts_by)

    def missing(self, dataset: Dataset) -> list[int]:
        present = set.intersection(*({path.name for path in dataset.parts(table)} for table in self.outputs))
        wanted = range(self.num_parts(dataset))
        return [number for number in wanted if dataset.part(self.outputs[0], number).name not in present]

    def is_waited_for(self, dataset: Dataset) -> bool:
        if self.failures is not None and self.failures.is_unchecked(dataset, self.outputs[-1]):
            return True
        files_wait = self.files is not None and self.files.are_waiting(dataset)
        return files_wait or any(dataset.previous(table).is_dir() for table in self.outputs)

    def parts_to_compute(self, dataset: Dataset) -> list[int]:
        """The missing parts, and those whose failures are computed again."""
        again = self.failures.parts_to_retry(dataset, self.outputs[-1]) if self.failures else []
        return sorted({*self.missing(dataset), *again})

    def rows_to_compute(self, dataset: Dataset, state: State, redo: bool) -> int:
        if self.parts_by != "row_id":
            return count_rows(dataset.reduced(self.inputs[0]))
        some = state is State.BEGUN and not redo
        numbers = self.parts_to_compute(dataset) if some else range(dataset.num_parts())
        return sum(count_rows(dataset.part("listing", number)) for number in numbers)

    def set_aside(self, dataset: Dataset) -> None:
        """Put the outdated tables where `take_back` finds them, part by part.

        Files go with the rows that name them. Their index, which would point to files that have moved, goes first, and
        the rows go before their files: no row is left without one.
        """
        if self.failures is not None:
            self.failures.begin(dataset, self.outputs[-1])
        if self.files is not None:
            self.files.delete_index(dataset)
        for table in self.outputs:
            for path in dataset.parts(table):
                if self.files is not None and not self.files.has_room(dataset, path):
                    path.unlink()
            set_aside(dataset, table)
        if self.files is not None:
            self.files.set_aside(dataset)

    def _delete_set_aside(self, dataset: Dataset) -> None:
        for table in self.outputs:
            delete_set_aside(dataset, table)
        if self.files is not None:
            self.files.delete_set_aside(dataset)

    def delete(self, dataset: Dataset) -> None:
        self.set_aside(dataset)
        if self.files is None:
            self._delete_set_aside(dataset)
        for table in self.outputs:
            forget_inputs(dataset, table)  # of those whose files are still copied from
            delete_journals(dataset, table)

    def delete_unwanted(self, dataset: Dataset) -> None:
        for table in self.drops:
            if dataset.record(table) is not None or dataset.parts(table):
                set_aside(dataset, table)
                delete_set_aside(dataset, table)
                dataset.record_path(table).unlink(missing_ok=True)

    def prepare(self, dataset: Dataset, state: State, redo: bool) -> None:
        if state is State.BEGUN and not redo:
            if self.files is not None:
                self.files.delete_index(dataset)  # a file that is written again need not hold what the index says
            if self.failures is not None:
                self.failures.retry(dataset, self.outputs[-1])
        super().prepare(dataset, state, redo)

    def run(self, dataset: Dataset, runner: Callable[[], Runner], progress: Progress, memory: str = "4GB") -> JobResult:
        """See `Job.run`; a part that is missing is computed, or taken back unchanged."""
        counts = Counter[str]()

        def count(rows: int, counted: Mapping[str, float] = {}) -> None:
            counts.update(counted)
            progress(rows, counted)

        missing, num_parts = self.missing(dataset), self.num_parts(dataset)
        if missing and self.files is not None:
            self.files.prepare(dataset)
        done = runner().run(dataset, self, missing, count) if missing else []
        for output in self.outputs:
            for path in dataset.parts(output)[num_parts:]:  # left by an earlier plan with more shards
                path.unlink()
            delete_journals(dataset, output)
        self._delete_set_aside(dataset)
        rows, reasons = _count_rows(dataset, self.outputs[-1])
        computed = sum(part.computed for part in done)
        return JobResult(self.job, self.outputs, num_parts, computed, rows, reasons, counts=dict(counts))

    def check(self, dataset: Dataset, result: JobResult) -> None:
        if self.failures is not None:
            self.failures.check(dataset, self.outputs[-1], result.rows, result.reasons)

    def run_part(self, dataset: Dataset, worker: Callable[[], Any], number: int, progress: Progress) -> bool:
        """Compute and commit one part, unless an outdated version of it was computed from the very same inputs.

        Args:
            worker: gives the worker, and is only called when there is something to compute.

        Returns:
            True where it was computed, False where the old part was taken back.
        """
        ranges = self._read_ranges(dataset, number)
        digest = self._digest(dataset, number, ranges)
        if self._take_back(dataset, number, digest):
            progress(count_rows(dataset.part(self.outputs[-1], number)) // self.rows_per_input)
            return False
        inputs = ranges | {table: dataset.read_part(table, number) for table in self.inputs if table not in ranges}
        if self.reuses:
            outputs = self._compute_on(dataset, worker(), number, inputs, progress)
        else:
            outputs = worker()(inputs, progress)
            check_rows(self, inputs[self.inputs[0]], outputs)
        for table in self.outputs:
            content = content_digest(as_stored(table, outputs[table]))
            metadata = {DIGEST_KEY.decode(): digest, CONTENT_KEY.decode(): content}
            commit_table(dataset.part(table, number), outputs[table], schema_of(table), metadata)
        if self.reuses:
            Journal.of(dataset, self.outputs[0], number).delete()
        return True

    def input_digest(self, dataset: Dataset, number: int) -> str:
        """The digest that names everything a part depends on. Of map tables only footers are read."""
        return self._digest(dataset, number, self._read_ranges(dataset, number))

    def _read_ranges(self, dataset: Dataset, number: int) -> dict[str, pa.Table]:
        """The rows of reduce tables that belong to a part."""
        reduced = [table for table in self.inputs if self.parts_by != "row_id" or not tables.is_map_table(table)]
        first = last = number
        if reduced and self.parts_by == "row_id":
            row_ids = dataset.read_part(self.inputs[0], number, ["row_id"])["row_id"]
            first, last = row_ids[0].as_py(), row_ids[-1].as_py()
        return {table: dataset.read_range(table, self.parts_by, first, last) for table in reduced}

    def _digest(self, dataset: Dataset, number: int, ranges: Mapping[str, pa.Table]) -> str:
        contents = {}
        for table in self.inputs:
            if table in ranges:
                contents[table] = content_digest(ranges[table])
            else:
                contents[table] = digest_of(dataset.part(table, number), CONTENT_KEY) or ""
        return digest_of_inputs(self.job, self.knobs, contents)

    def _take_back(self, dataset: Dataset, number: int, digest: str) -> bool:
        """Move the outdated part back into place where it was computed from the same inputs."""
        old = [dataset.previous(table) / dataset.part(table, number).name for table in self.outputs]
        if not all(path.is_file() and digest_of(path) == digest for path in old):
            return False
        if self.files is not None and not self.files.take_back(dataset, old[-1]):
            return False
        for table, path in zip(self.outputs, old, strict=True):
            target = dataset.part(table, number)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        return True

    def _compute_on(
        self, dataset: Dataset, worker: PayingWorker, number: int, inputs: dict[str, pa.Table], progress: Progress
    ) -> Mapping[str, pa.Table]:
        """Compute a part of which some rows may have been paid for already; none of them is lost."""
        (table,) = self.outputs
        journal = Journal.of(dataset, table, number)
        paid = read_paid(dataset, table, number)
        if paid is not None:
            inputs[f"{table}.previous"] = paid
        outputs = worker(inputs, progress, journal)
        check_rows(self, inputs[self.inputs[0]], outputs)
        if "reason" in schema_of(table).names:
            noted = journal.rows()
            rows = noted if paid is None else pa.concat_tables([paid, noted])
            keep_paid(dataset, table, number, rows, outputs[table])
        return outputs


@contextmanager
def naming(image: str) -> Iterator[None]:
    """Make an error inside name the image it happened on; the runner shows it."""
    try:
        yield
    except Exception as error:
        error.add_note(f"image: {image}")
        raise


def digest_of_inputs(job: str, knobs: Mapping[str, Any], contents: Mapping[str, str]) -> str:
    """The digest of a part: its job with its knobs, and the content digest of each input, in the job's order."""
    return fingerprint([job, dict(knobs), dict(contents)])


def _count_rows(dataset: Dataset, table: str) -> tuple[int, dict[str, int]]:
    has_reason = "reason" in schema_of(table).names
    rows, reasons = 0, Counter[str]()
    for path in dataset.parts(table):
        rows += count_rows(path)
        if has_reason:
            reasons.update(read_parquet(path, ["reason"])["reason"].drop_null().to_pylist())
    return rows, dict(sorted(reasons.items()))


def read_paid(dataset: Dataset, table: str, number: int) -> pa.Table | None:
    """The rows that earlier versions of a part have paid for: its outdated version, and those a rule dropped since."""
    paths = (dataset.previous(table) / dataset.part(table, number).name, dataset.paid(table, number))
    found = [read_parquet(path).replace_schema_metadata(None) for path in paths if path.is_file()]
    # of a table that was written before a column was added, that column is null
    return pa.concat_tables([schema_of(table).empty_table(), *found], promote_options="default") if found else None


def keep_paid(dataset: Dataset, table: str, number: int, paid: pa.Table, output: pa.Table) -> None:
    """Save the paid rows that a new version of a part no longer holds: loosening the rule that dropped them costs
    nothing then."""
    held = pa.array(output.filter(output["reason"].is_null())["row_id"])
    dropped = paid.filter(pc.and_(paid["reason"].is_null(), pc.invert(pc.is_in(paid["row_id"], value_set=held))))
    if dropped.num_rows:
        commit_table(dataset.paid(table, number), dropped, schema_of(table), {})
    else:
        dataset.paid(table, number).unlink(missing_ok=True)


def check_rows(job: MapJob, rows: pa.Table, outputs: Mapping[str, pa.Table]) -> None:
    """Refuse a worker that adds, drops or reorders a row.

    Raises:
        RuntimeError: it did; this is a defect of the worker, not of the data.
    """
    expected = [row for row in rows["row_id"].to_pylist() for _ in range(job.rows_per_input)]
    if set(outputs) != set(job.outputs):
        raise RuntimeError(f"{job.job}: wrote {sorted(outputs)}, declared {sorted(job.outputs)}")
    for table, output in outputs.items():
        found = output["row_id"].to_pylist()
        if found != expected:
            raise RuntimeError(
                f"{job.job}: {table} must hold the rows of {job.inputs[0]} in their order; "
                f"it has {len(found)} rows where {len(expected)} belong" + _first_difference(found, expected)
            )


def _first_difference(found: list[int], expected: list[int]) -> str:
    for position, (have, want) in enumerate(zip(found, expected, strict=False)):
        if have != want:
            return f", and at position {position} row {have} where row {want} belongs"
    return ""


def as_stored(table: str, rows: pa.Table) -> pa.Table:
    """Rows in the types of the table's contract: a list that was read back names its items otherwise."""
    return rows.select(schema_of(table).names).cast(schema_of(table))
