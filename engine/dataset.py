"""A dataset on disk: the path of everything, how a table is committed, and what made each table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.content import content_digest as content_digest
from engine.damage import explaining_damage
from engine.names import DIGITS, Held, PartName
from engine.place.lease import leased
from engine.place.store import Store
from schemas.commit import file_lock
from schemas.files import TEMPORARY, NoFile, address_of, entries_in, is_file, parquet_source, sweep_folder
from schemas.late import late
from schemas.seal import BrokenSeal, check_file, check_footer, read_json, sealed_write, write_json

with late(__name__):
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from schemas.tables import refuse_other_columns, schema_of, with_added

STORED: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
"""How Parquet stores the rows of a part."""
ROW_GROUP_ROWS = 65536

PLAN_GROUP_ROWS = 4096
"""Rows per row group of the plan: its rows are wide, and each shard's writer reads a few hundred of them."""

PROXY_GROUP_ROWS = 128
"""Rows per row group of the proxies, of which a page shows a few."""


@dataclass(frozen=True)
class JobRecord:
    """The record of what makes a table. Which parts of it hold follows from it, see `engine.names`."""

    job: str
    knobs: dict[str, Any]
    """The part of the recipe the job depends on, keyed by dotted path."""
    inputs: list[str]
    """The tables it reads."""
    shards: list[str] | None = None
    """Of `shard_plan`: the digest of the rows of each shard, which is what the shard is made from."""
    failed: list[int] | None = None
    """Rows that failed and rows that were tried, where the last run ended with too many failures."""


@dataclass(frozen=True)
class Dataset:
    """Paths of one dataset folder. Making one touches nothing."""

    root: Path
    """In a store: its `schemas.files.mount_point`."""

    @property
    def store(self) -> Store | None:
        """The store that it is kept in; None for a folder of this machine."""
        address = address_of(self.root)
        return None if address is None else Store.at(address)

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

    @property
    def is_evaluation(self) -> bool:
        """Whether it is the folder of an evaluation, begun or finished, whose tables are made from `prompts`."""
        return is_file(self.record_path("prompts"))

    def names(self) -> set[str]:
        """The names of what is in its folder, but for locks, which any command may have left, and what is half
        written."""
        return {name for name in entries_in(self.root) if not name.startswith((".lock", TEMPORARY))}

    def folder(self, table: str) -> Path:
        """Folder of the parts of a table."""
        return self.tables / table

    def held(self) -> Held:
        """The parts that hold now."""
        return Held(self)

    def held_with(self, *tables: str, named_by: str = "") -> Held:
        """The same, of a dataset that has these tables. `named_by`: begins the error's text. Raises ValueError: one of
        them has no part, or an earlier version wrote the dataset."""
        held = self.held()
        for table in tables:
            if not held.parts(table):
                self.record("listing")  # an earlier version's is refused
                raise ValueError(f"{named_by}{self.root}: no dataset with {table}; build it with sigma build first")
        return held

    def part(self, table: str, number: int) -> Path:
        """The file that holds as part `number` of a table; `held` serves whoever needs more than one. Raises
        ValueError: there is none."""
        return self.held().path(table, number)

    def parts(self, table: str) -> list[Path]:
        """The files of a table that hold, in order."""
        return self.held().paths(table)

    def record_path(self, table: str) -> Path:
        """Path of the record of what made a table."""
        return self.tables / ".records" / f"{table}.json"

    def record(self, table: str) -> JobRecord | None:
        """What made a table, or None where it was never begun."""
        path = self.record_path(table)
        try:
            values = read_json(path)
            if "upstream" not in values:
                if table == "listing" and not {"sources", "part_rows"} <= {*values["knobs"]}:
                    raise ValueError("is the record of another table")
                return JobRecord(**values)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, BrokenSeal, NoFile, IsADirectoryError) as error:
            raise ValueError(f"{path}: damaged ({error}); delete it to have {table} computed again") from None
        raise self.old_layout()

    def old_layout(self, why: str = "") -> ValueError:
        """The error of a dataset that an earlier version wrote, see `engine.old_layout`. `why`: more about it."""
        how = f"run sigma status {self.root} once where it can be written"
        if self.store is not None:
            how = "copy it to a disk, run sigma status FOLDER once there, and copy it back"
        return ValueError(
            f"{self.root}: has the layout of an earlier version{why}; {how}: its files get other names, and nothing is "
            "computed"
        )

    def write_record(self, table: str, record: JobRecord) -> None:
        """Remember what makes a table; written before its first part."""
        with suppress(ValueError):  # a damaged one is written anew
            if self.store is None and self.record(table) == record:  # to ask a store takes as long as to write
                return
        values = {name: value for name, value in vars(record).items() if value is not None}
        write_json(self.record_path(table), values)

    def refuse_lost_inputs(self, held: Held) -> None:
        """Refuse a dataset whose listing has fewer parts than were listed: the other tables have rows of no input.
        Raises ValueError: with the part that is missing."""
        record, parts = held.record("listing"), held.parts("listing")
        listed = range(sum(source["parts"] for source in record.knobs["sources"]) if record else 0)
        if lost := [number for number in listed if number not in parts]:
            raise ValueError(
                f"{self.folder('listing')}/part-{lost[0]:05d}: missing; a listing is taken once and cannot be computed "
                "again: put the file back, or name another out"
            )

    def read_part(self, table: str, number: int, columns: list[str] | None = None) -> pa.Table:
        """One part of a table. Raises ValueError: it is missing or damaged; the message says how to have it written
        again."""
        return read_parquet(self.part(table, number), columns)

    def read_table(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """All rows of a small table; a column that a part was written before is null there."""
        parts = [read_parquet(path, columns).replace_schema_metadata(None) for path in self.parts(table)]
        empty = schema_of(table).empty_table()
        return pa.concat_tables(
            [empty if columns is None else empty.select(columns), *parts], promote_options="default"
        )

    def commit_part(self, table: str, number: int, made_from: str, rows: pa.Table, content: str | None = None) -> Path:
        """Commit a part under the name of what it was made from and what it holds. `content`: takes the place of the
        digest of the rows."""
        rows = as_stored(table, rows)
        name = PartName(number, made_from, content or content_digest(rows)[:DIGITS])
        path = self.folder(table) / name.file
        if self.lacks(path):
            commit_table(path, rows, schema_of(table), {}, row_group_rows(table))
        return path

    def lacks(self, part: Path) -> bool:
        """Whether a part is to be written; a copy on this machine does not say what the store has."""
        return self.store is not None or not part.is_file()

    def sweep(self) -> None:
        """Delete what a killed run left half written. Call with the lock held."""
        if self.store is None:
            for folder in (self.tables, self.shards, self.runs, self.root / "paid", self.root / "features"):
                sweep_folder(folder)
            for path in self.root.glob(f"{TEMPORARY}*"):
                path.unlink(missing_ok=True)

    def lock(self, shared: bool = False) -> AbstractContextManager[None]:
        """Hold the dataset for writing, as a context. `shared`: with others that write other parts. Raises ValueError:
        another process holds it; the message names it."""

        def refusal(holder: str) -> str:
            return f"{self.root}: {holder} is writing this dataset; wait for it, or stop it and run again"

        if self.store is not None:
            return leased(self.store, refusal, shared)
        return file_lock(self.root / ".lock", refusal, shared)


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A whole Parquet file, every byte of it compared, or some of its columns. Raises ValueError: it is missing or
    damaged."""
    with explaining_damage(path), parquet_source(path, whole=columns is None) as source:
        (check_file if columns is None else check_footer)(source)
        table = pq.ParquetFile(source, page_checksum_verification=True).read(columns)  # read_table takes twice as long
        _refuse_other_columns(path, table, columns)
        return table


def _refuse_other_columns(path: Path, rows: pa.Table, columns: list[str] | None) -> None:
    """Refuse rows without the columns that were asked for, or of a whole part of a table other ones than the table
    has. In a file without a seal a damaged name shows only here, where it is decoded."""
    names = rows.column_names
    if columns is None and path.parent.parent.name in ("tables", "paid"):
        refuse_other_columns(path.parent.name, names)
    if columns is not None and names != columns:
        raise pa.ArrowInvalid(f"no column {sorted({*columns}.difference(names))}")


def row_groups(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a Parquet file or some of their columns, a row group at a time, once every byte of the file is
    compared. The first table has all columns and no row. Raises ValueError: as `read_parquet`, while they are read."""
    with explaining_damage(path), parquet_source(path, whole=True) as source:
        check_file(source)
        file = pq.ParquetFile(source, page_checksum_verification=True)
        yield file.schema_arrow.empty_table()
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns)


def read_some(path: Path, column: str, values: Collection[int], columns: list[str] | None = None) -> pa.Table:
    """The rows of a Parquet file with one of these values in a column, from their row groups; otherwise as
    `read_parquet`."""
    with explaining_damage(path), parquet_source(path) as source:
        check_footer(source)
        file = pq.ParquetFile(source, page_checksum_verification=True)
        places = {leaf.path: place for place, leaf in enumerate(file.schema)}
        if (place := places.get(column)) is None:
            raise pa.ArrowInvalid(f"no column {column}")
        bounds = [file.metadata.row_group(number).column(place).statistics for number in range(file.num_row_groups)]
        groups = [number for number, at in enumerate(bounds) if any(_has(at, value) for value in values)]
        table = file.read_row_groups(groups, columns)
        _refuse_other_columns(path, table, columns)
        return table.filter(pc.field(column).isin(list(values)))


def _has(bounds: pq.Statistics | None, value: int) -> bool:
    return bounds is None or not bounds.has_min_max or bounds.min <= value <= bounds.max


def count_rows(path: Path) -> int:
    """Rows of a Parquet file, from its footer. Raises ValueError: it is missing or damaged."""
    with explaining_damage(path), parquet_source(path) as source:
        check_footer(source)
        return int(pq.read_metadata(source).num_rows)


def commit_table(
    path: Path, table: pa.Table, schema: pa.Schema, metadata: Mapping[str, str], row_group_rows: int = ROW_GROUP_ROWS
) -> None:
    """Write a table aside, make it durable, and give it its name: it is there whole, or not at all.

    The bytes depend on the rows, the schema and the metadata only.
    """
    described = schema.with_metadata({key: metadata[key] for key in sorted(metadata)})
    table = table.select(schema.names).cast(schema).replace_schema_metadata(described.metadata)
    with sealed_write(path) as file:
        pq.write_table(table, file, row_group_size=row_group_rows, **STORED)


def as_stored(table: str, rows: pa.Table) -> pa.Table:
    """Rows in the types of the table's contract: a list that was read back names its items otherwise, and a column
    that the rows were written before is null."""
    rows = with_added(table, rows)
    return rows.select(schema_of(table).names).cast(schema_of(table))


def row_group_rows(table: str) -> int:
    """Rows per row group of a table: fewer where its rows are wide and a few of them are read at a time."""
    return {"shard_plan": PLAN_GROUP_ROWS, "proxies": PROXY_GROUP_ROWS}.get(table, ROW_GROUP_ROWS)
