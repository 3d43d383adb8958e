"""Writes the rows of a query as CSV, JSON or Parquet, whole and a batch at a time."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.duck import Connection

FORMATS = {"csv": "text/csv; charset=utf-8", "json": "application/json", "parquet": "application/vnd.apache.parquet"}
"""Format -> its media type."""

BATCH_ROWS = 10_000
"""Rows in memory at once."""


def exported(result: Connection, form: str) -> Iterator[bytes]:
    """The rows of a query that has run, in one of `FORMATS`. CSV and JSON write bytes in base64, and lists and structs
    in CSV as JSON. JSON is one array of objects; it has no word for NaN and infinity, which are null there. A name that
    two columns have gets a number in its second place."""
    if form == "parquet":
        return _parquet(result)
    names = distinct([column[0] for column in result.description or []])
    rows = iter(lambda: result.fetchmany(BATCH_ROWS), [])
    return encoded(names, rows, form)


def encoded(names: Sequence[str], batches: Iterable[Sequence[tuple[Any, ...]]], form: str) -> Iterator[bytes]:
    texts = _csv(names, batches) if form == "csv" else _json(names, batches)
    return (text.encode("utf-8", errors="replace") for text in texts)


def distinct(names: Sequence[str]) -> list[str]:
    """The names of columns, each once: a second `row_id` is `row_id_2`."""
    found: dict[str, None] = {}
    for name in names:
        number, free = 2, name
        while free in found:
            free, number = f"{name}_{number}", number + 1
        found[free] = None
    return list(found)


def _csv(names: Sequence[str], batches: Iterable[Sequence[tuple[Any, ...]]]) -> Iterator[str]:
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(names)
    yield file.getvalue()
    for batch in batches:
        file.seek(0)
        file.truncate()
        lines.writerows([_cell(value) for value in row] for row in batch)
        yield file.getvalue()


def _cell(value: Any) -> Any:
    """A value for CSV: numbers with every digit, true and false, lists and structs as JSON. A text stays as it is,
    also one that a spreadsheet takes for a formula: programs read it back."""
    if isinstance(value, list | tuple | dict | bool):
        return json.dumps(_plain(value), ensure_ascii=False)
    return _plain(value) if isinstance(value, bytes) else value


def _json(names: Sequence[str], batches: Iterable[Sequence[tuple[Any, ...]]]) -> Iterator[str]:
    before = "["
    for batch in batches:
        for row in batch:
            yield before + "\n" + json.dumps(_plain(dict(zip(names, row, strict=True))), ensure_ascii=False)
            before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def _plain(value: Any) -> Any:
    """A value of DuckDB in the types of JSON."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


class _Chunks:
    """A file that keeps what was written until it is taken."""

    closed = False

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._written.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is held."""

    def take(self) -> bytes:
        """What was written since the last call."""
        written, self._written = b"".join(self._written), []
        return written


def _parquet(result: Connection) -> Iterator[bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a result has been computed already is meant so
        reader: Any = result.to_arrow_reader(BATCH_ROWS)
    fields = zip(distinct(reader.schema.names), reader.schema, strict=True)
    schema, file = pa.schema([field.with_name(name) for name, field in fields]), _Chunks()
    with pq.ParquetWriter(pa.PythonFile(file, mode="w"), schema) as writer:
        for batch in reader:
            writer.write_table(pa.Table.from_arrays(batch.columns, schema=schema))
            yield file.take()
    yield file.take()
