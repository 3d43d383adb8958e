"""DuckDB over a dataset: one view per table, and the ledger, in which every input is one row."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import cache, partial, reduce
from importlib import resources
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from engine.ahead import ahead, of_each
from engine.damage import explaining_damage
from engine.dataset import Dataset
from engine.duck import (
    SPILLED,
    Connection,
    duckdb_type,
    explaining_tables,
    glob_safe,
    literal,
    read_parts,
    spill_into,
    start,
)
from engine.names import Held, names_in
from schemas.columns import BESIDE, MEANINGS, TABLES, WIDE_TABLES, added_to, is_captions, meaning
from schemas.commit import write_bytes
from schemas.files import at_hand, entries_in
from schemas.late import late
from schemas.seal import check_footer
from schemas.strict import DUCKDB_MEMORY, fingerprint

with late(__name__):
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    from schemas.tables import refuse_other_columns, schema_of

_BESIDE, _OVER = "captions_beside", ("raw_offers", "ledger")
"""The view of all further captioners, and the views that read other views."""

_FIRST_FILES, _QUICK_S = 32, 0.0005
"""Files that are compared one by one, and the seconds for each below which all others are."""


def connect(
    dataset: Dataset,
    memory: str = DUCKDB_MEMORY,
    threads: int | None = None,
    reads: Iterable[str] | None = None,
    check: Callable[[Path], object] = check_footer,
    held: Held | None = None,
) -> duckdb.DuckDBPyConnection:
    """An in-memory connection with a temporary view per table and the ledger; it spills into the dataset folder.

    DuckDB compares no checksum of a file, so the files are compared with their seals here.

    Args:
        reads: the tables and views that will be read, None is all: no other file is compared, other views are empty.
        check: compares a file; `check_file` compares every byte of it.
        held: its parts, of a dataset that was looked at; None looks at it.

    Raises:
        ValueError: the folder is no dataset, or a file of it is damaged.
    """
    held = held or _looked_at(dataset)
    _check_seals(held, reads, check)
    connection = database(dataset, memory, threads).cursor()
    connection.execute("SET preserve_insertion_order = true")  # a job may have changed it
    create_views(connection, held, reads, own=True)
    return connection


def _looked_at(dataset: Dataset) -> Held:
    require_dataset(dataset)
    held = dataset.held()
    dataset.refuse_lost_inputs(held)
    mend_catalog(dataset)
    return held


_databases: dict[int, tuple[tuple[str, int | None], Dataset, Connection]] = {}
"""Process -> the settings of the DuckDB that it connected to last, and into which dataset that spills. To start one
takes longer than most queries take. A process that is forked leaves its parent's alone."""


def database(dataset: Dataset, memory: str | None = None, threads: int | None = None) -> Connection:
    """The DuckDB of this process, to take a cursor of; `memory` is its limit, None that of this dataset's last."""
    process = os.getpid()
    known, spills_into, connection = _databases.get(process, (None, None, None))
    settings = known if known and memory is None and spills_into == dataset else (memory or DUCKDB_MEMORY, threads)
    if connection is None or known != settings or (spills_into != dataset and not spill_into(connection, dataset)):
        connection = start(dataset, *settings)
        create_views(connection, dataset.held(), reads=())
    _databases[process] = settings, dataset, connection
    return connection


def sweep_spilled(dataset: Dataset) -> None:
    """Delete what queries have spilled into the dataset folder, or left there when they were killed."""
    spilled = dataset.root / SPILLED
    if spilled.is_dir():
        there = _databases.get(os.getpid())
        if there and not spill_into(there[2], there[1]):
            del _databases[os.getpid()]  # it would look for its files
        shutil.rmtree(spilled, ignore_errors=True)


def _check_seals(held: Held, reads: Iterable[str] | None, check: Callable[[Path], object] = check_footer) -> None:
    def explained(reading: Callable[[Path], object], path: Path) -> None:
        with explaining_damage(path):
            reading(path)

    checked = partial(explained, check)
    names = _tables_of(reads) - {*_not_copied(held, reads)}
    tables = (table for name in names for table in (held.extra_captions() if name == _BESIDE else [name]))
    paths, begun = [path for table in tables for path in held.paths(table)], time.perf_counter()
    for _ in of_each(partial(explained, at_hand), paths):
        pass
    for path in paths[:_FIRST_FILES]:
        checked(path)
    is_quick = time.perf_counter() - begun < _FIRST_FILES * _QUICK_S  # threads would take longer than they gain
    for _ in ahead(checked, paths[_FIRST_FILES:], threads=1 if is_quick else 4):
        pass


def connect_read_only(dataset: Dataset, reads: Iterable[str] | None = None, memory: str = DUCKDB_MEMORY) -> Connection:
    """A connection that sees the dataset and nothing else, and whose settings no query can change; see `connect`."""
    held = _looked_at(dataset)
    _check_seals(held, reads)
    connection = start(dataset, memory)
    create_views(connection, held, reads)
    roots = [literal(str(dataset.root)), literal(glob_safe(dataset.root))]  # a pattern is checked as it is written
    connection.execute(f"SET allowed_directories = [{', '.join(roots)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def require_dataset(dataset: Dataset) -> None:
    """Refuse a folder that holds no dataset. Raises ValueError: with the command that makes one, or those that take
    what it is."""
    from engine.old_layout import bring_up_to_date  # which cuts tables as a reduce job does

    if dataset.is_evaluation:
        instead = "sigma report and sigma browse show it, sigma status says how far it is"
        raise ValueError(f"{dataset.root}: is an evaluation and no dataset; {instead}")
    if bring_up_to_date(dataset):
        write_catalog(dataset)  # which named the old files
    if not names_in(dataset.folder("listing")):
        below = [dataset.root / name for name in entries_in(dataset.root) if Dataset(dataset.root / name).is_evaluation]
        make = f"make one with sigma build RECIPE out={dataset.root}"
        raise ValueError(f"{dataset.root}: no dataset here; {f'name the evaluation {min(below)}' if below else make}")


def write_catalog(dataset: Dataset) -> Path:
    """Write `catalog.duckdb`: the views over absolute paths, so that `duckdb catalog.duckdb` works from anywhere.

    The meaning of each column is its comment there, and the comment of a view says where the dataset is and which views
    these are: a catalog that has them already is left as it is. Every DuckDB since 1.0 opens it.
    """
    if dataset.store is not None:
        return dataset.catalog  # its views would name copies on one machine
    views = _views(dataset.held())
    mark = f"{_place(dataset)} {fingerprint(views)}"
    if mark.encode() in _written(dataset):
        return dataset.catalog
    with tempfile.TemporaryDirectory() as folder:  # DuckDB cannot write a database under a folder with ? in its name
        aside = Path(folder) / dataset.catalog.name
        with database(dataset).cursor() as connection:
            name = f"catalog_{threading.get_ident()}"
            connection.execute(f"ATTACH {literal(str(aside))} AS {name} (STORAGE_VERSION 'v1.0.0'); USE {name}; BEGIN")
            end = "ROLLBACK"
            try:
                with explaining_tables():
                    for sql in views:
                        connection.execute(sql)
                marks = (f"COMMENT ON VIEW {view} IS {literal(mark)}" for view in (*TABLES, *_OVER))
                connection.execute(";".join([*_meanings(connection), *marks]))
                end = "COMMIT"
            finally:
                connection.execute(f"{end}; USE memory; DETACH {name}")
        write_bytes(dataset.catalog, aside.read_bytes())
    return dataset.catalog


def _meanings(connection: Connection) -> list[str]:
    columns = described_columns(connection)
    return [f"COMMENT ON COLUMN {view}.{column} IS {literal(text)}" for view, column, _, text in columns]


def mend_catalog(dataset: Dataset) -> None:
    """Write `catalog.duckdb` anew where the dataset was moved, copied or written before a table gained columns.

    A dataset that cannot be written keeps the catalog that it has, and so does a damaged one.
    """
    with suppress(OSError, ValueError):
        written = b"" if dataset.store is not None else _written(dataset)
        if written[8:12] == b"DUCK" and _place(dataset).encode() not in written:  # doctor says what is no database
            write_catalog(dataset)


def _written(dataset: Dataset) -> bytes:
    return dataset.catalog.read_bytes() if dataset.catalog.is_file() else b""


def _place(dataset: Dataset) -> str:
    """Begins the comment of each view: DuckDB may cut one in two where it writes it, but not all of them."""
    return f"of the dataset in {dataset.root.absolute()}, columns {fingerprint(str(TABLES))}."


def create_views(connection: Connection, held: Held, reads: Iterable[str] | None = None, own: bool = False) -> None:
    """One view per table over the parts that hold (empty where its job has not run), the captions of extra captioners,
    the raw captions as the mix is offered them, then the ledger.

    Args:
        reads: as in `connect`.
        own: temporary ones of this connection, and none of what is not read.

    Raises:
        ValueError: a file is damaged.
    """
    with explaining_tables():
        for sql in _views(held, reads, others=not own):
            connection.execute(sql.replace(" VIEW", " TEMPORARY VIEW", 1) if own else sql)


def _views(held: Held, reads: Iterable[str] | None = None, others: bool = True) -> list[str]:
    """The statements that make the views, and with `others` empty ones of what is not read."""
    names = {*TABLES, _BESIDE, *_OVER} if reads is None else set(reads)
    tables, absent = _tables_of(names), _not_copied(held, reads)
    selects = {
        table: select_table(held, table) if table in tables else _select_nothing(schema_of(table))
        for table in TABLES
        if (others or table in tables) and table not in absent
    }
    beside = [table for table in held.extra_captions() if {table, _BESIDE} & tables]
    if others or beside or _BESIDE in tables:
        selects[_BESIDE] = _select_beside(held, beside)
    made = [f"CREATE OR REPLACE VIEW {view} AS {select}" for view, select in selects.items()]
    return [*made, *(_sql_of(view) for view in _OVER if others or view in names)]


def _not_copied(held: Held, reads: Iterable[str] | None) -> Collection[str]:
    """Tables that have no view where all are to be read, because they would be copied here whole."""
    return WIDE_TABLES if reads is None and held.dataset.store is not None else ()


def named_in(sql: str) -> set[str]:
    """The tables that a query reads, and perhaps others: those whose names are words in it, or read by a view whose
    name is; all of them where it puts names together."""
    words = _words(sql)
    return _tables_of(None if words & {"query", "query_table"} else words & {*TABLES, _BESIDE, *_OVER})


def _tables_of(reads: Iterable[str] | None) -> set[str]:
    """Tables and views, with the tables that a view reads in its place; None is all of them."""
    names = {*TABLES, _BESIDE} if reads is None else set(reads)
    return {table for name in names for table in (_words(_sql_of(name)) & {*TABLES} if name in _OVER else [name])}


def _words(sql: str) -> set[str]:
    return set(re.findall(r"\w+", sql.lower()))


@cache
def _sql_of(view: str) -> str:
    sql = resources.files("engine").joinpath(f"{view}.sql").read_text(encoding="utf-8")
    return re.sub("--.*", "", sql)


def described_columns(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str, str]]:
    """(view, column, type, meaning) of every column, views in the order of the jobs, the ledger last."""
    found = connection.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() "
        "WHERE NOT internal AND database_name = current_database() ORDER BY column_index"
    ).fetchall()
    views = list(MEANINGS)
    described = [(view, column, kind, meaning(view, column) or "") for view, column, kind in found if view in MEANINGS]
    return sorted(described, key=lambda row: views.index(row[0]))


def columns_query(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """The rows of `described_columns` as the result of a query."""
    columns = [list(column) for column in zip(*described_columns(connection), strict=True)]
    names = ("view", '"column"', "type", "meaning")
    return connection.execute(f"SELECT {', '.join(f'unnest(?) AS {name}' for name in names)}", columns)


def select_table(held: Held, table: str) -> str:
    """SELECT of a whole table, or of no rows of its contract where it does not exist. Files that lack other columns are
    read apart: DuckDB's `union_by_name` takes 40 kB of memory for each file."""
    contract, paths = schema_of(table), held.paths(table)
    if not paths:
        return _select_nothing(contract)
    lacking = partial(_lacking, table=table)
    grown = is_captions(table) or table == "samples" or any(of_each(lacking, [paths[0], paths[-1]]))
    lacks = list(of_each(lacking, paths)) if grown else [frozenset[str]()] * len(paths)
    runs = groupby(zip(paths, lacks, strict=True), itemgetter(1))
    selects = [f"SELECT * FROM {read_parts(path for path, _ in run)}" for _, run in runs]
    # two at a time: a view of three prints otherwise once it is stored, which doctor would take for another view
    both = "SELECT * FROM ({}) UNION ALL BY NAME {}".format
    return reduce(both, [_select_nothing(contract), *selects] if any(lacks) else selects)


def _select_beside(held: Held, captions: Iterable[str]) -> str:
    """SELECT of the captions of extra captioners, and `source`, each one's name in the recipe."""
    selects = [
        f"SELECT *, {literal(table.removeprefix(BESIDE))} AS source FROM ({select_table(held, table)})"
        for table in captions
        if held.parts(table)
    ]
    return " UNION ALL BY NAME ".join(selects) or _select_nothing(
        schema_of("captions").append(pa.field("source", pa.string()))
    )


def _lacking(path: Path, table: str) -> frozenset[str]:
    """The columns that the table has gained since the file was written; none of a damaged file, which is for its
    reader. Raises ValueError: it is a part of another table."""
    try:
        names = pq.read_schema(at_hand(path)).names
    except (OSError, pa.ArrowException):
        return frozenset()
    with explaining_damage(path):
        refuse_other_columns(table, names)
    return frozenset(added_to(table)).difference(names)


def _select_nothing(schema: pa.Schema) -> str:
    columns = ", ".join(f"CAST(NULL AS {duckdb_type(field.type)}) AS {field.name}" for field in schema)
    return f"SELECT {columns} WHERE false"
