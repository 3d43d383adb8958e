"""List the rows of Parquet, JSONL and CSV tables and of saved Hugging Face datasets, each row an input."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources.captions import raw_caption
from curation.sources.item import Item, SourceListing, inside, member_name
from curation.sources.patterns import find_files
from curation.sources.records import Row, batch_rows, check_texts, is_bytes, read_rows, refuse_twins, require_columns
from curation.sources.rows import open_table, read_arrow
from curation.sources.storage import filesystem, remote_errors, why, why_no_address
from engine.damage import damage
from schemas.locations import absolute, is_remote, public_url
from schemas.pixels import clean
from schemas.reasons import FetchError, ImageError
from schemas.sources import ArrowColumns, Columns, HFDatasetSource, TableSource
from schemas.texts import clean_text, parse_json

EXTENSIONS = (".parquet", ".jsonl", ".csv")


def list_table(source: TableSource) -> SourceListing:
    """Every row of every table, in the order of the files' names and of their rows. A row without a picture is a row
    all the same, with a reason. Raises ValueError: no table, one that cannot be read, or a column that is not there;
    the last two while the items are read."""
    listing = SourceListing([], {})
    files = find_files(source.location(), EXTENSIONS, "table", listing)
    if source.columns.bytes is not None:
        if other := [file for file in files if not file.lower().endswith(".parquet")]:
            raise ValueError(f"{other[0]}: columns.bytes needs Parquet; name a column of paths for {other[0][-6:]}")
        cells = (item for file in files for item in _cells(file, source, source.columns.bytes, listing))
        return SourceListing(cells, listing.ignored)
    return SourceListing((item for file in files for item in _paths(file, source, listing)), listing.ignored)


def list_hf_dataset(source: HFDatasetSource) -> SourceListing:
    """Every row of every split, in the order of the splits and of their files. Raises ValueError: the folder holds no
    saved dataset, or a column is not there."""
    root = source.location()
    saved = _read_json(f"{root}/dataset_dict.json", root, missing={})
    files = []
    try:
        for folder in [f"{root}/{split}" for split in saved["splits"]] if "splits" in saved else [root]:
            state = _read_json(f"{folder}/state.json", root)
            files += [f"{folder}/{file['filename']}" for file in state["_data_files"]]
    except (TypeError, KeyError):
        raise ValueError(f"{root}: its .json files are not those of a saved dataset; save it again") from None
    listing = SourceListing([], {})
    items = (item for file in files for item in _arrow_rows(root, file, source.columns, listing))
    return SourceListing(items, listing.ignored)


def _described(item: Item, file: str, row: Row, columns: Columns, listing: SourceListing) -> Item:
    """The item with the caption, URL and licence of its row; `listing` counts a caption that is no text."""
    raw = raw_caption(row, [columns.caption] if columns.caption else [], columns.url, columns.license, file, listing)
    return item._replace(raw_caption=raw.caption, url=raw.url, license=raw.license, other_captions=raw.others)


def _wanted(columns: Columns) -> list[str]:
    return [name for name in (columns.caption, columns.url, columns.license) if name is not None]


def _cells(file: str, source: TableSource, column: str, listing: SourceListing) -> Iterator[Item]:
    folder, _, name = file.rpartition("/")
    container = member_name(os.fsencode(name))
    try:
        with pq.ParquetFile(open_table(file)) as table:
            _check_columns(file, column, source.columns, table.schema_arrow)
            number = 0
            for group in range(table.num_row_groups):
                num_rows = table.metadata.row_group(group).num_rows
                for cells in _batches(table, group, num_rows, _wanted(source.columns)):
                    row = Row(f"row {number + 1}", cells)
                    yield _described(_cell(container, number, column, folder), file, row, source.columns, listing)
                    number += 1
    except damage() + remote_errors() as error:
        raise ValueError(f"{file}: cannot be read as Parquet: {why(file, error)}") from None


def _batches(table: pq.ParquetFile, group: int, num_rows: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    if not columns:
        yield from ({} for _ in range(num_rows))
        return
    for batch in table.iter_batches(row_groups=[group], columns=columns):
        yield from batch_rows(batch)


def _check_columns(file: str, image: str, columns: Columns, schema: pa.Schema) -> None:
    """Refuse a table whose columns are not there, are there twice, or hold no pictures or no texts."""
    wanted = [image, *_wanted(columns)]
    require_columns(file, wanted, schema.names)
    refuse_twins(file, schema.names, wanted)
    kind = schema.field(image).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not is_bytes(kind):
        raise ValueError(f"{file}: column {image!r} holds {kind}, not the bytes of images; name another column")
    check_texts(file, schema, [columns.caption])


def _cell(container: str, row: int, column: str, source: str) -> Item:
    member = inside(container, f"{row}/{member_name(column.encode())}")
    return Item(member, None, byte_offset=row, source=source)


def _paths(file: str, source: TableSource, listing: SourceListing) -> Iterator[Item]:
    columns = source.columns
    assert columns.path is not None
    folder, _, name = file.rpartition("/")
    root = folder if source.root is None else absolute(source.root)
    wanted = [columns.path, *_wanted(columns)]
    rows = read_rows(file, partial(require_columns, file, wanted), wanted, texts=(columns.path, columns.caption))
    for number, row in enumerate(rows):
        path = clean_text(row.cells.get(columns.path))
        item = None if path is None else _file(path, root)
        if item is None:
            member = inside(member_name(os.fsencode(name)), f"{number}/{columns.path}")
            detail = f"{row.place} {row.broken or 'names no file'}"
            item = Item(member, None, source=folder, reason=ImageError.UNREADABLE.value, detail=clean(detail))
        yield _described(item, file, row, columns, listing)


def _file(path: str, root: str) -> Item | None:
    """The input that a path of a table names: below `root` where it can be, else below its own folder. None where it
    is no path."""
    if "\0" in path:
        return None
    if path.lower().startswith(("file://", "local://")):
        path = unquote(path.partition("://")[2])  # a file of this machine, which is read as one
    if is_remote(path):
        full = path
    else:
        below = "/" if is_remote(root) else root
        full = posixpath.normpath(posixpath.join(below, path))
        if "\\" in path and (is_remote(root) or not os.path.lexists(full)):
            full = posixpath.normpath(posixpath.join(below, path.replace("\\", "/")))
    if is_remote(root) and not is_remote(path):
        full = root + full
    top, member = (root, full[len(root) + 1 :]) if full.startswith(root + "/") else full.rpartition("/")[::2]
    shown = public_url(full)
    detail = None
    if shown != full:
        detail = "its address holds credentials, which are never kept: fetch it with a source of kind urls"
        top, member = shown.rpartition("/")[::2]
    elif is_remote(full):
        detail = why_no_address(full)
    if detail is not None:
        return Item(member_name(os.fsencode(member)), None, source=top, reason=FetchError.BAD_URL.value, detail=detail)
    return Item(member_name(os.fsencode(member)), None, source=top or "/")


def _arrow_rows(root: str, file: str, columns: ArrowColumns, listing: SourceListing) -> Iterator[Item]:
    try:
        table = read_arrow(file)
    except damage() + remote_errors() as error:
        raise ValueError(f"{file}: cannot be read as Arrow: {why(file, error)}") from None
    _check_columns(file, columns.image, columns, table.schema)
    container = member_name(os.fsencode(file.removeprefix(root + "/")))
    number = 0
    for batch in table.select(_wanted(columns)).to_batches(max_chunksize=1024) if _wanted(columns) else ():
        for cells in batch_rows(batch):
            row = Row(f"row {number + 1}", cells)
            yield _described(_cell(container, number, columns.image, root), file, row, columns, listing)
            number += 1
    for rest in range(number, table.num_rows):
        yield _cell(container, rest, columns.image, root)


def _read_json(path: str, root: str, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    fs, inner = filesystem(path)
    try:
        value = parse_json(str(fs.cat_file(inner), "utf-8"))
    except remote_errors() as error:
        if missing is not None and isinstance(error, FileNotFoundError):
            return missing
        raise ValueError(
            f"{root}: holds no saved dataset ({path.rpartition('/')[2]}: {why(path, error)}); name the folder that "
            "save_to_disk wrote"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: is no JSON object; name the folder that save_to_disk wrote")
    return value
