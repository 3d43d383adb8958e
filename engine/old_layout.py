"""Gives the files of a dataset that an earlier version wrote the names they have now; nothing is computed again. Then a
part was `part-00017.parquet`, with the digests in its footer, and a reduce table one file; a record named the records
of its inputs, outdated parts waited in `tables/.previous`, and rows that were paid for in `.paid`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.damage import damage
from engine.dataset import Dataset, JobRecord, as_stored, content_digest, read_parquet
from engine.names import DIGITS, NOTHING, Held, PartName
from engine.paid import Paid
from schemas.columns import BESIDE, BESIDE_ONCE, SHARDS_PER_PART, is_captions, is_map_table
from schemas.files import remove_folder
from schemas.late import late
from schemas.seal import check_footer, read_json

with late(__name__):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from engine.part_file import part_files, shard_digests
    from schemas.tables import with_added

CONTENT_KEY = b"sigma.content"
"""Parquet metadata: the digest of a part's rows."""


def _is_old(dataset: Dataset) -> bool:
    """Whether an earlier version wrote the dataset: the record of the listing is the last that is written anew."""
    with suppress(OSError, ValueError):
        return "upstream" in read_json(dataset.record_path("listing"))
    return False


def bring_up_to_date(dataset: Dataset) -> bool:
    """Rename an old dataset under its lock; whether there was one, whose catalog is gone then. Raises ValueError:
    it is in a store, cannot be written, or is held by another process."""
    if not _is_old(dataset):
        return False
    if dataset.store is not None:
        raise dataset.old_layout()
    try:
        with dataset.lock():
            rename_old_layout(dataset)
    except OSError as error:
        raise dataset.old_layout(f" and cannot be written here ({error.strerror})") from None
    return True


def rename_old_layout(dataset: Dataset) -> None:
    """Rename the files of an old dataset. May be called again wherever it stopped. Call with the lock held."""
    if not _is_old(dataset):
        return
    _name_further_captioners(dataset)
    folder = dataset.tables / ".records"
    paths = {str(path.relative_to(folder).with_suffix("")): path for path in folder.rglob("*.json")}
    records = {table: _with_names_of_today(read_json(path)) for table, path in paths.items()}
    fingerprints = {table: record.get("fingerprint") for table, record in records.items()}
    held, shards = Held(dataset), None
    for table in _in_order(records):
        record = records[table]
        upstream = record.get("upstream", {})
        inputs = record.get("inputs") or sorted(upstream)
        is_valid = all(fingerprints.get(name) == made_by for name, made_by in upstream.items())
        expected = held.expected(table, record["job"], record["knobs"], inputs) if is_valid else []
        if is_map_table(table):
            _rename_parts(dataset, table, expected)
        else:
            _cut_table(dataset, held, table, expected[0] if expected else None)
        if table == "shard_plan":
            shards = _shards(dataset, held)
            held.__dict__["shards"] = shards
        held.take(table)
        records[table] = {"job": record["job"], "knobs": record["knobs"], "inputs": inputs}
    for table in records:
        if is_captions(table):
            _keep_paid(dataset, held, table)
    for table in sorted(records, key=lambda table: table == "listing"):
        failed = _failed(dataset, table)
        planned = shards if table == "shard_plan" else None
        dataset.write_record(table, JobRecord(**records[table], shards=planned, failed=failed))
    remove_folder(dataset.tables / ".previous")
    dataset.catalog.unlink(missing_ok=True)
    shutil.rmtree(dataset.root / ".paid", ignore_errors=True)


def _with_names_of_today(record: dict[str, Any]) -> dict[str, Any]:
    if "upstream" not in record:
        return record
    upstream = {name.replace(BESIDE_ONCE, BESIDE): made_by for name, made_by in record["upstream"].items()}
    return {**record, "upstream": upstream}


def _in_order(records: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The tables on record, each after those that it was made from."""
    left = dict(records)
    while left:
        reads = {table: {*left[table].get("upstream", ()), *left[table].get("inputs", ())} for table in left}
        ready = [table for table in left if not left.keys() & reads[table] - {table}]
        for table in ready or list(left):
            yield table
            del left[table]


def _name_further_captioners(dataset: Dataset) -> None:
    """Give the captions of extra captioners their own folder, where they are still inside that of `captions`."""
    for folder in (dataset.tables, dataset.tables / ".records", dataset.tables / ".previous", dataset.root / ".paid"):
        for path in [*(folder / BESIDE_ONCE).glob("[!.]*")]:
            if not (path.name.startswith("part-") or (path.suffix == ".json" and folder.name != ".records")):
                target = folder / BESIDE / path.name
                target.parent.mkdir(exist_ok=True)
                path.rename(target)


def _rename_parts(dataset: Dataset, table: str, expected: list[str | None]) -> None:
    for path in dataset.folder(table).glob("part-*.parquet"):
        if PartName.parse(path.name) is None and path.stem.removeprefix("part-").isdigit():
            number = int(path.stem.removeprefix("part-"))
            source = expected[number] if number < len(expected) and table != "listing" else None
            path.rename(path.with_name(PartName(number, source or NOTHING, _content(path)).file))


def _content(path: Path) -> str:
    """The digest of a part's rows out of its footer; of a damaged one nothing."""
    try:
        check_footer(path)
        written = (pq.read_schema(path).metadata or {}).get(CONTENT_KEY)
        return written.decode()[:DIGITS] if written else content_digest(pq.read_table(path, partitioning=None))[:DIGITS]
    except damage():
        return NOTHING


def _cut_table(dataset: Dataset, held: Held, table: str, source: str | None) -> None:
    """Cut the one file of a reduce table into parts."""
    path = dataset.tables / f"{table}.parquet"
    if not path.is_file():
        return
    try:
        check_footer(path)
        file = pq.ParquetFile(path, page_checksum_verification=True)
        tables = (with_added(table, pa.Table.from_batches([rows])) for rows in file.iter_batches())
        batches = (batch for rows in tables for batch in rows.to_batches())
        for part in part_files(batches, held, table):
            part.commit(dataset, source or NOTHING)
    except damage():
        remove_folder(dataset.folder(table))  # it is computed again
    path.unlink()


def _shards(dataset: Dataset, held: Held) -> list[str]:
    """The digests of the shards of a plan."""
    found: list[str] = []
    for name in held.listed("shard_plan"):
        plan = as_stored("shard_plan", read_parquet(dataset.folder("shard_plan") / name.file))
        last = max(plan["shard_id"].to_pylist(), default=name.number * SHARDS_PER_PART - 1)
        found += shard_digests(plan, range(name.number * SHARDS_PER_PART, last + 1))
    return found


def _keep_paid(dataset: Dataset, held: Held, table: str) -> None:
    """Put every caption into the store of what was paid for."""
    paths = [dataset.folder(table) / name.file for name in held.listed(table)]
    for folder in (dataset.tables / ".previous" / table, dataset.root / ".paid" / table):
        paths += [*folder.glob("part-*.parquet"), *folder.glob("part-*.batches/[!.]*.parquet")]
    for path in paths:
        part = path.parent.name if path.parent.suffix == ".batches" else path.name
        number = int(part.removeprefix("part-").split(".")[0])
        with suppress(ValueError):
            rows = read_parquet(path)
            answered = pa.compute.is_valid(rows["caption"])
            if "refused_caption" in rows.column_names:
                answered = pa.compute.or_(answered, pa.compute.is_valid(rows["refused_caption"]))
            Paid.of(dataset, table, number).keep(rows.filter(answered))


def _failed(dataset: Dataset, table: str) -> list[int] | None:
    """The rows that failed and that were tried, where the last run ended with too many failures."""
    with suppress(OSError, ValueError, LookupError):
        note = json.loads((dataset.root / ".paid" / table / "failed.json").read_text(encoding="utf-8"))
        return [int(note["num_failed"]), int(note["num_asked"])]
    return None
