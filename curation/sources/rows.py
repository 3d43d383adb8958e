"""One cell of a Parquet or Arrow file, read so that neighbouring rows cost no more than reading the file once."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources.storage import explain, filesystem, read_file, remote_errors
from engine.damage import damage
from schemas.files import refuse_special
from schemas.locations import is_remote
from schemas.lru import Lru

ROWS_PER_BATCH = 16
"""Rows decoded at once; an image is some megabytes."""
BATCHES_KEPT = 4
"""Threads of a worker ask for rows slightly out of order."""
OPEN_TABLES = 4
BUFFER_BYTES = 1 << 20


class _ParquetCells:
    """Cells of one column, decoded forwards in small batches of a row group."""

    def __init__(self, path: str, column: str) -> None:
        self._file = pq.ParquetFile(open_table(path), buffer_size=BUFFER_BYTES, pre_buffer=False)
        self._column = column
        sizes = [self._file.metadata.row_group(number).num_rows for number in range(self._file.num_row_groups)]
        self._ends = list(accumulate(sizes))
        self._batches: deque[tuple[int, pa.Array]] = deque(maxlen=BATCHES_KEPT)
        self._next, self._group = 0, -1
        self._iterator: Iterator[pa.RecordBatch] = iter(())

    def get(self, row: int) -> Any:
        if not 0 <= row < (self._ends[-1] if self._ends else 0):
            raise OSError(f"the table has no row {row}")
        group = bisect_right(self._ends, row)
        if group != self._group or not self._batches or row < self._batches[0][0]:
            self._group, self._next = group, self._ends[group - 1] if group else 0
            self._batches.clear()
            self._iterator = self._file.iter_batches(ROWS_PER_BATCH, row_groups=[group], columns=[self._column])
        while row >= self._next:
            values = next(self._iterator).column(0)
            self._batches.append((self._next, values))
            self._next += len(values)
        return next(
            values[row - first].as_py() for first, values in self._batches if first <= row < first + len(values)
        )


class _ArrowCells:
    """Cells of one column of an Arrow stream or file; a local one is mapped, not read."""

    def __init__(self, path: str, column: str) -> None:
        self._values: pa.ChunkedArray = read_arrow(path)[column]

    def get(self, row: int) -> Any:
        if not 0 <= row < len(self._values):
            raise OSError(f"the table has no row {row}")
        return self._values[row].as_py()


_Cells = _ParquetCells | _ArrowCells
_open_tables: Lru[tuple[str | int, ...], tuple[threading.Lock, _Cells]] = Lru(OPEN_TABLES)


def is_table(path: str) -> bool:
    """Whether the name of a file is that of a table with bytes in its rows."""
    return path.lower().endswith((".parquet", ".arrow"))


def read_cell(path: str, row: int, column: str, most_bytes: int | None = None) -> bytes:
    """The bytes in one cell; none where it is null. A {bytes, path} without bytes is the local file that it names.
    Raises OSError: the file is gone, damaged or another than it was, or the file that it names has more than
    `most_bytes`."""
    try:
        lock, cells = _cells(path, column)
        with lock:
            value = cells.get(row)
    except damage() + remote_errors() + (KeyError,) as error:
        if is_remote(path) and isinstance(error, remote_errors()):
            raise explain(error) from None
        raise OSError(
            getattr(error, "errno", None) or 5, f"row {row} cannot be read ({type(error).__name__})"
        ) from None
    if isinstance(value, dict):
        if value.get("bytes") is None and value.get("path") and not is_remote(path):
            return read_file(str(Path(path).parent / value["path"]), most_bytes)
        value = value.get("bytes")
    return bytes(value) if value is not None else b""


def _cells(path: str, column: str) -> tuple[threading.Lock, _Cells]:
    """A file that the process keeps open, and its lock; a file that was replaced is opened anew."""
    now = None if is_remote(path) else Path(path).stat()
    key = (path, column) if now is None else (path, column, now.st_ino, now.st_size, now.st_mtime_ns)
    kind = _ArrowCells if path.lower().endswith(".arrow") else _ParquetCells
    return _open_tables.get(key, lambda: (threading.Lock(), kind(path, column)))


def open_table(path: str) -> Any:
    """A source that pyarrow can read: the path of a local file, or an opened remote one."""
    if not is_remote(path):
        refuse_special(path)
        return path
    fs, remote = filesystem(path)
    return fs.open(remote, "rb", block_size=BUFFER_BYTES)


def read_arrow(path: str) -> pa.Table:
    """An Arrow file, stream or random-access format; a local one is mapped, so that only the used parts are read."""
    source = open_table(path)
    if not is_remote(path):
        source = pa.memory_map(path)
    try:
        return pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_file(source).read_all()
