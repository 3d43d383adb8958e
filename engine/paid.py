"""Rows that cost money, such as captions: what was paid for is on the disk batch by batch, and no build forgets it."""

from __future__ import annotations

import logging
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.dataset import Dataset, as_stored, commit_table, content_digest, read_parquet, schema_of
from engine.names import DIGITS, names_in
from schemas.files import copy_file, entries_in, find_files, remove_folder
from schemas.late import late

with late(__name__):
    import pyarrow as pa

log = logging.getLogger(__name__)

_PART = re.compile(r"part-(\d{5,})(?:\.|$)", re.ASCII)


@dataclass(frozen=True)
class Paid:
    """The rows that were paid for in one part of a table: those `noted` batch by batch while the part is computed, and
    the `earlier` ones, of all times that it was whole. A file is there whole or not at all, and is named by its
    content. So a killed worker loses the batch it was at, a full disk loses no earlier one, and two workers that hold
    the same part for a moment (one was thought lost) never write into each other's file."""

    folder: Path
    """Of the table."""
    table: str
    number: int
    names: Sequence[str] | None = None
    """Of the files of the earlier rows; None has them listed when they are wanted."""

    @classmethod
    def of(cls, dataset: Dataset, table: str, number: int, names: Sequence[str] | None = None) -> Paid:
        """What was paid for in a part; nothing is made on the disk."""
        return cls(paid_folder(dataset, table), table, number, names)

    @property
    def batches(self) -> Path:
        """The folder of the rows noted since the part was last whole."""
        return self.folder / f"part-{self.number:05d}"

    def earlier(self) -> pa.Table:
        """The rows of parts that were whole once. Raises ValueError: a file is damaged."""
        names = earlier_names(self.folder).get(self.number, ()) if self.names is None else self.names
        return self._rows([read_parquet(self.folder / name) for name in names])

    def noted(self) -> pa.Table:
        """The rows noted since. A batch that is damaged counts as not written."""
        found = []
        for path in find_files(self.batches, "[!.]*.parquet"):
            try:
                found.append(read_parquet(path))
            except ValueError as error:
                log.warning("%s: its rows are computed again", error)
        return self._rows(found)

    def note(self, rows: pa.Table) -> None:
        """Make some rows durable. Raises OSError: the disk is full or fails."""
        rows = as_stored(self.table, rows)
        commit_table(self.batches / f"{content_digest(rows)[:DIGITS]}.parquet", rows, schema_of(self.table), {})

    def keep(self, rows: pa.Table) -> None:
        """Put rows among the earlier ones."""
        if rows.num_rows:
            rows = as_stored(self.table, rows)
            name = f"part-{self.number:05d}.{content_digest(rows)[:DIGITS]}.parquet"
            commit_table(self.folder / name, rows, schema_of(self.table), {})

    def settle(self) -> None:
        """Put the noted rows among the earlier ones, once their part is committed."""
        self.keep(self.noted())
        remove_folder(self.batches)

    def _rows(self, found: list[pa.Table]) -> pa.Table:
        return pa.concat_tables([schema_of(self.table).empty_table(), *(as_stored(self.table, rows) for rows in found)])


def paid_folder(dataset: Dataset, table: str) -> Path:
    return dataset.root / "paid" / table


def earlier_names(folder: Path) -> dict[int, tuple[str, ...]]:
    """Part of a table -> the names of the files of its earlier rows, in order."""
    found: dict[int, tuple[str, ...]] = {}
    for path in find_files(folder, "part-*.*.parquet"):
        if (number := _number_of(path)) is not None:
            found[number] = (*found.get(number, ()), path.name)
    return found


def paid_files(dataset: Dataset, numbers: Container[int | None] | None = None) -> Iterator[tuple[str, Path]]:
    """The files of all rows that were paid for in some parts or in all, and their tables."""
    for path in find_files(paid_folder(dataset, ""), "**/[!.]*.parquet"):
        part = path if _number_of(path) is not None else path.parent
        number = _number_of(part)
        if number is not None and (numbers is None or number in numbers):
            yield str(part.parent.relative_to(paid_folder(dataset, ""))), path


def take_back(dataset: Dataset, table: str, path: Path) -> None:
    """Give a file of earlier rows that is gone its rows again, where the part that they were is still in the table."""
    for name in names_in(dataset.folder(table)):
        if path.name == f"part-{name.number:05d}.{name.content}.parquet":
            copy_file(dataset.folder(table) / name.file, path)
            return


def _number_of(path: Path) -> int | None:
    """The number of the part that a file or folder of paid rows belongs to; None for what a stranger has put there."""
    match = _PART.match(path.name)
    return int(match[1]) if match else None


def settle_all(dataset: Dataset, table: str) -> None:
    """Put all noted rows of a table among the earlier ones, once the table is whole."""
    for name in sorted(entries_in(paid_folder(dataset, table))):
        if name.startswith("part-") and "." not in name:
            Paid.of(dataset, table, int(name.removeprefix("part-"))).settle()
