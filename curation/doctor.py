"""Check a machine, or every file of a dataset: what is damaged, and which command mends it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curation import catalog
from curation.dataset import TEMPORARY, WIDS_FILE, Dataset, count_rows, read_parquet, schema_of
from curation.job import num_shards
from schemas import shard, shard_index, tables


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    text: str
    fine: bool = True


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


def check_dataset(root: Path) -> list[Finding]:
    """Every part, every shard against the index, stray files, and the ledger.

    Raises:
        ValueError: the folder is no dataset.
    """
    dataset = Dataset(root)
    catalog.require_dataset(dataset)
    findings = list(_check_tables(dataset))
    tables_are_fine = all(finding.fine for finding in findings)
    findings += _check_strays(dataset)
    findings += _check_shards(dataset)
    if tables_are_fine:
        findings.append(_check_ledger(dataset))
    return findings


def _check_tables(dataset: Dataset) -> Iterator[Finding]:
    for table in (*tables.MAP_TABLES, *(f"{tables.BESIDE}{name}" for name in dataset.beside())):
        parts = dataset.parts(table)
        problems = [problem for path in parts if (problem := _problem(path, schema_of(table)))]
        if problems:
            mend = "put it back from a copy" if table == "listing" else "delete it and run sigma build again"
            yield Finding(table, f"{problems[0]} ({len(problems)} damaged): {mend}", False)
            continue
        expected = _expected_parts(dataset, table)
        fine = len(parts) in (0, expected)
        yield Finding(
            table, f"{len(parts)} of {expected} parts" + ("" if fine else ": run sigma build again to finish"), fine
        )
    for table in tables.REDUCE_TABLES:
        path = dataset.reduced(table)
        if path.is_file() and (problem := _problem(path, schema_of(table))):
            yield Finding(table, f"{problem}: delete it and run sigma build again", False)
        else:
            yield Finding(table, "there" if path.is_file() else "not computed yet")


def _expected_parts(dataset: Dataset, table: str) -> int:
    if table != "samples":
        return dataset.num_parts()
    try:
        return num_shards(dataset)
    except ValueError:
        return len(dataset.parts(table))  # the plan is damaged, which is a finding of its own


def _problem(path: Path, schema: pa.Schema) -> str | None:
    try:
        table = read_parquet(path)
    except ValueError:
        return f"{path} is damaged"
    names = schema.names
    if path.parent.name == "listing":  # a part that was listed when the table had fewer columns is as good
        names = names[: max(len(table.schema.names), names.index("license") + 1)]
    return None if table.schema.names == names else f"{path} has other columns than its table"


def _check_strays(dataset: Dataset) -> Iterator[Finding]:
    strays = [path for folder in (dataset.tables, dataset.shards) for path in folder.rglob(f"{TEMPORARY}*")]
    if strays:
        yield Finding("half-written files", f"{len(strays)}, e.g. {strays[0]}: the next sigma build sweeps them", False)
    try:
        parts = [read_parquet(path, ["shard"]) for path in dataset.parts("samples")]
    except ValueError:
        return  # found already; which shards are known cannot be said
    known = {name for part in parts for name in part["shard"].to_pylist()}
    tars = [path for path in sorted(dataset.shards.glob("*/*.tar")) if not path.name.startswith(TEMPORARY)]
    extra = [path for path in tars if str(path.relative_to(dataset.shards)) not in known]
    if extra:
        yield Finding("unknown shards", f"{len(extra)}, e.g. {extra[0]}: no table knows them; delete them", False)


def _check_shards(dataset: Dataset) -> Iterator[Finding]:
    if not dataset.parts("samples"):
        return
    try:
        index = shard_index.read_index(dataset.shards)
    except ValueError as error:
        yield Finding("shards", str(error), False)
        return
    counts = Counter(index["shard"].to_pylist())
    for path in counts:
        rows = index.filter(pc.equal(index["shard"], path)).to_pylist()
        if problem := _shard_problem(dataset.shards / path, rows):
            yield Finding(path, f"{problem}; sigma build --redo shard writes it again", False)
    wids = (dataset.shards / WIDS_FILE).is_file()
    told = f"{len(counts)} tars, {index.num_rows} samples; wids index {'there' if wids else 'missing'}"
    yield Finding("shards", told, fine=wids)


def _shard_problem(path: Path, rows: list[dict[str, object]]) -> str | None:
    """Compare every member's header with the index, the json member's own id with the key, and the image's bytes with
    their sha256."""
    if not path.is_file():
        return "missing"
    with path.open("rb") as tar:
        for row in rows:
            sha256 = ""
            for member in ("image", "txt", "json"):
                offset, size = int(str(row[f"{member}_offset"])), int(str(row[f"{member}_size"]))
                name = f"{row['key']}.{row['image_ext'] if member == 'image' else member}"
                tar.seek(offset - shard.BLOCK)
                if tar.read(shard.BLOCK) != shard.member_header(name, size):
                    return f"does not hold {name} where the index says"
                data = tar.read(size)
                sha256 = hashlib.sha256(data).hexdigest() if member == "image" else sha256
            try:
                metadata = shard.decode_json(data)
            except ValueError:
                return f"{row['key']}.json is damaged"
            if metadata["image_id"] != row["image_id"]:
                return f"{row['key']}.json speaks of another image"
            if not metadata["resized"] and sha256 != metadata["sha256"]:
                return f"{row['key']}.{row['image_ext']} has other bytes than the original"
        tar.seek(-len(shard.END_OF_ARCHIVE), os.SEEK_END)
        return None if tar.read() == shard.END_OF_ARCHIVE else "is cut short"


def _check_ledger(dataset: Dataset) -> Finding:
    with catalog.connect(dataset) as connection:
        counts = catalog.ledger_counts(connection)
    total = sum(count for *_, count in counts)
    num_inputs = sum(count_rows(path) for path in dataset.parts("listing"))
    return Finding("ledger", f"{total} rows for {num_inputs} inputs", fine=total == num_inputs)
