"""Parts that are written while their rows come, a row group at a time: a part of a plan has up to 640,000 rows, which
with their captions are too wide to be held together."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, count, groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import IO

from engine.ahead import ahead
from engine.content import ContentDigest, content_digest
from engine.counts import Counts, counts_of, note, read_counts, total
from engine.dataset import STORED, Dataset, row_group_rows, schema_of
from engine.duck import SPILLED
from engine.names import DIGITS, Held, PartName
from schemas.columns import SHARDS_PER_PART, Cut, cut_of
from schemas.files import make_folder
from schemas.late import late
from schemas.seal import sealed_write

with late(__name__):
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq


class PartFile:
    """A part in a file that has no name yet, since its rows name it."""

    def __init__(self, dataset: Dataset, table: str, number: int, rows: Iterable[pa.Table]) -> None:
        """Write and digest the rows, in pieces of any size and in the types of the table, while the next ones come."""
        self._table, self._number, self._counts = table, number, list[Counts]()
        self._content, self._shards = ContentDigest(schema_of(table)), _ShardDigests()
        make_folder(dataset.root / SPILLED)
        file = tempfile.TemporaryFile(dir=dataset.root / SPILLED)  # noqa: SIM115  `commit` closes it
        self._file: IO[bytes] = file
        with _writer(self._file, schema_of(table), {}) as writer:
            groups = _row_groups(rows, row_group_rows(table), schema_of(table))
            for group in ahead(self._digested, groups, 1, 2):
                writer.write_table(group, row_group_size=len(group) or None)

    def _digested(self, rows: pa.Table) -> pa.Table:
        self._content.add(rows)
        self._counts.append(counts_of(self._table, rows))
        if cut_of(self._table) is Cut.SHARDS:
            self._shards.add(rows)
        return rows

    def shards(self) -> list[str]:
        """Of a plan, the digests of the rows that each of its shards has, in order."""
        return self._shards.hexdigests()

    def commit(self, dataset: Dataset, made_from: str) -> Path:
        """Give the file its name, after which this object is of no use."""
        name = PartName(self._number, made_from, self._content.hexdigest()[:DIGITS])
        path = dataset.folder(self._table) / name.file
        with self._file:
            if dataset.lacks(path):
                self._file.seek(0)
                with sealed_write(path) as file:
                    shutil.copyfileobj(self._file, file, 1 << 20)
        note(path, total(self._counts))
        return path


class _ShardDigests:
    """What `shard_digests` gives, of a plan that comes in pieces and in which each shard has rows."""

    def __init__(self) -> None:
        self._shard, self._rows, self._found = -1, list[pa.Table](), list[str]()

    def add(self, rows: pa.Table) -> None:
        shards = rows["shard_id"].to_numpy()
        begins = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist()] if len(shards) else []
        for begin, end in pairwise([*begins, len(shards)]):
            if shards[begin] != self._shard:
                self._end()
                self._shard = shards[begin]
            self._rows.append(rows.slice(begin, end - begin))

    def hexdigests(self) -> list[str]:
        self._end()
        return self._found

    def _end(self) -> None:
        if self._rows:
            self._found.append(content_digest(pa.concat_tables(self._rows))[:DIGITS])
        self._rows = []


def shard_digests(plan: pa.Table, shards: range) -> list[str]:
    """The digest of the rows that each shard has in a plan, of which this is a part, in order."""
    ends = np.searchsorted(plan["shard_id"].to_numpy(), [*shards, shards.stop]).tolist()
    return [content_digest(plan.slice(begin, end - begin))[:DIGITS] for begin, end in pairwise(ends)]


def part_files(batches: Iterable[pa.RecordBatch], held: Held, table: str) -> Iterator[PartFile]:
    """The parts of a table that is sorted by what it is cut by; at least one."""
    for number, pieces in groupby(_numbered(batches, held, table), itemgetter(0)):
        yield PartFile(held.dataset, table, number, (rows for _, rows in pieces))


def _numbered(batches: Iterable[pa.RecordBatch], held: Held, table: str) -> Iterator[tuple[int, pa.Table]]:
    """The rows in pieces with the number of their part; of each part the first piece has no rows."""
    schema, cut = schema_of(table), cut_of(table)
    ends: Iterator[int | None] = iter([None])
    if cut is Cut.LISTING:
        parts = read_counts("listing", held.paths("listing"))
        ends = iter([*accumulate(part.rows for part in parts[:-1]), None])
    elif cut is Cut.SHARDS:
        ends = (number * SHARDS_PER_PART for number in count(1))
    column = "shard_id" if cut is Cut.SHARDS else "row_id"
    number, end, empty = 0, next(ends), schema.empty_table()
    yield number, empty
    for batch in batches:
        rows = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
        while end is not None and rows.num_rows and rows[column][-1].as_py() >= end:
            inside = pc.less(rows[column], end)
            yield number, rows.filter(inside)
            rows, number, end = rows.filter(pc.invert(inside)), number + 1, next(ends)
            yield number, empty
        yield number, rows
    while cut is Cut.LISTING and end is not None:  # the last parts of the listing have no row in the table
        number, end = number + 1, next(ends)
        yield number, empty


def commit_batches(
    path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema, metadata: Mapping[str, str], group_rows: int
) -> int:
    """Write rows as they come and give them a name once they are all there; never more than a row group is held. The
    bytes depend on the rows, the schema and the metadata only, not on how the rows are cut into batches. Returns the
    number of rows."""
    num_rows = 0
    tables = (pa.Table.from_batches([batch]).select(schema.names).cast(schema) for batch in batches)
    with sealed_write(path) as file, _writer(file, schema, metadata) as writer:
        for group in _row_groups(tables, group_rows, schema):
            writer.write_table(group, row_group_size=len(group) or None)
            num_rows += len(group)
    return num_rows


def _writer(file: IO[bytes], schema: pa.Schema, metadata: Mapping[str, str]) -> pq.ParquetWriter:
    described = schema.with_metadata({key: metadata[key] for key in sorted(metadata)})
    return pq.ParquetWriter(file, described, **STORED)


def _row_groups(pieces: Iterable[pa.Table], size: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of `size` rows, the last one shorter; one without rows where there are none, since a file
    still holds its columns."""
    held, num_held, is_first = list[pa.Table](), 0, True
    for rows in pieces:
        while num_held + len(rows) >= size:
            taken = size - num_held
            yield pa.concat_tables([*held, rows.slice(0, taken)])
            held, num_held, is_first, rows = [], 0, False, rows.slice(taken)
        if len(rows):
            held.append(rows)
            num_held += len(rows)
    if held or is_first:
        yield pa.concat_tables([schema.empty_table(), *held])
