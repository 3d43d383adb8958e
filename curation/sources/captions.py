"""Raw captions in files next to the images: one table per folder, or one small file per image."""

from __future__ import annotations

import json
import os
import posixpath
import sqlite3
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from curation.sources.item import SourceListing, member_name
from curation.sources.records import Row, read_rows
from schemas.texts import NotText, captions_in, clean_text, clean_url, decode, parse_json

TABLE_NAMES = tuple(
    f"{stem}.{extension}" for stem in ("captions", "metadata") for extension in ("parquet", "csv", "jsonl")
)
"""Names of a captions table of a folder; Hugging Face's image folders call it `metadata`."""

FILE_COLUMNS = ("file_name", "file", "path", "image", "member")
CAPTION_COLUMNS = ("caption", "text", "prompt", "raw_caption")
SIDECAR_FIELDS = ("caption", "text", "prompt")


@dataclass(frozen=True)
class RawCaption:
    """A caption that came with an image, and where the image is from."""

    caption: str | None
    url: str | None = None
    license: str | None = None
    others: tuple[str, ...] = ()
    """Further captions of a list, of which the first is the caption."""

    @classmethod
    def of(cls, captions: Sequence[str], url: Any = None, license: Any = None) -> RawCaption:
        """A caption out of the cells of a table or the fields of a `.json`."""
        return cls(captions[0] if captions else None, clean_url(url), clean_text(license), tuple(captions[1:]))


class CaptionTable:
    """The captions of a folder, looked up by member name. They are kept in a temporary SQLite file: a table of tens of
    millions of captions does not fit into memory."""

    def __init__(self) -> None:
        self._rows = sqlite3.connect("")  # a file that SQLite deletes itself
        self._rows.execute("PRAGMA cache_size = -65536")  # KiB
        self._rows.execute("PRAGMA journal_mode = OFF")
        self._rows.execute(
            "CREATE TABLE captions (name TEXT PRIMARY KEY, loose, caption, url, license, others) WITHOUT ROWID"
        )
        self._rows.execute("CREATE INDEX loosely ON captions (loose)")
        self.has_any = False
        """Whether there was a caption."""
        self.tables: dict[str, str] = {}
        """Folder -> the name of its captions table."""
        self.num_repeated = 0
        """Rows for an image that an earlier row had named; the first row counts."""

    def add(self, rows: Iterable[tuple[str, RawCaption]]) -> None:
        for member, raw in rows:
            added = self._rows.execute(
                "INSERT OR IGNORE INTO captions VALUES (?, ?, ?, ?, ?, ?)",
                (member, _loose(member), raw.caption, raw.url, raw.license, json.dumps(raw.others)),
            )
            self.num_repeated += 1 - added.rowcount
            self.has_any = True

    def take(self, member: str, is_file: Callable[[str], bool]) -> RawCaption | None:
        """The caption of an image; it is removed, so that the captions left at the end belong to no image. That of its
        exact name counts first, then one whose name differs in the composition of its letters or in its slashes, unless
        it is the exact name of another file."""
        exact = self._rows.execute("SELECT * FROM captions WHERE name = ?", (member,)).fetchall()
        others = self._rows.execute("SELECT * FROM captions WHERE loose = ?", (_loose(member),))
        found = next((row for row in exact or others.fetchall() if row[0] == member or not is_file(row[0])), None)
        if found is None:
            return None
        name, _, caption, url, licence, others = found
        self._rows.execute("DELETE FROM captions WHERE name = ?", (name,))
        return RawCaption(caption, url, licence, tuple(json.loads(others)))

    def num_left(self) -> int:
        """Captions that no image has taken."""
        (count,) = self._rows.execute("SELECT count(*) FROM captions").fetchone()
        return int(count)

    def read(self, root: str, prefix: str, names: Collection[str], listing: SourceListing) -> None:
        """Add the captions table of a folder, where there is one.

        `listing` counts the rows and cells that cannot be read. A table called `captions` in the root is what it is
        called; any other that has no captions is counted as well.

        Args:
            root: the folder of the source, absolute, or its URL.
            prefix: the folder of the table below it, with a slash at its end.
            names: the names in it that may be tables.

        Raises:
            ValueError: there are several tables, or the one of the root cannot be read, or lacks a column.
        """
        for stem in ("captions", "metadata"):
            found = [name for name in TABLE_NAMES if name in names and name.startswith(stem)]
            if len(found) > 1:
                folder = f"{root}/{prefix}".rstrip("/")
                raise ValueError(f"{folder}: holds {' and '.join(found)}; keep one captions table")
            if not found or self.tables.get(prefix) is not None:
                continue
            path = f"{root}/{prefix}{found[0]}"
            try:
                self.add(_captions(root, prefix, path, listing))
                self.tables[prefix] = found[0]
            except ValueError as error:
                if stem == "captions" and not prefix:
                    raise
                listing.count("captions tables that are not read", first=str(error))


def _captions(root: str, prefix: str, path: str, listing: SourceListing) -> Iterator[tuple[str, RawCaption]]:
    wanted = ((FILE_COLUMNS, "file names"), (CAPTION_COLUMNS, "captions"))
    known = (*FILE_COLUMNS, *CAPTION_COLUMNS, "url", "license")
    for row in read_rows(path, lambda names: _check_columns(path, names, wanted), known):
        if row.broken is not None:
            listing.count("rows of captions that cannot be read", first=f"{path}, {row.place} {row.broken}")
            continue
        name = next((text for column in FILE_COLUMNS if (text := clean_text(row.cells.get(column)))), None)
        if name is not None:
            yield _relative(root, prefix, name), raw_caption(row, CAPTION_COLUMNS, "url", "license", path, listing)


def raw_caption(
    row: Row, columns: Sequence[str], url: str | None, license: str | None, path: str, listing: SourceListing
) -> RawCaption:
    """The caption, URL and licence in the columns of a row; `listing` counts the row where there is something else in
    place of a caption."""
    captions = captions_in(row.cells, columns)
    if not captions:
        given = next((value for column in columns if (value := row.cells.get(column)) not in (None, [], "")), "")
        if not isinstance(given, str):
            kind = "holds no text" if isinstance(given, bytes | list) else f"is {type(given).__name__}, not text"
            listing.count("captions that are no text", first=f"{path}, {row.place}: {' or '.join(columns)} {kind}")
    return RawCaption.of(captions, row.cells.get(url or ""), row.cells.get(license or ""))


def read_sidecar(data: bytes, is_json: bool, fields: Iterable[str] = SIDECAR_FIELDS) -> RawCaption:
    """The caption in a sidecar file, a text or `.json` of the same name as an image, in the encoding that it is in. The
    first of `fields` that holds text is the caption of a `.json`, and of a list of texts the first. One that is no
    object, or holds no caption, gives none: the image is not at fault."""
    text = decode(data)
    if text is None or not is_json:
        return RawCaption(clean_text(text))
    try:
        value = parse_json(text)
    except NotText:
        return RawCaption(None)
    if not isinstance(value, dict):
        return RawCaption(None)
    return RawCaption.of(captions_in(value, fields), value.get("url"), value.get("license"))


def _relative(root: str, prefix: str, name: str) -> str:
    """The member name of a file that a table names, below its own folder or as a whole path."""
    path = PurePosixPath(name)
    if path.is_absolute() and path.is_relative_to(root):
        return member_name(os.fsencode(path.relative_to(root)))
    return member_name(os.fsencode(prefix + str(path)))


def _loose(member: str) -> str:
    """What the names of a file have in common that were written on different systems."""
    return posixpath.normpath(unicodedata.normalize("NFC", member).replace("\\", "/"))


def _check_columns(path: str, names: Iterable[str], wanted: Iterable[tuple[tuple[str, ...], str]]) -> None:
    names = list(names)
    for columns, what in wanted:
        if not set(columns) & set(names):
            have = ", ".join(names) or "none"
            raise ValueError(f"{path}: needs a column of {what}, one of {', '.join(columns)}; it has {have}")
