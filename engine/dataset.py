"""A dataset on disk: the path of everything, how a table is committed, and what made each table."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.content import content_digest as content_digest
from engine.old_names import placed, rename_old_captions
from schemas import tables
from schemas.commit import TEMPORARY, file_lock
from schemas.seal import BrokenSeal, check_file, check_footer, read_json, sealed_write, write_json
from schemas.tables import schema_of as schema_of

DIGEST_KEY = b"sigma.digest"
"""Parquet metadata: what a part was computed from, so that an unchanged part is never computed again."""

CONTENT_KEY = b"sigma.content"
"""Parquet metadata: digest of the rows of a part, which is what the parts made from it depend on."""

ROW_GROUP_ROWS = 65536

DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What reading a damaged Parquet file raises."""


@dataclass(frozen=True)
class JobRecord:
    """The record of what made a table. It is compared with the recipe before anything is reused."""

    job: str
    knobs: dict[str, Any]
    """The part of the recipe the job depends on, keyed by dotted path."""
    upstream: dict[str, str]
    """Fingerprint of every table it read."""
    fingerprint: str
    """Names knobs and upstream together."""


@dataclass(frozen=True)
class Dataset:
    """Paths of one dataset folder. Making one touches nothing."""

    root: Path

    @property
    def tables(self) -> Path:
        """Folder of the Parquet tables."""
        return self.root / "tables"

    @property
    def shards(self) -> Path:
        """Folder of the tars and their index."""
        return self.root / "shards"

    def fetched(self, source: int) -> Path:
        """Folder of what was downloaded for a source, by its place in the recipe."""
        return self.root / "fetched" / f"source-{source:02d}"

    @property
    def runs(self) -> Path:
        """Folder of one JSON file per job that ran."""
        return self.root / "runs"

    @property
    def recipe(self) -> Path:
        """The resolved recipe that made this dataset."""
        return self.root / "recipe.yaml"

    @property
    def catalog(self) -> Path:
        """DuckDB views; may be deleted."""
        return self.root / "catalog.duckdb"

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.root / "report.html"

    def part(self, table: str, number: int) -> Path:
        """Path of part `number` of a map table."""
        return placed(self.tables, table) / f"part-{number:05d}.parquet"

    def parts(self, table: str) -> list[Path]:
        """The committed parts of a map table, in order."""
        return sorted(placed(self.tables, table).glob("part-*.parquet"), key=lambda path: (len(path.name), path.name))

    def files(self, table: str) -> list[Path]:
        """The committed files of a table."""
        if tables.is_map_table(table):
            return self.parts(table)
        return [path for path in (self.reduced(table),) if path.is_file()]

    def map_tables(self) -> list[str]:
        """Every map table: those of the contract, written or not, then `extra_captions`."""
        return [*tables.MAP_TABLES, *self.extra_captions()]

    def extra_captions(self) -> list[str]:
        """The map tables `captions_beside/<captioner>` that have a part or a record."""
        parts = (self.tables.glob(f"{folder}[!.]*/part-*.parquet") for folder in (tables.BESIDE, tables.BESIDE_ONCE))
        records = (self.tables.glob(f".records/{folder}[!.]*.json") for folder in (tables.BESIDE, tables.BESIDE_ONCE))
        names = {*(path.parent.name for path in chain(*parts)), *(path.stem for path in chain(*records))}
        return sorted(tables.BESIDE + name for name in names)

    def has_rows(self, table: str) -> bool:
        """Whether anything of a table is on the disk."""
        return bool(self.files(table))

    def reduced(self, table: str) -> Path:
        """Path of a reduce table."""
        return self.tables / f"{table}.parquet"

    def previous(self, table: str) -> Path:
        """Where the parts of an outdated map table wait for their unchanged rows to be taken over."""
        return self.tables / ".previous" / table

    def paid(self, table: str, number: int) -> Path:
        """Rows of a part that cost much and that a rule has dropped since; taken up again when it is loosened."""
        return self.root / ".paid" / table / f"part-{number:05d}.parquet"

    def record_path(self, table: str) -> Path:
        """Path of the record of what made a table."""
        return placed(self.tables / ".records", f"{table}.json")

    def record(self, table: str) -> JobRecord | None:
        """What made a table, or None where it was never begun."""
        path = self.record_path(table)
        if not path.is_file():
            return None
        try:
            return JobRecord(**read_json(path))
        except (ValueError, TypeError, BrokenSeal) as error:
            raise ValueError(f"{path}: damaged ({error}); delete it to have {table} computed again") from None

    def recorded(self) -> list[str]:
        """The tables that were begun."""
        folder = self.tables / ".records"
        return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.json"))

    def write_record(self, table: str, record: JobRecord) -> None:
        """Remember what makes a table; written before its first part."""
        write_json(self.record_path(table), vars(record))

    def num_parts(self) -> int:
        """Parts of the listing, which is what every map table is divided into."""
        return len(self.parts("listing"))

    def refuse_lost_inputs(self) -> None:
        """Refuse a dataset whose listing has fewer parts than were listed: the other tables have rows of no input.

        Raises:
            ValueError: with the part that is missing.
        """
        record = self.record("listing")
        listed = range(sum(source["parts"] for source in record.knobs["sources"]) if record else 0)
        if lost := {self.part("listing", number) for number in listed}.difference(self.parts("listing")):
            raise ValueError(
                f"{min(lost)}: missing; a listing is taken once and cannot be computed again: put the file back, "
                "or name another out"
            )

    def num_values(self, table: str, column: str) -> int:
        """Values 0, 1, ... of a column by which a reduce table is sorted; 0 without the table or without rows."""
        path = self.reduced(table)
        last = last_value(path, column) if path.is_file() else None
        return 0 if last is None else int(last) + 1

    def part_done(self, table: str, number: int) -> bool:
        """A part that exists under its name is whole."""
        return self.part(table, number).is_file()

    def read_part(self, table: str, number: int, columns: list[str] | None = None) -> pa.Table:
        """One part of a map table; see `read_parquet`."""
        return read_parquet(self.part(table, number), columns)

    def read_range(self, table: str, column: str, first: int, last: int) -> pa.Table:
        """The rows of a reduce table with first <= column <= last."""
        return read_some(self.reduced(table), column, first, last)

    def sweep(self) -> None:
        """Delete what a killed run left half written, and rename what had other names. Call with the lock held."""
        rename_old_captions(self)
        for folder in (self.tables, self.shards, self.runs, self.root / ".paid", self.root / "features"):
            sweep_folder(folder)
        for path in self.root.glob(f"{TEMPORARY}*"):
            path.unlink(missing_ok=True)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the dataset for writing, as a context.

        Raises:
            ValueError: another process holds it; the message names it.
        """
        return file_lock(
            self.root / ".lock",
            lambda holder: f"{self.root}: {holder} is writing this dataset; wait for it, or stop it and run again",
        )


@contextmanager
def explaining_damage(path: Path) -> Iterator[None]:
    """Say what to do about a Parquet file that cannot be read inside.

    Raises:
        ValueError: it is missing or damaged.
    """
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; run sigma build again to have it written") from None
    except DAMAGE as error:
        raise ValueError(f"{path}: damaged ({error}); delete it and run sigma build again") from None


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A whole Parquet file, every byte of it compared, or some of its columns.

    Raises:
        ValueError: it is missing or damaged.
    """
    with explaining_damage(path):
        (check_file if columns is None else check_footer)(path)
        table = pq.ParquetFile(path, page_checksum_verification=True).read(columns)  # read_table takes twice as long
        if columns is not None and table.column_names != columns:
            raise pa.ArrowInvalid(f"no column {sorted({*columns}.difference(table.column_names))}")
        _ = table.column_names  # in a file without a seal a damaged name shows only when it is decoded
        return table


def read_some(path: Path, column: str, first: int, last: int) -> pa.Table:
    """The rows of a Parquet file with first <= column <= last, from their row groups; otherwise as `read_parquet`."""
    with explaining_damage(path):
        check_footer(path)
        file = pq.ParquetFile(path, page_checksum_verification=True)
        (place,) = [place for place, leaf in enumerate(file.schema) if leaf.path == column]
        bounds = [file.metadata.row_group(number).column(place).statistics for number in range(file.num_row_groups)]
        rows = file.read_row_groups([number for number, at in enumerate(bounds) if _overlaps(at, first, last)])
        return rows.filter((pc.field(column) >= first) & (pc.field(column) <= last))


def _overlaps(bounds: pq.Statistics | None, first: int, last: int) -> bool:
    return bounds is None or not bounds.has_min_max or (bounds.min <= last and bounds.max >= first)


def count_rows(path: Path) -> int:
    """Rows of a Parquet file, from its footer.

    Raises:
        ValueError: it is missing or damaged.
    """
    with explaining_damage(path):
        return _count_rows(path, (stat := path.stat()).st_ino, stat.st_mtime_ns, stat.st_size)


@lru_cache(1 << 16)
def _count_rows(path: Path, *_stamp: object) -> int:
    check_footer(path)
    return int(pq.read_metadata(path).num_rows)


def last_value(path: Path, column: str) -> Any:
    """A column's value in the last row of a Parquet file, of which only the last row group is read; None without rows.

    Raises: as `read_parquet`.
    """
    with explaining_damage(path):
        check_footer(path)
        file = pq.ParquetFile(path, page_checksum_verification=True)
        if not file.metadata.num_rows:
            return None
        return file.read_row_group(file.num_row_groups - 1, [column])[column][-1].as_py()


def digest_of(path: Path, key: bytes = DIGEST_KEY) -> str | None:
    """What a committed part was computed from (or its `CONTENT_KEY`), out of its footer; None where it has none."""
    try:
        check_footer(path)
        metadata = pq.read_schema(path).metadata or {}
    except DAMAGE:
        return None
    value = metadata.get(key)
    return value.decode() if value else None


def commit_table(
    path: Path, table: pa.Table, schema: pa.Schema, metadata: Mapping[str, str], row_group_rows: int = ROW_GROUP_ROWS
) -> None:
    """Write a table aside, make it durable, and give it its name: it is there whole, or not at all.

    The bytes depend on the rows, the schema and the metadata only.
    """
    described = schema.with_metadata({key: metadata[key] for key in sorted(metadata)})
    table = table.select(schema.names).cast(schema).replace_schema_metadata(described.metadata)
    with sealed_write(path) as file:
        pq.write_table(table, file, compression="zstd", row_group_size=row_group_rows, write_page_checksum=True)


def set_aside(dataset: Dataset, table: str) -> None:
    """Move the parts of an outdated map table to where those whose inputs did not change are taken back from."""
    previous = dataset.previous(table)
    for path in dataset.parts(table):
        previous.mkdir(parents=True, exist_ok=True)
        path.rename(previous / path.name)


def forget_inputs(dataset: Dataset, table: str) -> None:
    """Let no part that `set_aside` moved be taken back: each is rewritten without the digest of its inputs, and deleted
    where it is damaged."""
    for path in dataset.previous(table).glob("part-*.parquet"):
        try:
            rows = read_parquet(path)
        except ValueError:
            path.unlink()
            continue
        if DIGEST_KEY in (rows.schema.metadata or {}):
            commit_table(path, rows, rows.schema.remove_metadata(), {})


def delete_set_aside(dataset: Dataset, table: str) -> None:
    """Delete what `set_aside` moved, once the new table is whole."""
    remove_folder(dataset.previous(table))


def sweep_folder(folder: Path) -> None:
    """Delete what killed runs left half written or half deleted below a folder."""
    for path in list(folder.rglob(f"{TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder: all of it loses its name at once, and `sweep_folder` deletes what a kill leaves of it."""
    if folder.is_dir():
        shutil.rmtree(folder.rename(folder.with_name(f"{TEMPORARY}{os.getpid()}{folder.name}")), ignore_errors=True)
