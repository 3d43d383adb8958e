"""List the rows of Parquet, JSONL and CSV tables and of saved Hugging Face datasets, each row an input."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources.captions import clean_text, clean_url, read_rows, require_columns
from curation.sources.item import Item, SourceListing, inside, member_name
from curation.sources.patterns import find_files
from curation.sources.rows import DAMAGE, open_table, read_arrow
from curation.sources.storage import REMOTE_ERRORS, filesystem, why
from schemas.locations import absolute, is_remote, public_url
from schemas.reasons import FetchError, ImageError
from schemas.sources import ArrowColumns, Columns, HFDatasetSource, TableSource

EXTENSIONS = (".parquet", ".jsonl", ".csv")


def list_table(source: TableSource) -> SourceListing:
    """Every row of every table, in the order of the files' names and of their rows.

    A row without a picture is a row all the same, with a reason.

    Raises:
        ValueError: no table, one that cannot be read, or a column that is not there; the last two while the items are
            read.
    """
    files = find_files(source.location(), EXTENSIONS, "table")
    if source.columns.bytes is not None:
        if other := [file for file in files if not file.lower().endswith(".parquet")]:
            raise ValueError(f"{other[0]}: columns.bytes needs Parquet; name a column of paths for {other[0][-6:]}")
        return SourceListing((item for file in files for item in _cells(file, source, source.columns.bytes)), {})
    return SourceListing((item for file in files for item in _paths(file, source)), {})


def list_hf_dataset(source: HFDatasetSource) -> SourceListing:
    """Every row of every split, in the order of the splits and of their files.

    Raises:
        ValueError: the folder holds no saved dataset, or a column is not there.
    """
    root = source.location()
    saved = _read_json(f"{root}/dataset_dict.json", root, missing={})
    folders = [f"{root}/{split}" for split in saved["splits"]] if "splits" in saved else [root]
    files = []
    for folder in folders:
        state = _read_json(f"{folder}/state.json", root)
        files += [f"{folder}/{file['filename']}" for file in state["_data_files"]]
    return SourceListing((item for file in files for item in _arrow_rows(root, file, source.columns)), {})


def _described(item: Item, row: Mapping[str | None, Any], columns: Columns) -> Item:
    """The item with the caption, URL and licence of its row."""
    return replace(
        item,
        raw_caption=clean_text(row.get(columns.caption)),
        url=clean_url(row.get(columns.url)),
        license=clean_text(row.get(columns.license)),
    )


def _wanted(columns: Columns) -> list[str]:
    return [name for name in (columns.caption, columns.url, columns.license) if name is not None]


def _cells(file: str, source: TableSource, column: str) -> Iterator[Item]:
    folder, _, name = file.rpartition("/")
    container = member_name(os.fsencode(name))
    try:
        with pq.ParquetFile(open_table(file)) as table:
            require_columns(file, [column, *_wanted(source.columns)], table.schema_arrow.names)
            _check_bytes(file, column, table.schema_arrow.field(column).type)
            row = 0
            for group in range(table.num_row_groups):
                num_rows = table.metadata.row_group(group).num_rows
                for words in _batches(table, group, num_rows, _wanted(source.columns)):
                    yield _described(_cell(container, row, column, folder), words, source.columns)
                    row += 1
    except (*DAMAGE, *REMOTE_ERRORS) as error:
        raise ValueError(f"{file}: cannot be read as Parquet: {why(file, error)}") from None


def _batches(
    table: pq.ParquetFile, group: int, num_rows: int, columns: list[str]
) -> Iterator[Mapping[str | None, Any]]:
    if not columns:
        yield from ({} for _ in range(num_rows))
        return
    for batch in table.iter_batches(row_groups=[group], columns=columns):
        yield from batch.to_pylist()


def _check_bytes(file: str, column: str, kind: pa.DataType) -> None:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(f"{file}: column {column!r} holds {kind}, not the bytes of images; name another column")


def _cell(container: str, row: int, column: str, source: str) -> Item:
    member = inside(container, f"{row}/{member_name(column.encode())}")
    return Item(member, None, byte_offset=row, source=source)


def _paths(file: str, source: TableSource) -> Iterator[Item]:
    columns = source.columns
    assert columns.path is not None
    folder, _, name = file.rpartition("/")
    root = folder if source.root is None else absolute(source.root)
    wanted = [columns.path, *_wanted(columns)]
    rows = read_rows(file, partial(require_columns, file, wanted), wanted)
    for number, row in enumerate(rows):
        path = clean_text(row.get(columns.path))
        if path is None:
            member = inside(member_name(os.fsencode(name)), f"{number}/{columns.path}")
            reason, detail = ImageError.UNREADABLE.value, "the row names no file"
            item = Item(member, None, source=folder, reason=reason, detail=detail)
        else:
            item = _file(path, root)
        yield _described(item, row, columns)


def _file(path: str, root: str) -> Item:
    """The input that a path of a table names: below `root` where it can be, else below its own folder."""
    full = path if is_remote(path) else posixpath.normpath(posixpath.join("/" if is_remote(root) else root, path))
    if is_remote(root) and not is_remote(path):
        full = root + full
    top, member = (root, full[len(root) + 1 :]) if full.startswith(root + "/") else full.rpartition("/")[::2]
    shown = public_url(full)
    if shown != full:
        detail = "its address holds credentials, which are never kept: fetch it with a source of kind urls"
        top, member = shown.rpartition("/")[::2]
        return Item(member, None, source=top, reason=FetchError.BAD_URL.value, detail=detail)
    return Item(member_name(os.fsencode(member)), None, source=top or "/")


def _arrow_rows(root: str, file: str, columns: ArrowColumns) -> Iterator[Item]:
    try:
        table = read_arrow(file)
    except (*DAMAGE, *REMOTE_ERRORS) as error:
        raise ValueError(f"{file}: cannot be read as Arrow: {why(file, error)}") from None
    require_columns(file, [columns.image, *_wanted(columns)], table.column_names)
    _check_bytes(file, columns.image, table.schema.field(columns.image).type)
    container = member_name(os.fsencode(file.removeprefix(root + "/")))
    row = 0
    for batch in table.select(_wanted(columns)).to_batches(max_chunksize=1024) if _wanted(columns) else ():
        for words in batch.to_pylist():
            yield _described(_cell(container, row, columns.image, root), words, columns)
            row += 1
    for number in range(row, table.num_rows):
        yield _cell(container, number, columns.image, root)


def _read_json(path: str, root: str, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    fs, inner = filesystem(path)
    try:
        value = json.loads(fs.cat_file(inner))
    except REMOTE_ERRORS as error:
        if missing is not None and isinstance(error, FileNotFoundError):
            return missing
        raise ValueError(
            f"{root}: holds no saved dataset ({path.rpartition('/')[2]}: {why(path, error)}); name the folder that "
            "save_to_disk wrote"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON: {error}") from None
    assert isinstance(value, dict)
    return value
