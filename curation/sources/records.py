"""Reads the rows of Parquet, CSV and JSONL files one by one; a row that cannot be read is passed on with the reason."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources.storage import filesystem, remote_errors, why
from schemas.files import open_file
from schemas.locations import is_remote, public_url
from schemas.texts import NotText, decode, encoding_of, mended, parse_json

LONGEST_LINE = 1 << 24
"""Characters; a longer line of a CSV or JSONL file, or a longer cell, is a row that cannot be read."""

SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
"""What separates the cells of a CSV file: a comma, or what its first line has where it has no comma, as spreadsheets
write where the comma is the decimal sign."""

CheckNames = Callable[[Iterable[str]], None]
"""Raises where a table lacks a column."""


@dataclass(frozen=True)
class Row:
    place: str
    """Its place for a reader: "line 3", "row 12"."""
    cells: Mapping[str, Any]
    broken: str | None = None
    """Why it cannot be read, in words that follow the place; it has no cells then."""


def read_rows(path: str, check: CheckNames, columns: Iterable[str], texts: Iterable[str | None] = ()) -> Iterator[Row]:
    """The rows of a .parquet, .csv or .jsonl file, local or remote, one after the other.

    Args:
        check: called with the names of its columns; for .jsonl after the last row, since any row may bring one.
        columns: those that are wanted; others may be left out.
        texts: those of them that must hold text, where columns have types.

    Raises:
        ValueError: it cannot be read, two of the wanted columns have one name, or one that must hold text holds
            something else.
    """
    extension = path.rpartition(".")[2].lower()
    shown = public_url(path)
    if extension not in ("parquet", "csv", "jsonl"):
        raise ValueError(f"{shown}: is no table; name a .parquet, .jsonl or .csv file")
    try:
        with _opened(path) as file:
            if extension == "parquet":
                yield from _parquet_rows(shown, file, check, set(columns), {*texts} - {None})
            elif extension == "csv":
                yield from _csv_rows(shown, file, check, set(columns))
            else:
                yield from _jsonl_rows(shown, file, check)
    except remote_errors() as error:
        raise ValueError(f"{shown}: cannot be read: {why(path, error)}") from None


def read_lines(path: str) -> Iterator[str]:
    """The lines of a text file that are not blank. Raises ValueError: it cannot be read, or is no text."""
    shown = public_url(path)
    try:
        with _opened(path) as file:
            lines = _Lines(file, newline=None)
            for line in lines:
                too_long = lines.too_long()
                lines.taken.clear()
                if line.strip():
                    yield "" if too_long else line
    except remote_errors() as error:
        raise ValueError(f"{shown}: cannot be read: {why(path, error)}") from None


def _opened(path: str) -> Any:
    if not is_remote(path):
        return open_file(Path(path))
    fs, inner = filesystem(path)
    return fs.open(inner, "rb")


def require_columns(path: str, wanted: Iterable[str | None], names: Iterable[str]) -> None:
    """Refuse a table that lacks a column. Raises ValueError: names the first one that is missing, and those that there
    are."""
    names = list(names)
    if lacking := [name for name in wanted if name is not None and name not in names]:
        raise ValueError(f"{path}: has no column {lacking[0]!r}; it has {', '.join(map(str, names)) or 'none'}")


def refuse_twins(path: str, names: Iterable[str], wanted: Iterable[str]) -> None:
    """Refuse a table in which two columns have the name of a wanted one. Raises ValueError: names it."""
    counts = Counter(names)
    if twins := [name for name in wanted if counts[name] > 1]:
        raise ValueError(f"{path}: has {counts[twins[0]]} columns of the name {twins[0]!r}; rename all but one")


def check_texts(path: str, schema: pa.Schema, names: Iterable[str | None]) -> None:
    """Refuse a table in which a column that must hold text holds something else. Raises ValueError: names the column
    and its type."""
    for name in names:
        if name is not None and not holds_text(kind := schema.field(name).type):
            raise ValueError(f"{path}: column {name!r} holds {kind}, not text; name another column")


def holds_text(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold texts: strings, bytes, dictionaries and lists of them, or nothing."""
    types = pa.types
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    if types.is_dictionary(kind) or any(check(kind) for check in lists):
        return holds_text(kind.value_type)
    return types.is_null(kind) or _is_text(kind) or is_bytes(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes, in any of Arrow's layouts."""
    types = pa.types
    if types.is_dictionary(kind):
        return is_bytes(kind.value_type)
    checks = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(check(kind) for check in checks)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _parquet_rows(
    path: str, opened: IO[bytes], check: CheckNames, columns: set[str], texts: set[str | None]
) -> Iterator[Row]:
    try:
        with pq.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            refuse_twins(path, names, columns)
            check(names)
            check_texts(path, file.schema_arrow, texts)
            number = 0
            for batch in file.iter_batches(columns=[name for name in names if name in columns]):
                for cells in batch_rows(batch):
                    number += 1
                    yield Row(f"row {number}", cells)
    except pa.ArrowException as error:
        raise ValueError(f"{path}: cannot be read as Parquet: {error}") from None


def batch_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The rows of a batch; a string that is not UTF-8 is decoded as any text, and a cell that has no value in Python
    is None."""
    columns = [_values(column) for column in batch.columns]
    if not columns:
        yield from ({} for _ in range(batch.num_rows))
    for row in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, row, strict=True))


def _values(column: pa.Array) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):  # of one cell; a UnicodeDecodeError is a ValueError
        return [_value(cell) for cell in column]
    return values


def _value(cell: pa.Scalar) -> Any:
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        if isinstance(cell, pa.DictionaryScalar):
            return _value(cell.value)
        if _is_text(cell.type):
            return decode(cell.as_buffer().to_pybytes())
        return [_value(one) for one in cell.values] if isinstance(cell, pa.ListScalar) else None


class _Lines:
    """The lines of a text file; those that a row has taken can be given back."""

    def __init__(self, opened: IO[bytes], newline: str | None) -> None:
        """Find the encoding from the first bytes, then decode line by line."""
        encoding = encoding_of(opened.read(1 << 16)) or "utf-8"  # of which a line may be none
        opened.seek(0)
        errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
        self._text = io.TextIOWrapper(opened, encoding=encoding, errors=errors, newline=newline)
        self._again: deque[str] = deque()
        self.taken: list[str] = []
        """Lines of the row that is being read."""
        self.num_read = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._text.readline(LONGEST_LINE + 1)
        if not line:
            raise StopIteration
        self.num_read += 1
        self.taken.append(line)
        return mended(line)

    def too_long(self) -> bool:
        """Whether the last line is too long; the rest of it is passed over."""
        line = self.taken[-1]
        if len(line) <= LONGEST_LINE:
            return False
        while line and not line.endswith(("\n", "\r")):
            line = self._text.readline(LONGEST_LINE)
        return True

    def give_back(self) -> None:
        """Read the lines that a row has taken once more, all but its first."""
        self._again.extendleft(reversed(self.taken[1:]))
        self.num_read -= len(self.taken) - 1

    def at_end(self) -> bool:
        if not self._again and (line := self._text.readline(LONGEST_LINE + 1)):
            self._again.append(line)
        return not self._again


def _csv_rows(path: str, opened: IO[bytes], check: CheckNames, columns: set[str]) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_LINE)
    lines = _Lines(opened, newline="")
    sign, reader = ",", csv.reader(lines)
    try:
        names = next(reader, None)
        if names is not None and len(names) == 1:
            sign = next((sign for sign in SEPARATORS if sign in names[0]), ",")
            names = next(csv.reader(map(mended, lines.taken), delimiter=sign))
            reader = csv.reader(lines, delimiter=sign)
    except csv.Error as error:
        raise ValueError(f"{path}: cannot be read as CSV: {error}") from None
    if names is None:
        return
    refuse_twins(path, names, columns)
    check(names)
    while True:
        lines.taken.clear()
        place = f"line {lines.num_read + 1}"
        try:
            cells = next(reader)
            broken = "is too long" if lines.too_long() else _csv_damage(cells, names, lines, sign)
        except StopIteration:
            return
        except csv.Error as error:
            cells, broken = [], "is too long" if lines.too_long() else f"is not CSV: {error}"
        if broken is not None:
            lines.give_back()
            yield Row(place, {}, broken)
        elif cells:
            yield Row(place, dict(itertools.zip_longest(names, cells[: len(names)])))


def _csv_damage(cells: list[str], names: list[str], lines: _Lines, sign: str) -> str | None:
    """Why a row is not the one that was written, as far as its form tells."""
    if len(lines.taken) > 1 or lines.at_end():
        try:
            list(csv.reader(lines.taken, delimiter=sign, strict=True))
        except csv.Error as error:
            if len(lines.taken) > 1 or "end of data" in str(error):
                return "opens a quote that is not closed"
    if any(cell.strip() for cell in cells[len(names) :]):
        return f"has {len(cells)} cells for {len(names)} columns; a text with {SEPARATORS[sign]} needs quotes around it"
    return None


def _jsonl_rows(path: str, opened: IO[bytes], check: CheckNames) -> Iterator[Row]:
    names: dict[str, None] = {}
    num_rows, first_broken = 0, None
    lines = _Lines(opened, newline=None)
    for number, line in enumerate(lines, start=1):
        row = Row(f"line {number}", {}, "is too long") if lines.too_long() else _json_row(number, line)
        lines.taken.clear()
        if row is None:
            continue
        if row.broken is None:
            num_rows += 1
            names |= dict.fromkeys(row.cells)
        else:
            first_broken = first_broken or row
        yield row
    if first_broken is not None and not num_rows:
        raise ValueError(f"{path}: {first_broken.place} {first_broken.broken}")
    if num_rows:
        check(names)


def _json_row(number: int, line: str) -> Row | None:
    place = f"line {number}"
    if not line.strip():
        return None
    try:
        value = parse_json(line)
    except NotText as error:
        return Row(place, {}, str(error))
    return Row(place, value) if type(value) is dict else Row(place, {}, "is no JSON object")
