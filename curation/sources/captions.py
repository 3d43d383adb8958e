"""Raw captions in files next to the images: one table per folder, or one small file per image."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources.item import member_name
from curation.sources.storage import REMOTE_ERRORS, filesystem, why
from schemas.locations import public_url

TABLE_NAMES = ("captions.parquet", "captions.csv", "captions.jsonl")
"""Names of a captions table in the root of a folder."""

FILE_COLUMNS = ("file_name", "file", "path", "image", "member")
CAPTION_COLUMNS = ("caption", "text", "prompt", "raw_caption")
SIDECAR_FIELDS = ("caption", "text", "prompt")
_CSV_FIELD_LIMIT = 1 << 24


@dataclass(frozen=True)
class RawCaption:
    """A caption that came with an image, and where the image is from."""

    caption: str | None
    url: str | None = None
    license: str | None = None


class CaptionTable:
    """The captions of a folder, looked up by member name.

    They are kept in a temporary SQLite file: a table of tens of millions of captions does not fit into memory.
    """

    def __init__(self) -> None:
        """An empty table."""
        self._rows = sqlite3.connect("")  # a file that SQLite deletes itself
        self._rows.execute("PRAGMA cache_size = -65536")  # KiB
        self._rows.execute("PRAGMA journal_mode = OFF")
        self._rows.execute("CREATE TABLE captions (key TEXT PRIMARY KEY, caption, url, license) WITHOUT ROWID")
        self.num_repeated = 0
        """Rows for an image that an earlier row had named; the first row counts."""

    def add(self, rows: Iterable[tuple[str, RawCaption]]) -> None:
        """Keep captions by member name."""
        num_before, num_rows = self.num_left(), 0
        for member, raw in rows:
            num_rows += 1
            self._rows.execute(
                "INSERT OR IGNORE INTO captions VALUES (?, ?, ?, ?)",
                (_lookup_key(member), raw.caption, raw.url, raw.license),
            )
        self.num_repeated += num_rows - (self.num_left() - num_before)

    def take(self, member: str) -> RawCaption | None:
        """The caption of an image; it is removed, so that the captions left at the end belong to no image."""
        key = (_lookup_key(member),)
        row = self._rows.execute("SELECT caption, url, license FROM captions WHERE key = ?", key).fetchone()
        if row is None:
            return None
        self._rows.execute("DELETE FROM captions WHERE key = ?", key)
        return RawCaption(*row)

    def num_left(self) -> int:
        """Captions that no image has taken."""
        (count,) = self._rows.execute("SELECT count(*) FROM captions").fetchone()
        return int(count)


def read_caption_table(root: str, names: Iterable[str]) -> CaptionTable | None:
    """The captions table of a folder, or None where there is none.

    Args:
        root: the folder, absolute, or its URL.
        names: the names in it.

    Raises:
        ValueError: there are several, it cannot be read, or it lacks a column for file names or for captions.
    """
    present = set(names)
    found = [name for name in TABLE_NAMES if name in present]
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"{root}: holds {' and '.join(found)}; keep one captions table")
    table = CaptionTable()
    table.add(_captions(root, f"{root}/{found[0]}"))
    return table


def _captions(root: str, path: str) -> Iterator[tuple[str, RawCaption]]:
    wanted = ((FILE_COLUMNS, "file names"), (CAPTION_COLUMNS, "captions"))
    known = (*FILE_COLUMNS, *CAPTION_COLUMNS, "url", "license")
    for row in read_rows(path, lambda names: _check_columns(path, names, wanted), known):
        name = _first(row, FILE_COLUMNS)
        if name is not None:
            yield (
                _relative(root, name),
                RawCaption(_first(row, CAPTION_COLUMNS), clean_url(row.get("url")), clean_text(row.get("license"))),
            )


def read_sidecar(data: bytes, is_json: bool, fields: Iterable[str] = SIDECAR_FIELDS) -> RawCaption:
    """The caption in a sidecar file, a `.txt` or `.json` of the same name as an image; bytes that are not UTF-8 become
    U+FFFD.

    The first of `fields` that holds text is the caption of a `.json`. One that is no object, or holds no caption, gives
    none: the image is not at fault.
    """
    text = data.decode("utf-8-sig", "replace")
    if not is_json:
        return RawCaption(clean_text(text))
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return RawCaption(None)
    if not isinstance(value, dict):
        return RawCaption(None)
    return RawCaption(_first(value, fields), clean_url(value.get("url")), clean_text(value.get("license")))


def clean_text(value: Any) -> str | None:
    """Text stripped of blanks and of characters that UTF-8 cannot hold; None where nothing is left or it is no text."""
    if not isinstance(value, str):
        return None
    return value.encode("utf-8", "replace").decode("utf-8").strip() or None


def clean_url(value: Any) -> str | None:
    """A URL as provenance: `clean_text` without credentials."""
    text = clean_text(value)
    return None if text is None else public_url(text)


def _first(row: Mapping[Any, Any], names: Iterable[str]) -> str | None:
    return next((text for name in names if (text := clean_text(row.get(name))) is not None), None)


def _relative(root: str, name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/") if "/" not in name else name)
    if path.is_absolute() and path.is_relative_to(root):
        path = path.relative_to(root)
    return member_name(str(path).encode("utf-8"))


def _lookup_key(member: str) -> str:
    return unicodedata.normalize("NFC", member)  # a table typed on one system may name files written on another


def _check_columns(path: str, names: Iterable[str], wanted: Iterable[tuple[tuple[str, ...], str]]) -> None:
    names = list(names)
    for columns, what in wanted:
        if not set(columns) & set(names):
            have = ", ".join(names) or "none"
            raise ValueError(f"{path}: needs a column of {what}, one of {', '.join(columns)}; it has {have}")


CheckNames = Callable[[Iterable[str]], None]
"""Raises where a table lacks a column."""


def read_rows(path: str, check: CheckNames, columns: Iterable[str]) -> Iterator[Mapping[str | None, Any]]:
    """The rows of a .parquet, .csv or .jsonl file, local or remote, one after the other.

    Args:
        check: called with the names of its columns; for .jsonl after the last row, since any row may bring one.
        columns: those that are wanted; others may be left out.

    Raises:
        ValueError: it cannot be read.
    """
    extension = path.rpartition(".")[2].lower()
    shown = public_url(path)
    try:
        fs, inner = filesystem(path)
        with fs.open(inner, "rb") as file:
            if extension == "parquet":
                yield from _parquet_rows(shown, file, check, set(columns))
            elif extension == "csv":
                yield from _csv_rows(shown, file, check)
            elif extension == "jsonl":
                yield from _jsonl_rows(shown, file, check)
            else:
                raise ValueError(f"{shown}: is no table; name a .parquet, .jsonl or .csv file")
    except REMOTE_ERRORS as error:
        raise ValueError(f"{shown}: cannot be read: {why(path, error)}") from None


def require_columns(path: str, wanted: Iterable[str | None], names: Iterable[str]) -> None:
    """Refuse a table that lacks a column.

    Raises:
        ValueError: names the first one that is missing, and those that there are.
    """
    names = list(names)
    if lacking := [name for name in wanted if name is not None and name not in names]:
        raise ValueError(f"{path}: has no column {lacking[0]!r}; it has {', '.join(map(str, names)) or 'none'}")


def _parquet_rows(
    path: str, opened: IO[bytes], check: CheckNames, columns: set[str]
) -> Iterator[Mapping[str | None, Any]]:
    try:
        with pq.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            check(names)
            for batch in file.iter_batches(columns=[name for name in names if name in columns]):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise ValueError(f"{path}: cannot be read as Parquet: {error}") from None


def _csv_rows(path: str, opened: IO[bytes], check: CheckNames) -> Iterator[Mapping[str | None, Any]]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    try:
        reader = csv.DictReader(io.TextIOWrapper(opened, encoding="utf-8-sig", errors="replace", newline=""))
        check(reader.fieldnames or ())
        yield from reader
    except csv.Error as error:
        raise ValueError(f"{path}: cannot be read as CSV: {error}") from None


def _jsonl_rows(path: str, opened: IO[bytes], check: CheckNames) -> Iterator[Mapping[str | None, Any]]:
    names: dict[str, None] = {}
    for number, line in enumerate(io.TextIOWrapper(opened, encoding="utf-8-sig", errors="replace"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: line {number} is not JSON: {error}") from None
        if type(row) is not dict:
            raise ValueError(f"{path}: line {number} is no JSON object")
        names |= dict.fromkeys(row)
        yield row
    check(names)
