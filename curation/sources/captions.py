"""Raw captions that people keep beside their images: one table per folder, or one small file per image."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources.item import member_name

TABLE_NAMES = ("captions.parquet", "captions.csv", "captions.jsonl")
"""What a captions table in the root of a folder is called."""

FILE_COLUMNS = ("file_name", "file", "path", "image", "member")
CAPTION_COLUMNS = ("caption", "text", "prompt", "raw_caption")
_SIDECAR_KEYS = ("caption", "text", "prompt")
_CSV_FIELD_LIMIT = 1 << 24


@dataclass(frozen=True)
class RawCaption:
    """What someone wrote about an image."""

    caption: str | None
    url: str | None = None
    license: str | None = None


@dataclass
class CaptionTable:
    """The captions of a folder, looked up by member name."""

    path: Path
    captions: dict[str, RawCaption] = field(default_factory=dict)
    num_repeated: int = 0
    """Rows for an image that an earlier row had named; the first row counts."""

    def take(self, member: str) -> RawCaption | None:
        """The caption of an image, removed so that what is left at the end belongs to no image."""
        return self.captions.pop(_lookup_key(member), None)


def read_caption_table(root: Path) -> CaptionTable | None:
    """The captions table of a folder, or None where there is none.

    Raises:
        ValueError: there are several, it cannot be read, or it lacks a column for file names or for captions.
    """
    found = [root / name for name in TABLE_NAMES if (root / name).is_file()]
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"{root}: holds {' and '.join(path.name for path in found)}; keep one captions table")
    path = found[0]
    table = CaptionTable(path)
    rows = {".parquet": _parquet_rows, ".csv": _csv_rows, ".jsonl": _jsonl_rows}[path.suffix](path)
    for row in rows:
        name = _first(row, FILE_COLUMNS)
        if name is None:
            continue
        key = _lookup_key(_relative(root, name))
        if key in table.captions:
            table.num_repeated += 1
            continue
        table.captions[key] = RawCaption(
            _first(row, CAPTION_COLUMNS), clean_text(row.get("url")), clean_text(row.get("license"))
        )
    return table


def read_sidecar(data: bytes, is_json: bool) -> RawCaption:
    """The caption in a `.txt` or `.json` file beside an image; bytes that are not UTF-8 become U+FFFD.

    A `.json` that is no object, or holds no caption, gives none: it is not the image that is broken.
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
    return RawCaption(_first(value, _SIDECAR_KEYS), clean_text(value.get("url")), clean_text(value.get("license")))


def clean_text(value: Any) -> str | None:
    """Text without blanks around it and without what UTF-8 cannot hold; None where nothing is left or it is no text."""
    if not isinstance(value, str):
        return None
    return value.encode("utf-8", "replace").decode("utf-8").strip() or None


def _first(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((text for name in names if (text := clean_text(row.get(name))) is not None), None)


def _relative(root: Path, name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/") if "/" not in name else name)
    if path.is_absolute() and path.is_relative_to(root):
        path = path.relative_to(root)
    return member_name(str(path).encode("utf-8"))


def _lookup_key(member: str) -> str:
    return unicodedata.normalize("NFC", member)  # a table typed on one system may name files written on another


def _check_columns(path: Path, names: Iterable[str]) -> None:
    names = list(names)
    for wanted, what in ((FILE_COLUMNS, "file names"), (CAPTION_COLUMNS, "captions")):
        if not set(wanted) & set(names):
            have = ", ".join(names) or "none"
            raise ValueError(f"{path}: needs a column of {what}, one of {', '.join(wanted)}; it has {have}")


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(path, names)
            known = [name for name in names if name in (*FILE_COLUMNS, *CAPTION_COLUMNS, "url", "license")]
            for batch in file.iter_batches(columns=known):
                yield from batch.to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: cannot be read as Parquet: {error}") from None


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.DictReader(file)
            _check_columns(path, reader.fieldnames or ())
            yield from reader
    except (csv.Error, OSError) as error:
        raise ValueError(f"{path}: cannot be read as CSV: {error}") from None


def _jsonl_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    names: dict[str, None] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if type(row) is not dict:
                    raise ValueError(f"{path}: line {number} is no JSON object")
                names |= dict.fromkeys(row)
                yield row
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {number} is not JSON: {error}") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    _check_columns(path, names)
