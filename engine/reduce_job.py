"""A reduce job: SQL over all parts of its inputs, out of core, into a table in parts, as map jobs read it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, chain, count, pairwise
from pathlib import Path

from engine import catalog
from engine.ahead import ahead
from engine.counts import Counts, count_whole, counts_of, note, read_counts
from engine.dataset import Dataset, content_digest, row_group_rows, schema_of
from engine.duck import SPILLED, Connection, stream
from engine.job import Job
from engine.names import DIGITS, Held, PartName
from engine.run_log import JobResult
from schemas.columns import SHARDS_PER_PART, Cut, cut_of
from schemas.late import late
from schemas.seal import check_file, sealed_write
from schemas.strict import DUCKDB_MEMORY

with late(__name__):
    import duckdb
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

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
                paths = _commit(dataset, table, digest, cut_rows(self._batches(connection, held), held, table))
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


def cut_rows(batches: Iterable[pa.RecordBatch], held: Held, table: str) -> Iterator[pa.Table]:
    """The rows of each part of a table that is sorted by what it is cut by; at least one part."""
    schema, cut = schema_of(table), cut_of(table)
    ends: Iterator[int | None] = iter([None])
    if cut is Cut.LISTING:
        parts = read_counts("listing", held.paths("listing"))
        ends = iter([*accumulate(part.rows for part in parts[:-1]), None])
    elif cut is Cut.SHARDS:
        ends = (number * SHARDS_PER_PART for number in count(1))
    column = "shard_id" if cut is Cut.SHARDS else "row_id"
    waiting, end = schema.empty_table(), next(ends)
    for batch in batches:
        rows = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
        while end is not None and rows.num_rows and rows[column][-1].as_py() >= end:
            inside = pc.less(rows[column], end)
            yield pa.concat_tables([waiting, rows.filter(inside)])
            rows, waiting, end = rows.filter(pc.invert(inside)), schema.empty_table(), next(ends)
        waiting = pa.concat_tables([waiting, rows])
    yield waiting
    if cut is Cut.LISTING:
        while end is not None:  # the last parts of the listing have no row in the table
            yield schema.empty_table()
            end = next(ends)


def _commit(dataset: Dataset, table: str, digest: str, parts: Iterable[pa.Table]) -> list[Path]:
    """Commit parts, the first one last; their files. Of a plan the digests of its shards go on record before that."""
    numbered, shards = enumerate(parts), list[str]()
    first = next(numbered)

    def digested(part: tuple[int, pa.Table]) -> tuple[int, pa.Table]:
        if cut_of(table) is Cut.SHARDS:
            last = pc.max(part[1]["shard_id"]).as_py()
            shards.extend(shard_digests(part[1], range(len(shards), len(shards) if last is None else last + 1)))
        return part

    def commit(part: tuple[int, pa.Table]) -> Path:
        path = dataset.commit_part(table, part[0], digest, part[1])
        note(path, counts_of(table, part[1]))
        return path

    digested(first)
    # of a plan each part is large; of others more than eight at once would wait for Python's lock
    threads = 1 if dataset.store is None else 4 if cut_of(table) is Cut.SHARDS else 8
    paths = [*ahead(commit, map(digested, numbered), threads, threads + 1)]  # while the next one is made
    if cut_of(table) is Cut.SHARDS:
        record = dataset.record(table)
        assert record is not None
        if record.shards != shards:
            dataset.write_record(table, replace(record, shards=shards))
    return [commit(first), *paths]


def shard_digests(plan: pa.Table, shards: range) -> list[str]:
    """The digest of the rows that each shard has in a plan, of which this is a part, in order."""
    ends = np.searchsorted(plan["shard_id"].to_numpy(), [*shards, shards.stop]).tolist()
    return [content_digest(plan.slice(begin, end - begin))[:DIGITS] for begin, end in pairwise(ends)]


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


def commit_batches(
    path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema, metadata: Mapping[str, str], group_rows: int
) -> int:
    """Write rows as they come and give them a name once they are all there; never more than a row group is held. The
    bytes depend on the rows, the schema and the metadata only, not on how the rows are cut into batches. Returns the
    number of rows."""
    described = schema.with_metadata({key: metadata[key] for key in sorted(metadata)})
    num_rows = 0
    with (
        sealed_write(path) as file,
        pq.ParquetWriter(file, described, compression="zstd", write_page_checksum=True) as writer,
    ):
        for rows in _row_groups(batches, group_rows):
            table = rows.select(schema.names).cast(schema).replace_schema_metadata(described.metadata)
            writer.write_table(table, row_group_size=group_rows)
            num_rows += len(table)
        if not num_rows:
            writer.write_table(described.empty_table())  # a file without rows still holds its columns
    return num_rows


def _row_groups(batches: Iterable[pa.RecordBatch], group_rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `group_rows` rows, the last one shorter."""
    held: list[pa.RecordBatch] = []
    num_held = 0
    for batch in batches:
        while num_held + len(batch) >= group_rows:
            taken = group_rows - num_held
            yield pa.Table.from_batches([*held, batch.slice(0, taken)])
            held, num_held, batch = [], 0, batch.slice(taken)
        if len(batch):
            held.append(batch)
            num_held += len(batch)
    if held:
        yield pa.Table.from_batches(held)
