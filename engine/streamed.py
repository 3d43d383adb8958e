"""Reads a part whose pictures would fill the memory: a row group at a time, ahead of whoever goes through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from engine.ahead import ahead
from engine.damage import explaining_damage
from schemas.files import parquet_source
from schemas.late import late
from schemas.seal import check_file, check_footer

with late(__name__):
    import pyarrow as pa
    import pyarrow.parquet as pq

WIDE = {"proxies": "jpeg"}
"""Table -> its column that is read as it is needed."""
GROUPS_AHEAD = 2


class Pictures:
    """The wide column of a part, as something to go through from its first row to its last."""

    def __init__(self, file: pq.ParquetFile, path: Path, column: str) -> None:
        self._file, self._path, self._column = file, path, column

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def __iter__(self) -> Iterator[pa.Scalar]:
        for group in ahead(self._read, range(self._file.num_row_groups), 1, window=GROUPS_AHEAD):
            yield from group

    def _read(self, number: int) -> pa.ChunkedArray:
        with explaining_damage(self._path):
            return self._file.read_row_group(number, [self._column])[self._column]


class StreamedPart:
    """A part as a job's worker takes it: as a `pyarrow.Table`, but that the wide column is `Pictures`."""

    def __init__(self, narrow: pa.Table, column: str, pictures: Pictures) -> None:
        self._narrow, self._column, self._pictures = narrow, column, pictures

    @property
    def num_rows(self) -> int:
        return int(self._narrow.num_rows)

    def __getitem__(self, name: str) -> Any:
        return self._pictures if name == self._column else self._narrow[name]

    def select(self, names: Sequence[str]) -> pa.Table:
        """Some of the other columns."""
        return self._narrow.select(names)


@contextmanager
def streamed(path: Path, column: str) -> Iterator[StreamedPart]:
    """A part whose wide column is read while it is gone through. Every byte of the file is compared with its seal
    meanwhile, which is waited for at the end: nothing that came of a damaged file gets past it. Raises ValueError: it
    is missing or damaged, also where that made the work inside fail."""
    with ExitStack() as opened, ThreadPoolExecutor(1) as aside:
        with explaining_damage(path):
            source = opened.enter_context(parquet_source(path, whole=True))
            check_footer(source)
            file = pq.ParquetFile(source, page_checksum_verification=True)
            narrow = file.read([name for name in file.schema_arrow.names if name != column])
            if not isinstance(source, Path):  # an object of a store, in memory: it is not read twice at a time
                check_file(source)
        compared = aside.submit(check_file, source) if isinstance(source, Path) else None
        try:
            yield StreamedPart(narrow, column, Pictures(file, path, column))
        finally:
            if compared is not None:
                with explaining_damage(path):
                    compared.result()
