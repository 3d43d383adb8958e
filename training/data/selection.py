"""The rows of a shard index that a stage trains on, and each sample's position; blocks are read as they are needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.conditions import condition_nodes
from engine.duck import Connection
from schemas.lru import Lru
from schemas.shard_index import INDEX_SCHEMA, ShardIndex

BLOCK_ROWS = 4096
"""Selected rows whose entries are read together: neighbours in a tar are used soon after each other."""
MOST_BLOCKS = 256
"""Blocks kept, some 100 MB; a window of 65536 rows touches few of them."""

MEMBERS = ("image", "txt", "json")
_NAMES = ("image_id", "shard", "image_ext", "caption_source", "key", "content")
_COLUMNS = (*_NAMES, *(f"{kind}_{fact}" for fact in ("offset", "size") for kind in MEMBERS))


class Entry(NamedTuple):
    """The position of one sample: offset of each member's data in the tar, and its bytes, in the order of `MEMBERS`."""

    image_id: str
    shard: str
    image_ext: str
    offsets: tuple[int, int, int]
    sizes: tuple[int, int, int]
    caption_source: str | None = None
    key: str | None = None
    content: str | None = None

    @property
    def name(self) -> str:
        """The sample for a reader of the log: its key in the tar."""
        return self.key or self.image_id

    def place(self, kind: str) -> tuple[int, int]:
        """Offset and size of one of `MEMBERS`."""
        number = MEMBERS.index(kind)
        return self.offsets[number], self.sizes[number]


class _Block(NamedTuple):
    names: tuple[pa.Array, ...]  # the columns of `_NAMES`
    places: NDArray[np.int64]  # (rows, 6): offsets, then sizes


class Selection:
    """Rows of an index, in tar order. `entry` is safe to share between threads. `numbers`: index rows that are
    selected, ascending; None selects all."""

    def __init__(self, index: ShardIndex, numbers: NDArray[np.int32] | None = None) -> None:
        self._index, self._numbers = index, numbers
        starts = index.part_starts
        self._part_starts = starts if numbers is None else np.searchsorted(numbers, starts)
        self._blocks = Lru[int, _Block](MOST_BLOCKS)
        self._lock = threading.Lock()

    @property
    def tars(self) -> str | None:
        """The folder of the tars where others wrote them; see `ShardIndex`."""
        return self._index.tars

    @property
    def num_rows(self) -> int:
        return int(self._part_starts[-1])

    @property
    def whole(self) -> Selection:
        return Selection(self._index)

    def where(self, kept: NDArray[np.bool_]) -> Selection:
        """Those of the rows for which `kept` is true."""
        numbers = np.arange(self.num_rows, dtype=np.int32) if self._numbers is None else self._numbers
        return Selection(self._index, numbers[kept])

    def parts(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Columns of the selected rows, one part of the index after another."""
        for number in np.flatnonzero(np.diff(self._part_starts)).tolist():
            yield self._rows(number, columns, 0, self.num_rows)

    def codes(self, column: str) -> NDArray[np.int32]:
        """A dictionary-encoded column as numbers, equal where the values are, (num_rows,)."""
        codes = np.empty(self.num_rows, np.int32)
        known: dict[str, int] = {}
        end = 0
        for part in self.parts([column]):
            values = part[column].combine_chunks()
            numbers = [known.setdefault(name, len(known)) for name in values.dictionary.to_pylist()]
            begin, end = end, end + len(values)
            codes[begin:end] = np.array(numbers, np.int32)[values.indices.to_numpy()]
        return codes

    def shards(self) -> dict[str, int]:
        """The shards of the rows, in tar order, and how many rows each has."""
        rows: dict[str, int] = {}
        for part in self.parts(["shard"]):
            values = part["shard"].combine_chunks()
            codes, names = values.indices.to_numpy(), values.dictionary.to_pylist()
            begins = np.flatnonzero(np.diff(codes, prepend=-1))
            for begin, end in pairwise([*begins.tolist(), len(codes)]):
                name = names[codes[begin]]
                rows[name] = rows.get(name, 0) + end - begin
        return rows

    def weights(self) -> NDArray[np.float32]:
        """The sampling weight of every selected row, (num_rows,); 1 where the index has none."""
        weights = np.empty(self.num_rows, np.float32)
        end = 0
        for part in self.parts(["weight"]):
            begin, end = end, end + part.num_rows
            weights[begin:end] = part["weight"].fill_null(1.0).to_numpy()
        return weights

    def entry(self, row: int) -> Entry:
        """The position of the `row`-th selected sample."""
        number, place = divmod(row, BLOCK_ROWS)
        with self._lock:  # one thread at a time reads the index
            block = self._blocks.get(number, partial(self._read_block, number * BLOCK_ROWS))
        places = block.places[place].tolist()
        image_id, shard, image_ext, *words = (names[place].as_py() for names in block.names)
        return Entry(image_id, shard, image_ext, tuple(places[:3]), tuple(places[3:]), *words)

    def _read_block(self, begin: int) -> _Block:
        end = min(begin + BLOCK_ROWS, self.num_rows)
        assert 0 <= begin < end, f"row {begin} of {self.num_rows}"
        first = int(np.searchsorted(self._part_starts, begin, side="right")) - 1
        last = int(np.searchsorted(self._part_starts, end, side="left"))
        rows = [self._rows(number, _COLUMNS, begin, end) for number in range(first, last)]
        table = pa.concat_tables(part.unify_dictionaries() for part in rows).unify_dictionaries()
        table = table.take(pa.array(np.arange(table.num_rows)))  # a copy: a slice would keep the whole part alive
        places = np.stack([table[name].to_numpy() for name in _COLUMNS[len(_NAMES) :]], axis=1)
        return _Block(tuple(table[name].combine_chunks() for name in _NAMES), places)

    def _rows(self, number: int, columns: Sequence[str], begin: int, end: int) -> pa.Table:
        """Columns of one part's selected rows, those that are among the selection's rows begin..end - 1."""
        part = self._index.part(number, columns)
        start = int(self._part_starts[number])
        begin, end = max(begin - start, 0), min(end, int(self._part_starts[number + 1])) - start
        if self._numbers is None:
            return part.slice(begin, end - begin)
        chosen = self._numbers[start + begin : start + end] - self._index.part_starts[number]
        return part.take(pa.array(chosen))


def select_rows(index: ShardIndex, where: str | None, stage: str) -> Selection:
    """The index rows that a stage trains on, in tar order. Raises ValueError: the condition is no valid SQL over the
    index's columns, depends on more than them, or selects nothing."""
    numbers = None
    if where is not None:
        with duckdb.connect(config={"enable_external_access": "false"}) as connection:
            try:
                condition_nodes(connection, where)
            except ValueError as error:
                raise ValueError(f"stage {stage}: where: {error}") from None
            try:
                numbers = _rows_where(connection, index, where)
            except duckdb.Error as error:
                reason = str(error).splitlines()[0]
                raise ValueError(f"stage {stage}: where: {where!r} is no condition on the index: {reason}") from None
    rows = Selection(index, numbers)
    if not rows.num_rows:
        raise ValueError(f"stage {stage}: where: {where!r} selects no sample of the index")
    return rows


def _rows_where(connection: Connection, index: ShardIndex, where: str) -> NDArray[np.int32]:
    """Numbers of the rows that meet the condition, ascending."""
    query = f"select index_row from samples where ({where})"
    whole = INDEX_SCHEMA.append(pa.field("index_row", pa.int32()))
    connection.register("samples", whole.empty_table())
    connection.execute(query)  # an error here knows all columns
    text = where.lower()
    # A column is read only if the condition names it; the table's name or COLUMNS(...) may mean any.
    named = [name for name in INDEX_SCHEMA.names if name in text or "columns" in text or "samples" in text]
    schema = pa.schema([INDEX_SCHEMA.field(name) for name in named]).append(whole.field("index_row"))
    unreadable: list[ValueError] = []

    def batches() -> Iterator[pa.RecordBatch]:
        starts = index.part_starts[:-1].tolist()
        try:
            for start, part in zip(starts, index.parts(named or ["width"]), strict=True):
                numbers = pa.array(np.arange(start, start + part.num_rows, dtype=np.int32))
                yield from part.select(named).append_column("index_row", numbers).cast(schema).to_batches()
        except ValueError as error:  # DuckDB would pass on its words, but as if the condition were wrong
            unreadable.append(error)
            raise

    reader: Any = pa.RecordBatchReader.from_batches(schema, batches())
    try:
        connection.register("samples", reader)
        return np.sort(np.asarray(connection.execute(query).fetchnumpy()["index_row"]))
    except (duckdb.Error, pa.ArrowInvalid):
        if unreadable:
            raise unreadable[0] from None
        raise
