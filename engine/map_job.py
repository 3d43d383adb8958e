"""A map job: part n of its inputs becomes part n of its outputs, same rows, same order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from engine.counts import counts_of, read_counts, total
from engine.dataset import Dataset, read_parquet, read_some
from engine.failed_rows import FailureLimit
from engine.job import Job, State
from engine.names import Held, PartName
from engine.paid import Paid, earlier_names, paid_folder, settle_all
from engine.run_log import JobResult
from engine.runner import Committed, PartJob, Progress, Task
from engine.streamed import WIDE, streamed
from schemas.columns import ROOTS, SHARDS_PER_PART, Cut, cut_of
from schemas.files import delete_files, remove_folder
from schemas.late import late

with late(__name__):
    import pyarrow as pa


class Worker(Protocol):
    """What a map job builds once per process (weights are loaded here) and then calls once per part."""

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:
        """Tables in, tables out, by name. A bad image is a row with a reason, never an exception. The pictures of
        `proxies` are gone through from the first to the last: see `engine.streamed`."""
        ...


class PayingWorker(Protocol):
    """The worker of a job that `pays` for its rows: it notes each row that costs money at once."""

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress, paid: Paid) -> Mapping[str, pa.Table]:
        """As `Worker`; `paid` holds what was paid for in this part before."""
        ...


class PartFiles(Protocol):
    """Files that a job writes besides its tables, such as tars: an outdated one gives what it holds to the new ones."""

    def release(self, dataset: Dataset, held: Held, names: Collection[PartName]) -> None:
        """Delete parts that are to be computed anew, once it is noted what can be copied from their files."""

    def are_waiting(self, dataset: Dataset) -> bool:
        """Whether files wait to be copied from."""

    def delete_outdated(self, held: Held) -> None:
        """Delete these files and those of parts that are no more, once the table is whole."""


@dataclass(frozen=True, kw_only=True)
class MapJob(Job, PartJob):
    """A map job as data. A worker gets part n of each input, of the shard plan the rows of shard n, and writes one row
    (or `rows_per_input`) per input row into each output."""

    build: Callable[[], Worker | PayingWorker]
    """Makes the worker; must be picklable (a `functools.partial` of a class and a recipe section)."""
    rows_per_input: int = 1
    pays: bool = False
    """Whether its rows cost money: the worker (a `PayingWorker`) notes each batch at once, so that a crash loses one
    batch at most, and what was paid for once is not computed again, whatever its parts are made from."""
    failures: FailureLimit | None = None
    """How many rows may end with a reason in place of a result; None is all. Changes no row."""
    drops: tuple[str, ...] = ()
    """Map tables that the job writes with other knobs only. A leftover one is deleted."""
    files: PartFiles | None = None
    """What keeps the files besides its tables; None where the job writes none."""

    def is_waited_for(self, held: Held) -> bool:
        unchecked = self.failures is not None and self.failures.is_unchecked(held, self.outputs[-1])
        files_wait = self.files is not None and self.files.are_waiting(held.dataset)
        return unchecked or files_wait or super().is_waited_for(held)

    def parts_to_compute(self, held: Held) -> list[int]:
        """The missing parts, and those whose failures are computed again."""
        again = self.failures.parts_to_retry(held, self.outputs[-1]) if self.failures else []
        return sorted({*self.missing(held), *(name.number for name in again)})

    def rows_of(self, held: Held, numbers: Collection[int]) -> int:
        """Input rows of some parts."""
        cut = cut_of(self.outputs[-1])
        if cut is Cut.SHARD:
            table, paths = self.inputs[0], held.paths(self.inputs[0]) if numbers else []
        else:
            table, paths = ROOTS[cut], [held.path(ROOTS[cut], number) for number in numbers]
        return total(read_counts(table, paths)).rows

    def delete(self, dataset: Dataset) -> None:
        if self.files is not None:
            held = dataset.held()
            self.files.release(dataset, held, held.listed(self.outputs[0]))
        super().delete(dataset)
        if self.pays:
            for table in self.outputs:
                remove_folder(paid_folder(dataset, table))

    def delete_unwanted(self, dataset: Dataset) -> None:
        for table in self.drops:
            remove_folder(dataset.folder(table))
            delete_files(dataset.record_path(table))

    def prepare(self, dataset: Dataset, state: State, redo: bool) -> None:
        table, goes_on = self.outputs[-1], state is State.BEGUN and not redo
        again = self.failures.parts_to_retry(dataset.held(), table) if self.failures and goes_on else []
        delete_files(*(dataset.folder(table) / name.file for name in again))
        super().prepare(dataset, state, redo)
        if self.failures is not None and (again or not goes_on):
            self.failures.begin(dataset, table)
        if self.files is not None:
            held = dataset.held()
            stay = held.holding(table)
            self.files.release(dataset, held, [name for name in held.listed(table) if stay.get(name.number) != name])

    def tasks(self, held: Held, numbers: Collection[int]) -> list[Task]:
        """Parts to compute, each with the files that it is computed from. Raises ValueError: one of these is
        missing."""
        source, task = self.source(held), self.task_maker(held)
        return [task(number, source(number)) for number in sorted(numbers)]

    def task_maker(self, held: Held) -> Callable[[int, str | None], Task]:
        """Give the function that makes the task of a part from its number and what it is made from; see `tasks`."""
        outdated: dict[int, list[str]] = {}
        for table in self.outputs:
            for name in held.listed(table):
                outdated.setdefault(name.number, []).append(f"{table}/{name.file}")
        paid = earlier_names(paid_folder(held.dataset, self.outputs[0])) if self.pays else {}

        def task(number: int, made_from: str | None) -> Task:
            source = number // SHARDS_PER_PART if cut_of(self.outputs[-1]) is Cut.SHARD else number
            inputs = {table: held.path(table, source).name for table in self.inputs}
            assert made_from is not None, "all inputs are there"
            return Task(number, made_from, inputs, tuple(outdated.get(number, ())), paid.get(number, ()))

        return task

    def delete_outdated(self, held: Held) -> None:
        super().delete_outdated(held)
        if self.pays:
            settle_all(held.dataset, self.outputs[0])
        if self.files is not None:
            self.files.delete_outdated(held)

    def check(self, dataset: Dataset, result: JobResult) -> None:
        if self.failures is not None:
            self.failures.check(dataset, self.outputs[-1], result.rows, result.reasons)

    def run_part(self, dataset: Dataset, worker: Callable[[], Any], task: Task, progress: Progress) -> Committed:
        """Compute and commit one part. See `engine.runner.PartJob`."""
        paths = {table: dataset.folder(table) / file for table, file in task.inputs.items()}
        paid = Paid.of(dataset, self.outputs[0], task.number, task.paid)
        with ExitStack() as opened:
            inputs: dict[str, Any] = {}
            for table, path in paths.items():
                if cut_of(self.outputs[-1]) is Cut.SHARD:
                    inputs[table] = read_some(path, "shard_id", [task.number])
                elif table in WIDE:
                    inputs[table] = opened.enter_context(streamed(path, WIDE[table]))
                else:
                    inputs[table] = read_parquet(path)
            outputs = worker()(inputs, progress, paid) if self.pays else worker()(inputs, progress)
            check_rows(self, inputs[self.inputs[0]], outputs)
        written = tuple(
            f"{table}/{dataset.commit_part(table, task.number, task.made_from, outputs[table]).name}"
            for table in self.outputs
        )
        delete_files(*(dataset.tables / file for file in task.replaces if file not in written))
        if self.pays:
            paid.settle()
        return Committed(written, *counts_of(self.outputs[-1], outputs[self.outputs[-1]]))


@contextmanager
def naming(image: str) -> Iterator[None]:
    """Make an error inside name the image it happened on; the runner shows it."""
    try:
        yield
    except Exception as error:
        error.add_note(f"image: {image}")
        raise


def check_rows(job: MapJob, rows: pa.Table, outputs: Mapping[str, pa.Table]) -> None:
    """Refuse a worker that adds, drops or reorders a row. Raises RuntimeError: it did; this is a defect of the worker,
    not of the data."""
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
