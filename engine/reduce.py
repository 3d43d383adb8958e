"""A reduce job: SQL over all parts of its inputs, out of core, into one table sorted by row_id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.commit import atomic_write

Connection = duckdb.DuckDBPyConnection


@dataclass(frozen=True)
class Reduce:
    """A reduce job as data."""

    job: str
    """A verb of `schemas.recipe.JOBS`."""
    output: str
    """The reduce table it writes."""
    inputs: tuple[str, ...]
    """Tables it reads; each is a view of that name on the connection."""
    query: Callable[[Connection], str]
    """May create temporary tables; gives the SELECT whose rows become the table. Columns are cast to the contract."""
    knobs: Mapping[str, Any]
    """The part of the recipe it depends on, keyed by dotted path."""
    needs: tuple[Callable[[], object], ...] = ()
    """As `engine.stage.Stage.needs`."""


@contextmanager
def explaining_memory(job: str, memory: str) -> Iterator[None]:
    """Name the knob where DuckDB's memory does not suffice.

    Raises:
        ValueError: in place of `duckdb.OutOfMemoryException`.
    """
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"{job}: run.duckdb_memory={memory} does not suffice ({why})") from None


def stream(connection: Connection, sql: str, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a SELECT, a batch at a time.

    Raises:
        duckdb.Error: as any query does; what comes through Arrow as another error is given its class back.
    """
    reader = connection.sql(sql).to_arrow_reader(batch_rows)
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowException) as error:
            kind = duckdb.OutOfMemoryException if "Out of Memory" in str(error) else duckdb.IOException
            raise kind(str(error)) from None
        yield batch


def commit_batches(
    path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema, metadata: Mapping[str, str], group_rows: int
) -> tuple[int, dict[str, int]]:
    """Write rows as they come and give them a name once they are all there; never more than a row group is held.

    The bytes depend on the rows, the schema and the metadata only, not on how the rows are cut into batches.

    Returns:
        The number of rows, and how many there are of each `rejected_by`, where there is such a column.
    """
    described = schema.with_metadata({key: metadata[key] for key in sorted(metadata)})
    num_rows, reasons = 0, Counter[str]()
    with (
        atomic_write(path) as file,
        pq.ParquetWriter(file, described, compression="zstd", write_page_checksum=True) as writer,
    ):
        for rows in _row_groups(batches, group_rows):
            table = rows.select(schema.names).cast(schema).replace_schema_metadata(described.metadata)
            writer.write_table(table, row_group_size=group_rows)
            num_rows += len(table)
            if "rejected_by" in schema.names:
                reasons.update(_counts(table["rejected_by"].drop_null()))
        if not num_rows:
            writer.write_table(described.empty_table())  # a file without rows still holds its columns
    return num_rows, dict(sorted(reasons.items()))


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


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {each["values"]: each["counts"] for each in pc.value_counts(column).to_pylist()}
