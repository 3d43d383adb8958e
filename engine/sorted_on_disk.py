"""Sorts rows that are too wide for DuckDB's own sort: run by run into a compressed file, which is read back in
stretches, each of all runs."""

from __future__ import annotations

import os
import tempfile
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.catalog import create_views
from engine.duck import SPILLED, Connection, stream
from engine.names import Held
from schemas.files import make_folder

RUN_PARTS = 32
"""Parts of the inputs whose rows are sorted in one go."""
STRETCH_BYTES = 1 << 27
"""Rows in memory that are read back and sorted at a time, or those of one value of the first key if they are more."""
BLOCK_BYTES = 1 << 18
"""Rows in memory that are compressed together: few, so that little beyond a stretch is read."""

_CODEC = pa.Codec("zstd")


def sorted_on_disk(
    connection: Connection, held: Held, reads: Iterable[str], sql: str, keys: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """The rows of a SELECT in the order of `keys`, a batch at a time.

    The SELECT is run over the views of some parts at a time, so it must join rows of one input only. The file in
    between takes about as much of the disk as a table of these rows. What is read back for a stretch is a few blocks of
    each run, found by their place, so that the time grows as the rows do.

    Args:
        reads: the inputs, as `catalog.connect` was given them.
        keys: columns of the SELECT that tell rows apart, integers.
    """
    connection.execute("SET preserve_insertion_order = true")
    spilled, numbers = held.dataset.root / SPILLED, list(held.parts("listing"))
    make_folder(spilled)
    with tempfile.TemporaryFile(dir=spilled) as file:
        runs = _Runs(file, keys[0])
        for begin in range(0, len(numbers), RUN_PARTS):
            create_views(connection, held.only(numbers[begin : begin + RUN_PARTS]), reads, own=True)
            runs.add(stream(connection, f"{sql} ORDER BY {', '.join(keys)}", batch_rows))
        for first, last in runs.stretches():
            rows = runs.read(first, last)
            order = pc.sort_indices(rows, sort_keys=[(key, "ascending") for key in keys])
            for begin in range(0, len(rows), batch_rows):
                yield from rows.take(order.slice(begin, batch_rows)).to_batches()


class _Runs:
    """Sorted runs of rows in one file, as blocks, and where each block is."""

    def __init__(self, file: IO[bytes], key: str) -> None:
        self._file, self._key = file, key
        self._schema: pa.Schema | None = None
        self._runs: list[tuple[array[int], array[int]]] = []
        """Of each run the first key of each block, and where in the file it begins and the last one ends."""
        self._counts, self._num_bytes = Counter[int](), 0

    def add(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Write a run."""
        firsts, places = array("q"), array("q", [self._file.tell()])
        for batch in batches:
            self._schema = batch.schema
            self._num_bytes += batch.nbytes
            keys, counts = np.unique(np.asarray(batch[self._key]), return_counts=True)
            self._counts.update(dict(zip(keys.tolist(), counts.tolist(), strict=True)))
            size = max(1, BLOCK_BYTES * len(batch) // max(1, batch.nbytes))
            for begin in range(0, len(batch), size):
                block = batch.slice(begin, size)
                data = block.serialize()
                self._file.write(len(data).to_bytes(8, "little") + _CODEC.compress(data, asbytes=True))
                firsts.append(block[self._key][0].as_py())
                places.append(self._file.tell())
        self._runs.append((firsts, places))

    def stretches(self) -> Iterator[tuple[int, int]]:
        """The first and the last key of rows that are read at a time."""
        rows = STRETCH_BYTES * self._counts.total() // max(1, self._num_bytes)
        self._file.flush()
        waiting, first = 0, None
        for key in sorted(self._counts):
            first = key if first is None else first
            waiting += self._counts[key]
            if waiting >= rows:
                yield first, key
                waiting, first = 0, None
        if first is not None:
            yield first, key

    def read(self, first: int, last: int) -> pa.Table:
        """The rows of some keys, run by run."""
        found = []
        for firsts, places in self._runs:
            begin, end = max(0, bisect_left(firsts, first) - 1), bisect_right(firsts, last)
            data = os.pread(self._file.fileno(), places[end] - places[begin], places[begin])
            for block in range(begin, end):
                rows = self._block(memoryview(data)[places[block] - places[begin] : places[block + 1] - places[begin]])
                inside, beyond = np.searchsorted(np.asarray(rows[self._key]), [first, last + 1]).tolist()
                found.append(rows.slice(inside, beyond - inside))
        return pa.Table.from_batches(found, self._schema).combine_chunks()

    def _block(self, data: memoryview) -> pa.RecordBatch:
        raw = _CODEC.decompress(data[8:], decompressed_size=int.from_bytes(data[:8], "little"))
        return pa.ipc.read_record_batch(raw, self._schema)
