"""Check a machine, or every file of a dataset: what is damaged, and what mends it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

from curation.ingest.takedown_log import read_log
from curation.shards.check import check_shards, index_problem
from curation.shards.files import WIDS_FILE
from curation.shards.plan import num_shards
from curation.shards.writer import index_rows
from engine import catalog
from engine.ahead import ahead
from engine.dataset import (
    CONTENT_KEY,
    TEMPORARY,
    Dataset,
    content_digest,
    count_rows,
    read_parquet,
    schema_of,
)
from engine.reduce_job import explaining_memory
from schemas import shard_index, tables
from schemas.features import RECORD_FILE, damaged_files
from schemas.recipe import DataRecipe, Run
from schemas.seal import check_footer
from schemas.texts import counted


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    text: str
    fine: bool = True
    remove: tuple[Path, ...] = field(default=(), compare=False)
    """Files that are to go, so that what they should hold is made again."""
    shard: int | None = field(default=None, compare=False)
    """The part of `samples` whose shard is to be written again."""
    lost: bool = field(default=False, compare=False)
    """Whether nothing here can make it again."""


def check_machine() -> list[Finding]:
    """Python, memory, disk, accelerator, and which optional models are installed."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    spacy_model = importlib.util.find_spec("en_core_web_sm") is not None
    address = os.environ.get("RAY_ADDRESS")
    return [
        Finding("python", platform.python_version()),
        Finding("cores", str(os.cpu_count())),
        Finding("memory", f"{memory:.0f} GB", memory >= 4),
        Finding("free disk here", f"{free:.0f} GB", free >= 2),
        Finding("accelerator", _accelerator()),
        Finding("ray", f"will join {address}" if address else "will start a cluster on this machine"),
        Finding("en_core_web_sm", "installed" if spacy_model else "not installed; nouns.extractor=lexicon needs none"),
    ]


def _accelerator() -> str:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none; training runs on the CPU"


def check_dataset(root: Path, threads: int = 2, progress: Callable[[int], None] = lambda files: None) -> list[Finding]:
    """Every table and its record, every shard against index and plan, features, catalog, stray files, the ledger.

    Args:
        progress: called with the number of files and samples looked at since the last call; `num_to_check` in all.

    Raises:
        ValueError: the folder is no dataset.
    """
    dataset = Dataset(root)
    catalog.require_dataset(dataset)
    catalog.mend_catalog(dataset)
    findings = list(_check_records(dataset))
    records_are_fine = not findings
    findings += _check_tables(dataset, threads, progress)
    tables_are_fine = all(finding.fine for finding in findings)
    findings += _check_takedowns(dataset)
    findings += _check_strays(dataset)
    findings += _check_shards(dataset, threads, progress) if records_are_fine else []
    findings += _check_features(dataset)
    if tables_are_fine:
        findings += _check_catalog(dataset)
        findings.append(_check_ledger(dataset))
    return findings


def num_to_check(root: Path) -> int:
    """Files of tables, and samples in shards."""
    dataset = Dataset(root)
    num_files = sum(len(dataset.parts(table)) for table in dataset.map_tables())
    try:
        return num_files + count_rows(dataset.shards / shard_index.INDEX_FILE)
    except ValueError:
        return num_files


def _check_records(dataset: Dataset) -> Iterator[Finding]:
    """Records that cannot be read, and tables that have none: then nothing says what made them."""
    for table in (*dataset.map_tables(), *tables.REDUCE_TABLES):
        path = dataset.record_path(table)
        try:
            record = dataset.record(table)
        except ValueError:
            yield Finding(f"record of {table}", f"{path} is damaged", False, (path,), lost=table == "listing")
            continue
        if record is None and dataset.has_rows(table):
            text = f"{path} is missing: sigma build compares the table with the recipe and makes it anew where it must"
            yield Finding(f"record of {table}", text, False, lost=table == "listing")


def _check_tables(dataset: Dataset, threads: int, progress: Callable[[int], None]) -> Iterator[Finding]:
    read_by = _read_by(dataset)
    for table in dataset.map_tables():
        parts = dataset.parts(table)
        schema = schema_of(table)

        def looked_at(path: Path, schema: pa.Schema = schema) -> str | None:
            progress(1)
            return problem_of(path, schema)

        found = zip(parts, ahead(looked_at, parts, threads), strict=True)
        problems = [(path, problem) for path, problem in found if problem]
        if problems:
            mend = _MEND.get(table, "delete it and run sigma build again")
            damaged = tuple(path for path, _ in problems)
            text = f"{problems[0][1]} ({len(problems)} damaged): {mend}"
            yield Finding(table, text, False, damaged, lost=table == "listing")
            continue
        if table in _OPTIONAL and not parts and not dataset.record_path(table).is_file() and table not in read_by:
            continue
        expected = _expected_parts(dataset, table)
        # headers are a survey: of a source that was added since there are none, and nothing needs them
        fine = table == "headers" or len(parts) in ((0, expected) if table not in read_by else (expected,))
        yield Finding(
            table, f"{len(parts)} of {expected} parts" + ("" if fine else ": run sigma build again to finish"), fine
        )
    for table in tables.REDUCE_TABLES:
        path = dataset.reduced(table)
        if path.is_file() and (problem := problem_of(path, schema_of(table))):
            yield Finding(table, f"{problem}: delete it and run sigma build again", False, (path,))
        elif not path.is_file() and table in read_by:
            yield Finding(table, f"missing, and {read_by[table]} was made from it: run sigma build again", False)
        elif table not in _OPTIONAL or path.is_file():
            yield Finding(table, "there" if path.is_file() else "not computed yet")


_OPTIONAL = frozenset({"headers", "embeddings", "screens", "grounding", "balance"})
_MEND = {
    "listing": "put it back from a copy",
    "headers": "delete it and run sigma ingest RECIPE --probe-only again",
}
"""Table -> how to mend a damaged part of it, where sigma build does not."""


def _read_by(dataset: Dataset) -> dict[str, str]:
    """Table -> a table that is there and was made from it."""
    found: dict[str, str] = {}
    for table in (*dataset.map_tables(), *tables.REDUCE_TABLES):
        try:
            record = dataset.record(table)
        except ValueError:
            continue
        if record is not None and dataset.has_rows(table):
            found |= dict.fromkeys(record.upstream, table)
    return found


def _expected_parts(dataset: Dataset, table: str) -> int:
    if table != "samples":
        return dataset.num_parts()
    try:
        return num_shards(dataset)
    except ValueError:
        return len(dataset.parts(table))  # the plan is damaged, which is a finding of its own


def problem_of(path: Path, schema: pa.Schema) -> str | None:
    """What is wrong with a part, in a few words; None where nothing is."""
    try:
        sealed, table = check_footer(path), read_parquet(path)
    except (ValueError, OSError):
        return f"{path} is damaged"
    beside = f"{path.parent.parent.name}/" in (tables.BESIDE, tables.BESIDE_ONCE)
    added = tables.ADDED.get("captions" if beside else path.parent.name, ()) or tables.ADDED.get(path.stem, ())
    names = [name for name in schema.names if name in table.schema.names or name not in added]
    if table.schema.names != names:
        return f"{path} has other columns than its table"
    promised = None if sealed else (table.schema.metadata or {}).get(CONTENT_KEY)
    contract = pa.schema([schema.field(name) for name in names])
    if promised is not None and content_digest(table.cast(contract)).encode() != promised:
        return f"{path} is damaged"
    return None


def _check_takedowns(dataset: Dataset) -> Iterator[Finding]:
    try:
        unfinished = [entry for entry in read_log(dataset) if not entry.finished]
    except ValueError as error:
        yield Finding("takedowns", str(error), False, lost=True)
        return
    if unfinished:
        yield Finding("takedowns", f"{len(unfinished)} unfinished: sigma purge {dataset.root} --resume", False)


def _check_strays(dataset: Dataset) -> Iterator[Finding]:
    strays = [path for path in dataset.root.rglob(f"{TEMPORARY}*") if path.is_file()]
    if strays:
        text = f"{len(strays)}, e.g. {strays[0]}: the next sigma build sweeps them"
        yield Finding("half-written files", text, False, tuple(strays))
    try:
        known, num_parts = set[str | None](), 0
        for path in dataset.parts("samples"):
            known.update(read_parquet(path, ["shard"])["shard"].unique().to_pylist())
            num_parts += 1
    except ValueError:
        return  # found already; which shards are known cannot be said
    tars = [path for path in sorted(dataset.shards.glob("*/*.tar")) if not path.name.startswith(TEMPORARY)]
    extra = [path for path in tars if str(path.relative_to(dataset.shards)) not in known]
    whole = num_parts == _expected_parts(dataset, "samples")
    if extra:
        text = f"{len(extra)}, e.g. {extra[0]}: no table knows them; delete them"
        yield Finding("unknown shards", text, False, tuple(extra) if whole else ())


def _check_shards(dataset: Dataset, threads: int, progress: Callable[[int], None]) -> Iterator[Finding]:
    if not dataset.parts("samples"):
        return
    indexes = (dataset.shards / shard_index.INDEX_FILE, dataset.shards / WIDS_FILE)
    whole_index = True
    try:
        index = tables.with_added("samples", read_parquet(indexes[0]))
        if index.schema.names != shard_index.INDEX_SCHEMA.names:
            raise ValueError(f"{indexes[0]} has other columns than an index")
    except (ValueError, OSError) as error:
        yield Finding("shards", str(error), False, indexes)
        index, whole_index = _index_of_samples(dataset), False
    broken = set()
    num_unchecked = 0
    for checked in check_shards(dataset, index, threads, progress):
        num_unchecked += checked.num_unchecked
        if checked.problem is None:
            continue
        broken.add(checked.shard)
        text = f"{checked.problem}; sigma doctor --repair writes it again"
        remove = indexes if "index.parquet" in checked.problem else ()
        yield Finding(checked.shard, text, False, remove, None if remove else checked.number)
    if not whole_index:
        return
    trouble = index_problem(dataset, index, broken)
    num_tars = len(index["shard"].unique())
    text = f"{counted(num_tars, 'tar')}, {counted(index.num_rows, 'sample')}; {trouble or 'wids index there'}"
    if num_unchecked:
        text += f"; {num_unchecked} re-encoded images not checked: written before checksums"
    yield Finding("shards", text, fine=trouble is None, remove=indexes if trouble else ())


def _index_of_samples(dataset: Dataset) -> pa.Table:
    """What the index should hold, from the parts of `samples` that are whole."""
    found = [shard_index.INDEX_SCHEMA.empty_table()]
    for number in range(_expected_parts(dataset, "samples")):
        with suppress(ValueError):
            found.append(index_rows(dataset, number).cast(shard_index.INDEX_SCHEMA))
    return pa.concat_tables(found)


def _check_features(dataset: Dataset) -> Iterator[Finding]:
    """Sets of stored features inside the dataset: whole tables and arrays, for shards that exist."""
    for record in sorted((dataset.root / "features").glob(f"*/{RECORD_FILE}")):
        bad = damaged_files(record.parent, dataset.shards)
        if bad:
            text = f"{len(bad)} files are damaged, missing or of no shard, e.g. {bad[0]}: sigma encode makes them again"
            yield Finding(f"features {record.parent.name}", text, False, tuple(bad))


def _check_catalog(dataset: Dataset) -> Iterator[Finding]:
    """The views in `catalog.duckdb`, which name absolute paths, against those that belong there."""
    if not dataset.catalog.is_file():
        return
    own = "NOT internal AND view_name NOT IN ('raw_offers', 'ledger')"  # these two read the other views
    sql = f"SELECT view_name, sql FROM duckdb_views() WHERE {own} ORDER BY ALL"
    text = "names other files than this dataset's"
    try:
        with duckdb.connect(str(dataset.catalog), read_only=True) as written, duckdb.connect() as fresh:
            catalog.create_views(fresh, dataset)
            stale = written.execute(sql).fetchall() != fresh.execute(sql).fetchall()
    except duckdb.Error:
        stale, text = True, "is damaged"
    if stale:
        yield Finding("catalog", f"{dataset.catalog} {text}", False, (dataset.catalog,))


def _check_ledger(dataset: Dataset) -> Finding:
    memory = _memory(dataset)
    reading = catalog.connect(dataset, memory, reads=["ledger"])
    with reading as connection, explaining_memory("counting the ledger", memory):
        counts = catalog.ledger_counts(connection)
    total = sum(count for *_, count in counts)
    num_inputs = sum(count_rows(path) for path in dataset.parts("listing"))
    return Finding("ledger", f"{total} rows for {num_inputs} inputs", fine=total == num_inputs)


def _memory(dataset: Dataset) -> str:
    """What the dataset's recipe lets DuckDB take; the default where there is no recipe that can be read."""
    try:
        return DataRecipe.load(dataset.recipe).run.duckdb_memory
    except (OSError, ValueError):
        return Run().duckdb_memory
