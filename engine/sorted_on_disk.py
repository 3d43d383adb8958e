"""Sorts rows that are too wide for DuckDB's own sort: run by run into a compressed file, which is read back in
stretches, each of all runs."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.files import make_folder

STRETCH_BYTES = 1 << 26
"""Rows in memory that are read back and sorted at a time, or those of one value of the first key if they are more."""
BLOCK_BYTES = 1 << 17
"""Rows in memory that are compressed together: few, because of each run a block is held."""

_CODEC = pa.Codec("zstd")


def sorted_on_disk(
    runs: Iterable[Iterable[pa.RecordBatch]], spilled: Path, keys: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """The rows of all runs in the order of `keys`, a batch at a time. The file in between takes about as much of the
    disk as a table of these rows. Each block of it is read once.

    Args:
        runs: rows, each run of them in that order already.
        spilled: the folder of that file.
        keys: columns that tell rows apart, integers.
    """
    make_folder(spilled)
    with tempfile.TemporaryFile(dir=spilled) as file:
        written = _Runs(file, keys[0])
        for run in runs:
            written.add(run)
        for rows in written.stretches():
            order = pc.sort_indices(rows, sort_keys=[(key, "ascending") for key in keys])
            for begin in range(0, len(rows), batch_rows):
                yield from rows.take(order.slice(begin, batch_rows)).to_batches()


class _Runs:
    """Sorted runs of rows in one file, as blocks."""

    def __init__(self, file: IO[bytes], key: str) -> None:
        self._file, self._key = file, key
        self._schema: pa.Schema | None = None
        self._runs: list[Iterator[pa.RecordBatch]] = []
        self._counts, self._num_bytes = Counter[int](), 0

    def add(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Write a run."""
        places = array("q", [self._file.tell()])
        for batch in batches:
            self._schema = batch.schema
            self._num_bytes += batch.nbytes
            keys, counts = np.unique(np.asarray(batch[self._key]), return_counts=True)
            self._counts.update(dict(zip(keys.tolist(), counts.tolist(), strict=True)))
            size = max(1, BLOCK_BYTES * len(batch) // max(1, batch.nbytes))
            for begin in range(0, len(batch), size):
                data = batch.slice(begin, size).serialize()
                self._file.write(len(data).to_bytes(8, "little") + _CODEC.compress(data, asbytes=True))
                places.append(self._file.tell())
        self._runs.append(map(self._block, places, places[1:]))

    def stretches(self) -> Iterator[pa.Table]:
        """All rows: those of some keys after those of lower ones, and run by run."""
        most = STRETCH_BYTES * self._counts.total() // max(1, self._num_bytes)
        self._file.flush()
        rests: list[pa.RecordBatch | None] = [next(run, None) for run in self._runs]
        num = 0
        for key in (keys := sorted(self._counts)):
            num += self._counts[key]
            if num >= most or key == keys[-1]:
                yield self._read(rests, key)
                num = 0

    def _read(self, rests: list[pa.RecordBatch | None], last: int) -> pa.Table:
        """The rows up to a key. `rests`: what is left of the current block of each run; it is brought up to date."""
        found = []
        for number, run in enumerate(self._runs):
            while (rest := rests[number]) is not None:
                inside = int(np.searchsorted(np.asarray(rest[self._key]), last, side="right"))
                found.append(rest.slice(0, inside))
                if inside < len(rest):
                    rests[number] = rest.slice(inside)
                    break
                rests[number] = next(run, None)
        return pa.Table.from_batches(found, self._schema).combine_chunks()

    def _block(self, begin: int, end: int) -> pa.RecordBatch:
        data = os.pread(self._file.fileno(), end - begin, begin)
        raw = _CODEC.decompress(memoryview(data)[8:], decompressed_size=int.from_bytes(data[:8], "little"))
        return pa.ipc.read_record_batch(raw, self._schema)
