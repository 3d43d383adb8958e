"""The index of the shards: one row per sample, with the place of each member inside its tar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.files import at_hand, is_file
from schemas.foreign_tars import as_source, kind_of_tars
from schemas.seal import check_footer
from schemas.unread import why_damaged

INDEX_FILE = "index.parquet"
"""Name of the index inside a `shards/` folder."""
TARS_KEY = b"sigma.tars"
"""Parquet metadata of an index over tars that others wrote (`sigma index`): their folder, seen from `shards/`."""

INDEX_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),  # the sample's key in the tar; equals image_id
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),  # path of the tar, relative to the shards/ folder
        pa.field("bucket", pa.string(), nullable=False),  # label of the aspect bucket, height / width: "0.25" to "4.0"
        pa.field("width", pa.int32(), nullable=False),  # px, upright
        pa.field("height", pa.int32(), nullable=False),  # px, upright
        pa.field("aesthetic", pa.float32()),
        pa.field("num_tokens", pa.int32()),  # of the mixed caption
        pa.field("caption_source", pa.string()),  # 'synthetic' or 'raw'
        pa.field("subsets", pa.list_(pa.string())),  # names from the recipe's select.subsets
        pa.field("weight", pa.float32()),  # sampling weight; 1.0 where concepts are not balanced
        pa.field("image_ext", pa.string(), nullable=False),  # jpg, png, webp, ...
        pa.field("image_offset", pa.int64(), nullable=False),  # byte of the tar at which the member's data begins
        pa.field("image_size", pa.int64(), nullable=False),
        pa.field("txt_offset", pa.int64(), nullable=False),
        pa.field("txt_size", pa.int64(), nullable=False),
        pa.field("json_offset", pa.int64(), nullable=False),
        pa.field("json_size", pa.int64(), nullable=False),
        pa.field("content", pa.string()),  # `schemas.shard.content_of`; null in what older versions wrote
    ]
)
ADDED = ("content",)
"""Last columns that the index has gained: one that was written before is as good, and reads as null there."""

DICTIONARIES = ("shard", "image_ext")
"""Columns of few values; `ShardIndex` reads them as codes into a dictionary."""


class ShardIndex:
    """An index that is read a part (a row group) and a column at a time, so that 33 million rows need not fit in
    memory. Rows are in tar order (shard, then offset); `part_starts` is (parts + 1,), the row at which each part begins
    and the number of all. `tars`: their folder, seen from `shards/`, where others wrote them. Not safe to share between
    threads. Raises ValueError: there is no index, it is cut short, or it lacks a column of `INDEX_SCHEMA`."""

    def __init__(self, shards: Path) -> None:
        path = shards / INDEX_FILE
        if not is_file(path):
            raise no_index(path)
        self._open(at_hand(path), str(path))

    @classmethod
    def of(cls, table: pa.Table, part_rows: int = 65536) -> ShardIndex:
        """An index held in memory."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, row_group_size=part_rows)
        index = cls.__new__(cls)
        index._open(pa.BufferReader(sink.getvalue()), "index in memory")
        return index

    def _open(self, source: Path | pa.NativeFile, name: str) -> None:
        self._name = name
        try:
            if isinstance(source, Path):
                check_footer(source)
            self._file = pq.ParquetFile(source, read_dictionary=list(DICTIONARIES))
        except (pa.ArrowInvalid, OSError) as error:
            raise self._unreadable(error) from None
        missing = [column for column in INDEX_SCHEMA.names if column not in (*self._file.schema_arrow.names, *ADDED)]
        if missing:
            raise ValueError(f"{name}: the index lacks {', '.join(missing)}; it was written by another version")
        metadata = self._file.metadata
        self.num_rows: int = metadata.num_rows
        tars = (metadata.metadata or {}).get(TARS_KEY)
        self.tars = None if tars is None else tars.decode()
        self.part_starts = np.cumsum([0, *(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))])

    def part(self, number: int, columns: Sequence[str]) -> pa.Table:
        """One part's columns, in the given order; those of `DICTIONARIES` are dictionary-encoded."""
        try:
            table = self._file.read_row_group(number, columns=list(columns))
        except (pa.ArrowInvalid, OSError) as error:
            raise self._unreadable(error) from None
        for name in set(columns) - set(table.column_names):
            table = table.append_column(name, pa.nulls(table.num_rows, INDEX_SCHEMA.field(name).type))
        types = {name: pa.dictionary(pa.int32(), pa.string()) for name in DICTIONARIES}
        fields = [
            INDEX_SCHEMA.field(name).with_type(types.get(name, INDEX_SCHEMA.field(name).type)) for name in columns
        ]
        return table.select(columns).cast(pa.schema(fields))

    def parts(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        return (self.part(number, columns) for number in range(len(self.part_starts) - 1))

    def _unreadable(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self._name}: the index cannot be read ({why_damaged(error)}); rebuild it with sigma shard --redo shard"
        )


def no_index(path: Path) -> ValueError:
    """The error where a dataset has no index; it says what a folder of tars needs."""
    folder = path.parent.parent
    kind = kind_of_tars(folder)
    if kind is None:
        return ValueError(
            f"{path}: no shard index here; build the dataset first (sigma build), or name the folder above shards/"
        )
    return ValueError(
        f"{folder}: holds {kind} tars and no shard index; sigma index {folder} lets the trainer read them as they are, "
        f"or build a dataset from them: {as_source(kind, folder)}"
    )


def read_index(shards: Path, columns: Sequence[str] = tuple(INDEX_SCHEMA.names)) -> pa.Table:
    """The index of a `shards/` folder as one table, rows in tar order. `columns`: those to read; at 33 million rows all
    of them take some 6 GB. Raises ValueError: as `ShardIndex`."""
    schema = pa.schema([INDEX_SCHEMA.field(name) for name in columns])
    parts = [part.cast(schema) for part in ShardIndex(shards).parts(columns)]
    return pa.concat_tables(parts) if parts else schema.empty_table()
