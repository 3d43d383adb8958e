"""A reduce job: SQL over all parts of its inputs, out of core, into one table sorted by row_id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine import catalog
from engine.dataset import ROW_GROUP_ROWS, Dataset, schema_of
from engine.job import Job
from engine.run_log import JobResult
from engine.runner import Progress, Runner
from schemas.seal import check_file, sealed_write

Connection = duckdb.DuckDBPyConnection


@dataclass(frozen=True, kw_only=True)
class ReduceJob(Job):
    """A reduce job as data. It writes one table, which is one part; each input is a view of that name, and
    the views of other tables are empty."""

    query: Callable[[Connection], str]
    """May create temporary tables; gives the SELECT whose rows become the table. Columns are cast to the contract."""
    row_group_rows: int = ROW_GROUP_ROWS
    """Rows per row group of the table: fewer where its rows are wide, or a few of them are read at a time."""

    def num_parts(self, dataset: Dataset) -> int:
        return 1

    def missing(self, dataset: Dataset) -> list[int]:
        return [] if dataset.has_rows(self.outputs[0]) else [0]

    def set_aside(self, dataset: Dataset) -> None:
        """Delete the table: it is computed as a whole, and nothing of it can be taken back."""
        dataset.reduced(self.outputs[0]).unlink(missing_ok=True)

    def delete(self, dataset: Dataset) -> None:
        self.set_aside(dataset)

    def run(self, dataset: Dataset, runner: Callable[[], Runner], progress: Progress, memory: str = "4GB") -> JobResult:
        """See `Job.run`; the table is computed in this process."""
        rows, reasons = self.compute(dataset, memory)
        return JobResult(self.job, self.outputs, 1, 1, rows, reasons)

    def compute(self, dataset: Dataset, memory: str) -> tuple[int, dict[str, int]]:
        """Compute the table and commit it under the record that is there; the number of rows, and rows by reason.

        Raises:
            ValueError: the memory does not suffice, or a table it reads is damaged.
        """
        (table,) = self.outputs
        record = dataset.record(table)
        assert record is not None
        metadata = {"sigma.made_by": record.fingerprint}
        connecting = catalog.connect(dataset, memory, reads=self.inputs, check=check_file)
        with connecting as connection, explaining_memory(self.job, memory):
            try:
                batches = stream(connection, self.query(connection), self.row_group_rows)
                counted = commit_batches(
                    dataset.reduced(table), batches, schema_of(table), metadata, self.row_group_rows
                )
            except (duckdb.DataError, duckdb.IOException, duckdb.InvalidInputException) as error:
                why = str(error).splitlines()[0]
                raise ValueError(
                    f"{self.job}: {why}; where a file is damaged, sigma doctor {dataset.root} names it"
                ) from None
        catalog.sweep_spilled(dataset)
        return counted


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
        sealed_write(path) as file,
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
