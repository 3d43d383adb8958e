"""A reduce job: SQL over all parts of its inputs, out of core, into a table in parts, as map jobs read it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from engine import catalog
from engine.ahead import ahead
from engine.counts import Counts, count_whole, read_counts
from engine.dataset import Dataset, row_group_rows
from engine.duck import SPILLED, Connection, stream
from engine.job import Job
from engine.names import Held, PartName
from engine.part_file import PartFile, part_files
from engine.run_log import JobResult
from schemas.columns import Cut, cut_of
from schemas.late import late
from schemas.seal import check_file
from schemas.strict import DUCKDB_MEMORY

with late(__name__):
    import duckdb
    import pyarrow as pa

    from engine.sorted_on_disk import sorted_on_disk


RUN_ROWS, COUNTED_ROWS = 1 << 17, 1 << 20
"""Rows of the listing that a SELECT `by_parts` is run over at a time: at most so many where its rows become the table,
so many where they are `added_up`, which are the fewer the more are counted together."""
RUN_BYTES = 1 << 27
"""Bytes in memory that one run is to give at most, as the run before it was: long captions make runs shorter."""


@dataclass(frozen=True, kw_only=True)
class ReduceJob(Job):
    """A reduce job as data. It writes one table, see `schemas.columns.cut_of`; each input is a view of that name,
    and the views of other tables are empty."""

    query: Callable[[Connection], str]
    """May create temporary tables; gives the SELECT whose rows become the table, in the order of its parts. Columns are
    cast to the contract."""
    by_parts: bool = False
    """Whether each row of the SELECT is made of one part of each input that is cut by the listing, so that it can be
    run over some parts at a time: what it joins fits in memory, however many rows there are. Statements before it are
    run each time too."""
    sorted_by: tuple[str, ...] = ()
    """Columns by which the rows of a SELECT `by_parts` are still to be sorted, see `sorted_on_disk`."""
    added_up: str | None = None
    """Where the SELECT `by_parts` counts what is in those parts: the SELECT over `counted`, its rows of all parts, that
    becomes the table."""

    def run(self, dataset: Dataset, memory: str = DUCKDB_MEMORY) -> JobResult:
        """Compute the table in this process, after `prepare`. `memory`: limit of DuckDB, as DuckDB writes it. Raises
        ValueError: the memory does not suffice, or a table it reads is missing or damaged."""
        held = dataset.held()
        num_parts, counts = self.compute(held, memory)
        self.delete_outdated(held)
        return JobResult(self.job, self.outputs, num_parts, num_parts, *counts)

    def compute(self, held: Held, memory: str) -> tuple[int, Counts]:
        """Compute the table and commit it under the record that is there; its parts, which then hold, and its counts.
        Part 0 is committed last, so that a table with a part 0 is whole. Raises ValueError: the memory does not
        suffice, or a table it reads is missing or damaged."""
        (table,), dataset = self.outputs, held.dataset
        if lacking := [name for name in self.inputs if not held.is_whole(name)]:
            raise ValueError(f"{self.job}: parts of {lacking[0]} are missing; run sigma build again")
        digest = self.expected(held)[0]
        assert digest is not None, "all inputs are whole"
        connecting = catalog.connect(dataset, memory, reads=self.inputs, check=check_file, held=held)
        with connecting as connection, explaining_memory(self.job, memory, dataset):
            try:
                paths = _commit(dataset, table, digest, part_files(self._batches(connection, held), held, table))
            except (duckdb.DataError, duckdb.IOException, duckdb.InvalidInputException) as error:
                why = str(error).splitlines()[0]
                raise ValueError(
                    f"{self.job}: {why}; where a file is damaged, sigma doctor {dataset.root} names it"
                ) from None
        catalog.sweep_spilled(dataset)
        for path in paths:
            held.add(table, PartName.of(path))
        return len(paths), count_whole(table, paths)

    def _batches(self, connection: Connection, held: Held) -> Iterator[pa.RecordBatch]:
        """The rows of the SELECT in the order of the table."""
        sql, size = self.query(connection), row_group_rows(self.outputs[0])
        if not self.by_parts:
            return stream(connection, sql, size)
        if self.added_up is not None:
            count_some_parts_at_a_time(connection, held, self.inputs, sql)
            return stream(connection, self.added_up, size)
        if not self.sorted_by:
            return chain.from_iterable(some_parts_at_a_time(connection, held, self.inputs, sql, size))
        ordered = f"{sql} ORDER BY {', '.join(self.sorted_by)}"
        runs = some_parts_at_a_time(connection, held, self.inputs, ordered, size)
        return sorted_on_disk(runs, held.dataset.root / SPILLED, self.sorted_by, size)


def some_parts_at_a_time(
    connection: Connection, held: Held, reads: Iterable[str], sql: str, batch_rows: int
) -> Iterator[Iterator[pa.RecordBatch]]:
    """The rows of a SELECT over some parts of the inputs, then over the next ones. At the end the connection is closed,
    which frees its temporary tables. `reads`: the inputs, as `catalog.connect` was given them."""
    connection.execute("SET preserve_insertion_order = true")
    most, num_bytes = RUN_ROWS // 8, 0

    def measured() -> Iterator[pa.RecordBatch]:
        nonlocal num_bytes
        for batch in stream(connection, sql, batch_rows):
            num_bytes += batch.nbytes
            yield batch

    parts = _Parts(connection, held, reads)
    while (num_rows := parts.show(most)) is not None:
        yield measured()
        most, num_bytes = min(RUN_ROWS, num_rows * RUN_BYTES // max(1, num_bytes)), 0
    connection.close()


def count_some_parts_at_a_time(connection: Connection, held: Held, reads: Iterable[str], sql: str) -> None:
    """Make the temporary table `counted` of the rows of a SELECT over some parts of the inputs, then over the next
    ones."""
    parts = _Parts(connection, held, reads)
    parts.show(COUNTED_ROWS)
    connection.execute(f"CREATE TEMPORARY TABLE counted AS {sql}")
    while parts.show(COUNTED_ROWS) is not None:
        connection.execute(f"INSERT INTO counted {sql}")


class _Parts:
    """The parts of the inputs, of which the views of a connection show some after others."""

    def __init__(self, connection: Connection, held: Held, reads: Iterable[str]) -> None:
        self._connection, self._held, self._reads = connection, held, reads
        counts = read_counts("listing", held.paths("listing"))
        self._waiting = deque(zip(held.parts("listing"), (part.rows for part in counts), strict=True))

    def show(self, most: int) -> int | None:
        """Show the next parts, of `most` rows of the listing or one part of more; how many rows these have. None, and
        nothing changes, where no part is left."""
        if not self._waiting:
            return None
        numbers, num_rows = list[int](), 0
        while self._waiting and (not numbers or num_rows + self._waiting[0][1] <= most):
            number, more = self._waiting.popleft()
            numbers.append(number)
            num_rows += more
        catalog.create_views(self._connection, self._held.only(numbers), self._reads, own=True)
        return num_rows


def _commit(dataset: Dataset, table: str, digest: str, parts: Iterable[PartFile]) -> list[Path]:
    """Commit parts, the first one last; their files. Of a plan the digests of its shards go on record before that."""
    waiting, shards = iter(parts), list[str]()
    first = next(waiting)

    def written() -> Iterator[PartFile]:
        for part in waiting:
            shards.extend(part.shards())
            yield part

    shards += first.shards()
    # of a plan each part is large; of others more than eight at once would wait for Python's lock
    threads = 1 if dataset.store is None else 4 if cut_of(table) is Cut.SHARDS else 8
    commit = partial(PartFile.commit, dataset=dataset, made_from=digest)
    paths = [*ahead(commit, written(), threads, threads + 1)]  # while the next one is made
    if cut_of(table) is Cut.SHARDS:
        record = dataset.record(table)
        assert record is not None
        if record.shards != shards:
            dataset.write_record(table, replace(record, shards=shards))
    return [commit(first), *paths]


class TooLittleMemory(ValueError):
    """DuckDB's memory does not suffice."""


@contextmanager
def explaining_memory(what: str, memory: str, dataset: Dataset) -> Iterator[None]:
    """Name the knob where DuckDB's memory does not suffice, and what to type. Raises TooLittleMemory: in place of
    `duckdb.OutOfMemoryException`."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        why = str(error).splitlines()[0].removeprefix("Out of Memory Error: ")
        raise TooLittleMemory(
            f"{what}: run.duckdb_memory={memory} does not suffice ({why}); "
            f"give it more: sigma build {dataset.recipe} run.duckdb_memory=8GB"
        ) from None
