"""DuckDB for the tables of a dataset: how one is started, its types, and how values are written into SQL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from engine.dataset import Dataset
from schemas.files import at_hand, make_folder
from schemas.late import late

with late(__name__):
    import duckdb
    import pyarrow as pa

Connection: TypeAlias = "duckdb.DuckDBPyConnection"
Row = dict[str, Any]

SPILLED = ".duckdb-spill"
"""Folder in a dataset of what queries do not hold in memory."""

_AS_IS = "hive_partitioning=false"
"""A folder named `width=7` above a dataset is no column of its tables."""

_EXPLAIN = re.compile(r"^\s*EXPLAIN\s+(ANALYZE\s+)?", re.IGNORECASE)

_DUCKDB_TYPES = {
    "string": "VARCHAR",
    "binary": "BLOB",
    "bool": "BOOLEAN",
    "int8": "TINYINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint64": "UBIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "list<item: string>": "VARCHAR[]",
    "list<element: string>": "VARCHAR[]",
    "list<item: float>": "FLOAT[]",
    "list<item: int32>": "INTEGER[]",
    "map<string, float>": "MAP(VARCHAR, FLOAT)",
    "map<string, string>": "MAP(VARCHAR, VARCHAR)",
    "list<item: halffloat>": "FLOAT[]",  # DuckDB reads 16 bits as 32
}


def start(dataset: Dataset, memory: str, threads: int | None = None) -> Connection:
    """A DuckDB in memory that spills into the dataset folder. It keeps nothing of a file, which may be replaced, and
    memory that it no longer uses goes back to the system."""
    config: dict[str, Any] = {"memory_limit": memory, "allocator_background_threads": True}
    connection = duckdb.connect(config=config | ({"threads": threads} if threads else {}))
    spill_into(connection, dataset)
    connection.execute("SET enable_external_file_cache = false")
    return connection


def spill_into(connection: Connection, dataset: Dataset) -> bool:
    """Let queries spill into the folder of a dataset; one that has spilled keeps its folder, and it is False."""
    if dataset.store is not None:
        make_folder(dataset.root)  # for what it spills
    try:
        connection.execute(f"SET temp_directory = {literal(str(dataset.root / SPILLED))}")
    except duckdb.NotImplementedException:
        return False
    return True


def rows(
    connection: Connection, sql: str, parameters: Mapping[str, Any] | None = None, limit: int | None = None
) -> list[Row]:
    """The rows of a query as dicts by column name, at most `limit` of them."""
    result = connection.execute(sql, dict(parameters or {}))
    names = [column[0] for column in result.description or ()]
    found = result.fetchall() if limit is None else result.fetchmany(limit)
    return [dict(zip(names, row, strict=True)) for row in found]


def query(connection: Connection, sql: str) -> Connection:
    """Run one SELECT of a user. Raises ValueError: it is not one statement that only reads, or DuckDB refuses it."""
    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1:
            raise ValueError(f"one statement at a time, this has {len(statements)}")
        if statements[0].type == duckdb.StatementType.EXPLAIN:  # EXPLAIN ANALYZE runs what it explains
            statements += connection.extract_statements(_EXPLAIN.sub("", sql, count=1))
        if statements[-1].type != duckdb.StatementType.SELECT:
            kind = str(statements[-1].type).rsplit(".", 1)[-1]
            raise ValueError(f"a dataset is read-only here: SELECT (or FROM, DESCRIBE, EXPLAIN) works, {kind} does not")
        return connection.execute(statements[0])
    except duckdb.Error as error:
        raise ValueError(" ".join(str(error).split())) from None


def stream(connection: Connection, sql: str, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a SELECT, a batch at a time. Raises duckdb.Error: as any query does; what comes through Arrow as
    another error is given its class back."""
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


@contextmanager
def explaining_tables() -> Iterator[None]:
    """Say what to do about a table that DuckDB cannot read, in a ValueError in place of its error."""
    try:
        yield
    except duckdb.Error as error:  # of C++ it passes on what has no class of its own, such as a damaged footer
        if type(error) not in (duckdb.Error, duckdb.InvalidInputException, duckdb.IOException):
            raise
        raise ValueError(f"{str(error).splitlines()[0]}; sigma doctor names what is damaged") from None


def duckdb_type(arrow: pa.DataType) -> str:
    """The DuckDB name of an Arrow type that the tables use."""
    return _DUCKDB_TYPES[str(arrow)]


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def glob_safe(path: Path) -> str:
    """A path in which no character means a pattern to DuckDB."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in str(path))


def in_list(numbers: Iterable[int]) -> str:
    """Numbers to write after IN, each once: as literals, because DuckDB skips row groups by them."""
    return f"({', '.join(str(int(number)) for number in dict.fromkeys(numbers))})"


def read_parts(paths: Iterable[Path]) -> str:
    """What to write after FROM for some parts of a table."""
    return read_files(map(at_hand, paths))


def read_files(paths: Iterable[Path]) -> str:
    """The same for files that are on the disk of this machine."""
    return f"read_parquet([{', '.join(literal(glob_safe(path)) for path in paths)}], {_AS_IS})"
