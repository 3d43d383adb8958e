"""Sorts rows that are too wide for DuckDB's own sort: in compressed files, which are read back a stretch at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from engine.catalog import create_views
from engine.duck import SPILLED, Connection, literal, read_files, stream
from engine.names import Held
from schemas.files import make_folder

RUN_PARTS = 32
"""Parts of the inputs whose rows are sorted in one go, into one file."""
STRETCH_ROWS = 200_000
"""Rows that are read back and sorted at a time, or those of one value of the first key where these are more."""
GROUP_ROWS = 2048
"""Rows per row group of a file: few, so that little beyond a stretch is read."""

_STRETCHES = """
SELECT min(key), max(key) FROM (
    SELECT {key} AS key, sum(count(*)) OVER (ORDER BY {key}) // $rows AS stretch FROM {files} GROUP BY {key}
) GROUP BY stretch ORDER BY stretch
"""


def sorted_on_disk(
    connection: Connection, held: Held, reads: Iterable[str], sql: str, keys: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """The rows of a SELECT in the order of `keys`, a batch at a time. The SELECT is run over the views of some parts at
    a time, so it must join rows of one input only. The files in between take about as much of the disk as a table of
    these rows. `reads`: the inputs, as `catalog.connect` was given them. `keys`: columns of the SELECT that tell rows
    apart."""
    connection.execute("SET preserve_insertion_order = true")  # each row group is to hold neighbours
    order, spilled = ", ".join(keys), held.dataset.root / SPILLED
    make_folder(spilled)
    with tempfile.TemporaryDirectory(dir=spilled) as folder:
        numbers, files = list(held.parts("listing")), []
        for begin in range(0, len(numbers), RUN_PARTS):
            create_views(connection, held.only(numbers[begin : begin + RUN_PARTS]), reads, own=True)
            files.append(Path(folder) / f"{begin}.parquet")
            form = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {GROUP_ROWS}"
            connection.execute(f"COPY ({sql} ORDER BY {order}) TO {literal(str(files[-1]))} ({form})")
        stretches = _STRETCHES.format(key=keys[0], files=read_files(files))
        for begin, end in connection.execute(stretches, {"rows": STRETCH_ROWS}).fetchall():
            stretch = f"FROM {read_files(files)} WHERE {keys[0]} BETWEEN {begin} AND {end} ORDER BY {order}"
            yield from stream(connection, stretch, batch_rows)
