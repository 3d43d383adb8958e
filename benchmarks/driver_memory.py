"""Peak memory and seconds of each phase of the driver over synthetic tables of up to 33 million rows.

`python -m benchmarks.driver_memory ROWS [FOLDER] [--memory 4GB 1GB] [--phases NAME ...]` writes the tables part by part
and runs each phase in a process of its own. Values are narrow and captions few, so that the tables fit on a small disk:
ids are as wide in memory as real ones, texts are not. `make bench` takes a small size.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.browse_speed import answered, served
from benchmarks.dedup_speed import peak_gb
from commands import order
from commands.looking import write_report_page
from curation import build as pipeline
from curation.build import Observer
from curation.ingest import listing
from curation.selection import thresholds
from curation.shards.writer import write_index
from curation.upkeep.doctor import check_dataset
from curation.upkeep.find import Wanted, find
from engine import catalog
from engine.dataset import Dataset, JobRecord
from engine.flow import Flow
from engine.job import Job, State
from engine.map_job import MapJob
from engine.names import NOTHING, PartName, made_from
from engine.reduce_job import ReduceJob
from engine.run_log import JobResult
from engine.runner import LocalRunner, Progress
from schemas import tables
from schemas.files import remove_folder
from schemas.recipe import DataRecipe
from schemas.strict import DUCKDB_MEMORY

PART_ROWS = 4096
SHARD_ROWS = 10_000
MISSING_EVERY = 100
"""Every such part of `scores` is missing when its job is run."""
PAIR_EVERY = 20
"""Every such row has the pHash of the row before it but for one bit."""
MOST_FILES = 1_000_000
"""Files that are made for a folder to be listed; more would take longer to make than all the rest."""
UNCOUNTED = ("nouns", "statistics")
"""Jobs that are left out; `benchmarks.statistics_speed` measures them."""
CAPTIONS = pa.array([f"A photograph of {what} at {when}." for what in ("a house", "two dogs", "the sea", "an old tree")
                     for when in ("dawn", "noon", "dusk", "night")])  # fmt: skip
LONG_CAPTIONS = pa.array([" ".join([text] * 29) for text in CAPTIONS.to_pylist()])
"""As long as Share-Captioner's, of 184 tokens in the mean."""


def recipe_of(root: Path) -> DataRecipe:
    """The recipe that the synthetic dataset says it was made by."""
    run = {"runner": "local", "threads": 1}
    return DataRecipe.from_mapping({"images": str(root / "photos"), "out": str(root / "dataset"), "run": run})


def steps_of(recipe: DataRecipe) -> list[Job]:
    """The pipeline without the jobs that have a benchmark of their own."""
    return [step for step in order.pipeline(recipe) if step.job not in UNCOUNTED]


# ------------------------------------------------------------------------------------------------ tables


def write_tables(root: Path, num_rows: int) -> None:
    """All map tables of a dataset of which the reduce tables are missing, their records, and empty tars."""
    recipe = recipe_of(root)
    dataset = new_dataset(recipe, num_rows, steps_of(recipe))
    location = recipe.all_sources()[0].location()
    for number, rows in enumerate(parts_of(num_rows)):
        for table, columns in _columns(rows, location).items():
            write_part(dataset, number, table, columns)
    for number, rows in enumerate(parts_of(num_rows, SHARD_ROWS)):
        shard = f"0.68/0.68-{number:06d}.tar"
        write_part(dataset, number, "samples", _samples(rows, shard))
        (dataset.shards / shard).parent.mkdir(parents=True, exist_ok=True)
        (dataset.shards / shard).touch()


def new_dataset(recipe: DataRecipe, num_rows: int, steps: Iterable[Job]) -> Dataset:
    """A dataset with the records of some jobs, of which `write_part` writes the tables."""
    dataset = Dataset(recipe.out_path())
    dataset.root.mkdir(parents=True)
    dataset.recipe.write_text(recipe.with_absolute_paths().to_yaml(), encoding="utf-8")
    num_parts = -(-num_rows // PART_ROWS)
    source = recipe.all_sources()[0]
    entry = {"path": source.location(), "name": source.label(), "rows": num_rows, "parts": num_parts, "ignored": {}}
    knobs = {"part_rows": PART_ROWS, "sources": [entry]}
    dataset.write_record("listing", JobRecord("ingest", knobs, []))
    for step in steps:
        for table in step.outputs:  # on record each is made from nothing, so that it holds although a table is missing
            shards = [f"shard {number}" for number in range(-(-num_rows // SHARD_ROWS))]
            planned = shards if table == "shard_plan" else None
            dataset.write_record(table, JobRecord(step.job, json.loads(json.dumps(dict(step.knobs))), [], planned))
    return dataset


def parts_of(num_rows: int, part_rows: int = PART_ROWS) -> Iterator[np.ndarray]:
    """The row ids of each part."""
    for begin in range(0, num_rows, part_rows):
        yield np.arange(begin, min(begin + part_rows, num_rows))


def write_part(dataset: Dataset, number: int, table: str, given: Mapping[str, Any]) -> None:
    """A part of a table; a column is an array, one value for all rows, or not given and null."""
    schema = tables.SCHEMAS[table]
    num = len(given["row_id"])
    arrays = [_array(given.get(field.name), field, num) for field in schema]
    record = dataset.record(table)
    assert record is not None
    planned = [f"shard {number}"] if table == "samples" else []
    source = NOTHING if table == "listing" else made_from(record.job, record.knobs)(planned)
    path = dataset.folder(table) / PartName(number, source, NOTHING).file
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="zstd")


def _array(value: Any, field: pa.Field, num: int) -> pa.Array:
    """A column: an array as it is, one value repeated, or nulls."""
    if isinstance(value, np.ndarray | pa.Array):
        return pa.array(value, field.type) if isinstance(value, np.ndarray) else value
    return pa.repeat(pa.scalar(value, field.type), num)


def _ids(row_id: np.ndarray) -> pa.Array:
    """32 hex-like characters per row, distinct and in no order, of which few are stored."""
    scattered = (row_id.astype(np.uint64) * np.uint64(2_654_435_761)) & np.uint64(2**32 - 1)
    return pc.utf8_lpad(pa.array(scattered).cast(pa.string()), 32, "0")


def _phashes(row_id: np.ndarray) -> np.ndarray:
    """Spread evenly (splitmix64), one of `PAIR_EVERY` a bit away from the row before it."""
    paired = row_id % PAIR_EVERY == PAIR_EVERY - 1
    mixed = (row_id - paired).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed ^ (mixed >> np.uint64(31))) ^ paired.astype(np.uint64)


def _columns(row_id: np.ndarray, source: str) -> dict[str, dict[str, Any]]:
    """Columns of one part of every map table that is cut by inputs."""
    ids = _ids(row_id)
    seed = _phashes(row_id)
    who = {"row_id": row_id, "image_id": ids}
    digits = pc.utf8_lpad(pa.array(row_id).cast(pa.string()), 8, "0")
    where = {"source": source, "source_name": "photos", "member": pc.binary_join_element_wise(digits, ".jpg", "")}
    where["num_bytes"] = (20_000 + seed % np.uint64(400_000)).astype(np.int64)
    width, height = (512 + (seed >> np.uint64(shift)) % np.uint64(1536) for shift in (20, 40))
    texts = CAPTIONS.take(pa.array(row_id % len(CAPTIONS)))
    long_texts = pc.binary_join_element_wise(digits, LONG_CAPTIONS.take(pa.array(row_id % len(CAPTIONS))), " ")
    coin = (seed % np.uint64(1000)) / 1000
    synthetic = pa.array(coin < 0.6)
    return {
        "listing": {"row_id": row_id} | where,
        "images": who | where | {"sha256": pc.utf8_lpad(ids, 64, "0"), "format": "JPEG", "mode": "RGB",
                                 "width": width, "height": height, "raw_caption": texts},
        "proxies": who,
        "fingerprints": who | {"phash": seed, "pixel_sha256": pc.utf8_lpad(ids, 64, "1")},
        "scores": who | {"aesthetic": 4 + 2 * coin, "aesthetic_scorer": "photographic"},
        "raw_captions": who | {"caption": texts, "language": "en", "removed": []},
        "captions": who | {"captioner": "attributes", "caption": long_texts, "num_tokens": 12},
        "mix": who | {"caption": pc.if_else(synthetic, long_texts, texts),
                      "caption_source": pc.if_else(synthetic, "synthetic", "raw"), "coin": coin, "num_tokens": 12,
                      "tokenizer": "words", "truncated": False},
    }  # fmt: skip


def _samples(row_id: np.ndarray, shard: str) -> dict[str, Any]:
    ids = _ids(row_id)
    offset = np.arange(len(row_id)) * 4096
    places = {f"{member}_{what}": offset if what == "offset" else 512 for member in ("image", "txt", "json")
              for what in ("offset", "size")}  # fmt: skip
    named = {"row_id": row_id, "image_id": ids, "key": ids, "shard": shard, "bucket": "0.68", "image_ext": "jpg"}
    return named | places | {"width": 768, "height": 512, "aesthetic": 5.0, "num_tokens": 12, "weight": 1.0,
                             "caption_source": "synthetic", "subsets": []}  # fmt: skip


# ------------------------------------------------------------------------------------------------ phases


def _preflight(root: Path, memory: str) -> str:
    recipe = recipe_of(root)
    dataset = Dataset(recipe.out_path())
    steps = steps_of(recipe)
    pipeline.preflight(dataset, recipe, steps, frozenset())
    held = dataset.held()
    num_open = sum(len(step.parts_to_compute(held)) for step in steps)
    return f"{held.num_parts('listing'):,} parts of {len(steps)} tables, {num_open} open"


class _Constant:
    """Scores without looking."""

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:
        rows = inputs["proxies"]
        progress(rows.num_rows)
        given = {"row_id": rows["row_id"], "image_id": rows["image_id"]}
        filled = [given.get(field.name, pa.nulls(rows.num_rows, field.type)) for field in tables.schema_of("scores")]
        return {"scores": pa.Table.from_arrays(filled, schema=tables.schema_of("scores"))}


def _stage_loop(root: Path, memory: str) -> str:
    recipe = recipe_of(root)
    dataset = Dataset(recipe.out_path())
    (step,) = (step for step in steps_of(recipe) if step.outputs == ("scores",))
    assert isinstance(step, MapJob)
    step.prepare(dataset, State.OUTDATED, redo=False)
    for name, source in zip(dataset.held().listed("scores"), step.expected(dataset.held()), strict=True):
        path = dataset.folder("scores") / name.file
        path.rename(path.with_name(name._replace(made_from=source or NOTHING).file))
    for path in dataset.parts("scores")[::MISSING_EVERY]:
        path.unlink()
    results = list[JobResult | None]()
    constant = replace(step, build=_Constant)
    Flow(dataset, [(constant, False)], Observer(), lambda _, result: results.append(result)).run(LocalRunner)
    assert results[0] is not None
    return f"{results[0].computed} of {results[0].parts:,} parts computed"


def run_reduce(step: Job, dataset: Dataset, memory: str) -> int:
    """The number of rows that a reduce job writes."""
    assert isinstance(step, ReduceJob)
    step.prepare(dataset, step.state(dataset.held()), redo=False)
    return step.run(dataset, memory).rows


def _reduce(output: str) -> Callable[[Path, str], str]:
    def phase(root: Path, memory: str) -> str:
        recipe = recipe_of(root)
        dataset = Dataset(recipe.out_path())
        (step,) = (step for step in steps_of(recipe) if step.outputs == (output,))
        remove_folder(dataset.folder(output))
        return f"{run_reduce(step, dataset, memory):,} rows"

    return phase


def _index(root: Path, memory: str) -> str:
    dataset = Dataset(root / "dataset")
    record, num_shards = dataset.record("shard_plan"), len(dataset.held().listed("samples"))
    assert record is not None
    shards = [f"shard {number}" for number in range(num_shards)]  # as the samples were written, whatever was planned
    dataset.write_record("shard_plan", replace(record, shards=shards))
    return f"{write_index(dataset.held()):,} samples"


def _conserve(root: Path, memory: str) -> str:
    counts, num_inputs = pipeline.conserve(Dataset(root / "dataset").held(), memory)
    return f"{num_inputs:,} inputs, {len(counts)} kinds"


def _catalog(root: Path, memory: str) -> str:
    return f"{catalog.write_catalog(Dataset(root / 'dataset')).stat().st_size:,} bytes"


def _browse(root: Path, memory: str) -> str:
    dataset, begun = Dataset(root / "dataset"), time.perf_counter()
    with served(dataset) as client:
        opened = time.perf_counter() - begun
        first = answered(client, "/")
        answered(client, "/nouns")  # which waits until the dataset is open
        begun = time.perf_counter() - begun
        some, none = (answered(client, f"/images?q={text}") for text in ("old+tree", "nothing"))
    return (
        f"answers after {opened:.2f} s, first page {first:.2f} s, open after {begun:.2f} s; "
        f"then a search {some:.2f} s, for what none has {none:.2f} s"
    )


def _report(root: Path, memory: str) -> str:
    return f"{write_report_page(root / 'dataset').stat().st_size / 1e6:.1f} MB"


def _cuts(root: Path, memory: str) -> str:
    recipe = recipe_of(root)
    changed = thresholds.changed_recipe(recipe, ["select.min_aesthetic=5"])
    return "{:,} kept, then {:,}".format(*thresholds.compare(Dataset(root / "dataset"), recipe, changed).kept)


def _takedown(root: Path, memory: str) -> str:
    wanted = Wanted(phashes=("0" * 16,), distance=3)
    return f"{find(Dataset(root / 'dataset'), wanted, why='a benchmark').num_rows:,} rows found"


def _doctor(root: Path, memory: str) -> str:
    return f"{len(check_dataset(root / 'dataset')):,} findings, its tars being empty"


def _list_table(root: Path, memory: str) -> str:
    columns = {"path": "path", "caption": "caption"}
    return _list(root, {"kind": "table", "path": str(root / "table.parquet"), "columns": columns})


def _list_folder(root: Path, memory: str) -> str:
    return _list(root, {"kind": "folder", "path": str(root / "files")})


def _list(root: Path, source: Mapping[str, Any]) -> str:
    out = root / f"listed-{source['kind']}"
    recipe = DataRecipe.from_mapping({"sources": [source], "out": str(out), "run": {"runner": "local"}})
    found = listing.update_listing(Dataset(out).held(), recipe)
    shutil.rmtree(out)
    return f"{found.num_inputs:,} inputs"


def write_table_source(path: Path, num_rows: int) -> None:
    """A Parquet table with a path and a caption per row."""
    schema = pa.schema({"path": pa.string(), "caption": pa.string()})
    with pq.ParquetWriter(path, schema) as writer:
        for begin in range(0, num_rows, 1 << 16):
            row_id = np.arange(begin, min(begin + (1 << 16), num_rows))
            texts = CAPTIONS.take(pa.array(row_id % len(CAPTIONS)))
            names = pc.binary_join_element_wise(_ids(row_id), ".jpg", "")
            writer.write_table(pa.table([names, texts], schema=schema))


def write_files(folder: Path, num_files: int) -> None:
    """Empty files with the names of pictures, in one folder."""
    folder.mkdir()
    for number in range(num_files):
        os.close(os.open(folder / f"{number:08d}.jpg", os.O_CREAT | os.O_WRONLY, 0o644))


PHASES: dict[str, Callable[[Path, str], str]] = {
    "preflight": _preflight,
    "stage": _stage_loop,
    "dedup": _reduce("duplicates"),
    "select": _reduce("selection"),
    "shard_plan": _reduce("shard_plan"),
    "index": _index,
    "conserve": _conserve,
    "catalog": _catalog,
    "browse": _browse,
    "report": _report,
    "cuts": _cuts,
    "takedown": _takedown,
    "doctor": _doctor,
    "list_table": _list_table,
    "list_folder": _list_folder,
}
"""In this order: conserve counts what select has decided, and shard_plan reads it."""
IN_DUCKDB = ("dedup", "select", "shard_plan", "conserve")
"""Phases that are run with each limit of `run.duckdb_memory`."""


def measure(root: Path, num_rows: int, memories: list[str], phases: list[str]) -> Iterator[str]:
    """A line per phase and limit: seconds, those of the cores, peak memory of its process, what it did."""
    if set(phases) - {"list_table", "list_folder"}:  # these two list sources of their own
        write_tables(root, num_rows)
    for name in phases:
        if name == "list_table":
            write_table_source(root / "table.parquet", num_rows)
        elif name == "list_folder":
            write_files(root / "files", min(num_rows, MOST_FILES))
        for memory in memories if name in IN_DUCKDB else memories[:1]:
            command = [sys.executable, "-m", "benchmarks.driver_memory", "phase", name, str(root), memory]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            limit = f", {memory}" if name in IN_DUCKDB else ""
            if ran.returncode:
                yield f"| {name}, {num_rows:,} rows{limit} | failed: {ran.stderr.splitlines()[-1]} | | |"
                continue
            found = json.loads(ran.stdout)
            yield (
                f"| {name}, {num_rows:,} rows{limit} | {found['seconds']:.1f} s, {found['cpu']:.1f} CPU-s | "
                f"peak {found['peak_gib']:.2f} GiB | {found['did']} | {os.getloadavg()[0]:.0f} |"
            )
        shutil.rmtree(root / "files", ignore_errors=True)
        (root / "table.parquet").unlink(missing_ok=True)


def run_phase(name: str, root: Path, memory: str) -> dict[str, Any]:
    """One phase in this process."""
    begun, cores = time.perf_counter(), time.process_time()
    did = PHASES[name](root, memory)
    cores = time.process_time() - cores
    return {"seconds": time.perf_counter() - begun, "cpu": cores, "peak_gib": peak_gb() * 1e9 / 2**30, "did": did}


def driver_memory(folder: Path) -> Iterator[str]:
    """Every phase over 200,000 rows, with the default limit."""
    yield from measure(folder / "driver", 200_000, ["4GB"], list(PHASES))


BENCHMARKS = (driver_memory,)


def main() -> None:
    """One size, or (as the child of `measure`) one phase."""
    if sys.argv[1] == "phase":
        print(json.dumps(run_phase(sys.argv[2], Path(sys.argv[3]), sys.argv[4])))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=float)
    parser.add_argument("folder", type=Path, nargs="?", help="where an own folder is made, and removed at the end")
    parser.add_argument(
        "--memory", nargs="+", default=[DUCKDB_MEMORY], help="limits of run.duckdb_memory, one after the other"
    )
    parser.add_argument("--phases", nargs="+", default=list(PHASES), choices=list(PHASES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for line in measure(Path(folder), int(given.rows), given.memory, given.phases):
            print(line, flush=True)


if __name__ == "__main__":
    main()
