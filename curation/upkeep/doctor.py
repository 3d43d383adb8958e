"""Check every file of a dataset: what is damaged, and what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

import duckdb

from curation.ingest import listing
from curation.ingest.takedown_log import read_log
from curation.shards.check import CheckedShard, check_shards, index_problem, shards_of_index, shards_of_samples
from curation.shards.files import WIDS_FILE
from engine import catalog
from engine.ahead import ahead, of_each
from engine.counts import read_counts
from engine.damage import Damaged, how_to_mend
from engine.dataset import Dataset, count_rows, read_parquet
from engine.duck import literal
from engine.ledger import ledger_counts
from engine.names import Held, PartName
from engine.paid import paid_files
from engine.part_check import problem_of
from engine.place.uploads import open_uploads
from engine.reduce_job import explaining_memory
from engine.runner import describe
from schemas import shard_index
from schemas.columns import Cut, cut_of, is_map_table
from schemas.features import RECORD_FILE, damaged_files
from schemas.files import TEMPORARY, find_files
from schemas.recipe import DataRecipe, Run
from schemas.texts import counted
from schemas.unread import StoreError


@dataclass(frozen=True)
class Finding:
    subject: str
    text: str
    fine: bool = True
    remove: tuple[Path, ...] = field(default=(), compare=False)
    """Files that are to go, so that what they should hold is made again."""
    shard: int | None = field(default=None, compare=False)
    """The part of `samples` whose shard is to be written again."""
    lost: bool = field(default=False, compare=False)
    """Whether nothing here can make it again."""


def check_dataset(root: Path, threads: int = 2, progress: Callable[[int], None] = lambda files: None) -> list[Finding]:
    """Recipe, every table and its record, every shard against index and plan, features, rows that were paid for,
    catalog, strays, the ledger. `progress`: called with the number of files and samples looked at since the last call;
    `num_to_check` in all. Raises ValueError: the folder is no dataset."""
    dataset = Dataset(root)
    catalog.require_dataset(dataset)
    catalog.mend_catalog(dataset)
    held = dataset.held()
    findings = list(_check_records(held))
    records_are_fine = not findings
    findings += _check_tables(held, threads, progress)
    tables_are_fine = all(finding.fine for finding in findings)
    findings += [*_check_recipe(dataset), *_check_takedowns(dataset)]
    findings += _as_far_as("stray files", _check_strays(held))
    findings += _as_far_as("shards", _check_shards(dataset, threads, progress)) if records_are_fine else []
    findings += _as_far_as("features", _check_features(dataset))
    findings += _as_far_as("paid", _check_paid(dataset))
    if dataset.store is not None and (said := open_uploads(dataset.store)):
        findings.append(Finding("uploads", said))
    if tables_are_fine:
        findings += _check_catalog(dataset)
        findings.append(_check_ledger(dataset))
    return findings


def _as_far_as(subject: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Findings up to a file that cannot be read now, which is the last one."""
    try:
        yield from findings
    except StoreError:
        raise
    except OSError as error:
        yield Finding(subject, f"cannot be checked now: {describe(error)}", False)


def num_to_check(root: Path) -> int:
    """Files of tables, and samples in shards."""
    dataset = Dataset(root)
    held = dataset.held()
    num_files = sum(len(held.listed(table)) for table in held.tables())
    try:
        return num_files + count_rows(dataset.shards / shard_index.INDEX_FILE)
    except ValueError:
        return num_files


def _check_records(held: Held) -> Iterator[Finding]:
    """Records that cannot be read, and tables that have none: then nothing says what made them."""
    for table in held.tables():
        path = held.dataset.record_path(table)
        try:
            record = held.record(table)
        except ValueError:
            yield Finding(f"record of {table}", f"{path} is damaged", False, (path,), lost=table == "listing")
            continue
        if record is None and held.listed(table):
            text = f"{path} is missing: sigma build compares the table with the recipe and makes it anew where it must"
            yield Finding(f"record of {table}", text, False, lost=table == "listing")


def _check_recipe(dataset: Dataset) -> Iterator[Finding]:
    """The recipe, which every command but `sigma build` reads from the dataset."""
    try:
        DataRecipe.load(dataset.recipe)
    except ValueError as error:
        yield Finding("recipe", f"{error}; sigma build with the recipe of the dataset writes it anew", False, lost=True)


def _check_tables(held: Held, threads: int, progress: Callable[[int], None]) -> Iterator[Finding]:
    read_by, outdated, listed = _read_by(held), list[Path](), _listed(held)
    for table in held.tables():
        folder, names = held.dataset.folder(table), held.listed(table)
        outdated += [folder / name.file for name in held.outdated(table)]

        def problem(name: PartName, table: str = table) -> str | OSError | None:
            progress(1)
            row_ids = listed.get(name.number) if cut_of(table) is Cut.LISTING else None
            try:
                return problem_of(held.dataset.folder(table) / name.file, table, row_ids)
            except StoreError:  # after many tries, which each of the others would take too
                raise
            except OSError as refused:
                return refused

        found = dict(zip((folder / name.file for name in names), ahead(problem, names, threads), strict=True))
        unread = [error for error in found.values() if isinstance(error, OSError)]
        if unread:
            text = f"{describe(unread[0])} ({len(unread)} of {len(names)} files cannot be read now)"
            yield Finding(table, text, False)
        damaged = {path: text for path, text in found.items() if isinstance(text, str)}
        if damaged:
            count = f" ({len(damaged)} damaged)" if is_map_table(table) else ""
            text = f"{next(iter(damaged.values()))}{count}: {how_to_mend(table)}"
            yield Finding(table, text, False, tuple(damaged), lost=table == "listing")
        if unread or damaged:
            continue
        if table in _OPTIONAL and not names and held.record(table) is None and table not in read_by:
            continue
        num_parts, expected = len(held.parts(table)), held.num_parts(table)
        # headers are a survey: of a source that was added since there are none, and nothing needs them
        fine = table == "headers" or num_parts in ((0, expected) if table not in read_by else (expected,))
        if is_map_table(table):
            text = f"{num_parts} of {expected} parts" + ("" if fine else ": run sigma build again to finish")
        elif fine:
            text = "there" if num_parts else "not computed yet"
        else:
            made = (
                f"{read_by[table]} was made from it" if table in read_by else f"it has {num_parts} of {expected} parts"
            )
            text = f"missing, and {made}: run sigma build again"
        yield Finding(table, text, fine)
    if outdated:
        text = f"{len(outdated)}, e.g. {outdated[0]}: made from what is no more, the next sigma build replaces them"
        yield Finding("outdated parts", text)


def _listed(held: Held) -> dict[int, range]:
    """The row_ids of each part of the listing; none where a part of it is damaged, which is a finding of its own."""
    parts = held.parts("listing")
    with suppress(ValueError):
        ends = [*accumulate(each.rows for each in read_counts("listing", held.paths("listing")))]
        return {number: range(*span) for number, span in zip(parts, pairwise([0, *ends]), strict=True)}
    return {}


_OPTIONAL = frozenset({"headers", "embeddings", "screens", "grounding", "balance"})


def _read_by(held: Held) -> dict[str, str]:
    """Table -> a table that is there and was made from it."""
    found: dict[str, str] = {}
    for table in held.tables():
        with suppress(ValueError):
            record = held.record(table)
            if record is not None and held.parts(table):
                found |= dict.fromkeys(record.inputs, table)
    return found


def _check_takedowns(dataset: Dataset) -> Iterator[Finding]:
    try:
        unfinished = [entry for entry in read_log(dataset) if not entry.finished]
    except ValueError as error:
        yield Finding("takedowns", str(error), False, lost=True)
        return
    if unfinished:
        yield Finding("takedowns", f"{len(unfinished)} unfinished: sigma purge {dataset.root} --resume", False)


def _check_strays(held: Held) -> Iterator[Finding]:
    dataset = held.dataset
    strays = [] if dataset.store else [path for path in dataset.root.rglob(f"{TEMPORARY}*") if path.is_file()]
    if strays:
        text = f"{len(strays)}, e.g. {strays[0]}: the next sigma build sweeps them"
        yield Finding("half-written files", text, False, tuple(strays))
    try:
        known = set[str | None]()
        for part in of_each(partial(read_parquet, columns=["shard"]), held.paths("samples")):
            known.update(part["shard"].unique().to_pylist())
    except ValueError:
        return  # found already; which shards are known cannot be said
    tars = [path for path in find_files(dataset.shards, "*/*.tar") if not path.name.startswith(TEMPORARY)]
    extra = [path for path in tars if str(path.relative_to(dataset.shards)) not in known]
    whole = len(held.parts("samples")) == held.num_parts("samples")
    if extra:
        what = "delete them" if whole else "the next sigma build takes the pictures that it needs out of them"
        text = f"{len(extra)}, e.g. {extra[0]}: no table knows them; {what}"
        yield Finding("unknown shards", text, False, tuple(extra) if whole else ())


def _check_shards(dataset: Dataset, threads: int, progress: Callable[[int], None]) -> Iterator[Finding]:
    if not dataset.parts("samples"):
        return
    indexes = (dataset.shards / shard_index.INDEX_FILE, dataset.shards / WIDS_FILE)
    found = list[CheckedShard]()
    try:
        for checked in check_shards(dataset, shards_of_index(indexes[0]), threads, progress):
            found.append(checked)
            yield from _of_shard(checked, indexes)
    except Damaged as error:
        yield Finding("shards", str(error), False, indexes)
        known = {checked.shard for checked in found}  # none, but of an index without a seal
        for checked in check_shards(dataset, shards_of_samples(dataset), threads, progress):
            yield from _of_shard(checked, indexes) if checked.shard not in known else ()
        return
    trouble = index_problem(dataset, found)
    num_samples = sum(checked.num_samples for checked in found)
    text = f"{counted(len(found), 'tar')}, {counted(num_samples, 'sample')}; {trouble or 'wids index there'}"
    if num_unchecked := sum(checked.num_unchecked for checked in found):
        text += f"; {num_unchecked} re-encoded images not checked: written before checksums"
    yield Finding("shards", text, fine=trouble is None, remove=indexes if trouble else ())


def _of_shard(checked: CheckedShard, indexes: tuple[Path, ...]) -> Iterator[Finding]:
    if checked.problem is not None:
        text = f"{checked.problem}; sigma doctor --repair writes it again"
        remove = indexes if "index.parquet" in checked.problem else ()
        yield Finding(checked.shard, text, False, remove, None if remove else checked.number)


def _check_features(dataset: Dataset) -> Iterator[Finding]:
    """Sets of stored features inside the dataset: whole tables and arrays, for shards that exist."""
    for record in find_files(dataset.root / "features", f"*/{RECORD_FILE}"):
        bad = damaged_files(record.parent, dataset.shards)
        if bad:
            text = f"{len(bad)} files are damaged, missing or of no shard, e.g. {bad[0]}: sigma encode makes them again"
            yield Finding(f"features {record.parent.name}", text, False, tuple(bad))


def _check_paid(dataset: Dataset) -> Iterator[Finding]:
    """Rows that were paid for, which no build reads before they are wanted again."""
    for table, path in paid_files(dataset):
        if problem := problem_of(path, table):
            mends = "sigma doctor --repair copies its rows out of their table, or deletes it where they are not there"
            yield Finding("paid", f"{problem}: {mends}", False, (path,))


def _check_catalog(dataset: Dataset) -> Iterator[Finding]:
    """The views in `catalog.duckdb`, which name absolute paths, against those that belong there."""
    if dataset.store is not None or not dataset.catalog.is_file():
        return
    own = "NOT internal AND view_name NOT IN ('raw_offers', 'ledger')"  # these two read the other views
    sql = f"SELECT view_name, sql FROM duckdb_views() WHERE {own} AND database_name = $name ORDER BY ALL"
    text = "names other files than this dataset's; run sigma doctor where it may be written, or delete it"
    try:
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH {literal(str(dataset.catalog))} AS written (READ_ONLY)")
            catalog.create_views(connection, dataset.held())
            written, fresh = (connection.execute(sql, {"name": name}).fetchall() for name in ("written", "memory"))
            stale = written != fresh
    except duckdb.Error:
        stale, text = True, "is damaged"
    if stale:
        yield Finding("catalog", f"{dataset.catalog} {text}", False, (dataset.catalog,))


def _check_ledger(dataset: Dataset) -> Finding:
    memory = memory_of(dataset)
    reading = catalog.connect(dataset, memory, reads=["ledger"])
    with reading as connection, explaining_memory("counting the ledger", memory, dataset):
        counts = ledger_counts(connection)
    total = sum(count for *_, count in counts)
    num_inputs = listing.num_inputs(dataset)
    return Finding("ledger", f"{total} rows for {num_inputs} inputs", fine=total == num_inputs)


def memory_of(dataset: Dataset) -> str:
    """What the dataset's recipe lets DuckDB take; the default where there is no recipe that can be read."""
    try:
        return DataRecipe.load(dataset.recipe).run.duckdb_memory
    except (OSError, ValueError):
        return Run().duckdb_memory
