"""Every loop of the driver over the names of 33 million inputs, in a store that takes 30 ms for each request.

`python -m benchmarks.at_scale [--rows N] [--delay MS] [--phases NAME ...]`: 8,057 parts of 4,096 rows in each table of
inputs and 47,000 shards, in `benchmarks.slow_store`. Names and records are those that a build would give. Of each table
all parts hold the same few bytes: what DuckDB makes of the rows is not measured here but by `benchmarks.driver_memory`.
Each phase is a process of its own, and nothing is on its disk.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import driver_memory
from benchmarks.slow_store import BUCKET, asked, serving
from commands import looking, order
from curation import build as pipeline
from curation.build import Observer
from curation.shards.writer import INDEX_KEY, samples_digest, write_index
from curation.upkeep.doctor import num_to_check
from engine import catalog, reduce_job
from engine.counts import FEW, MANIFEST, count_whole, counts_of, read_counts
from engine.dataset import Dataset, JobRecord
from engine.flow import Flow
from engine.ledger import LedgerCount, counts_entry
from engine.map_job import MapJob
from engine.names import DIGITS, NOTHING, Held, PartName
from engine.run_log import JobResult
from engine.runner import Committed, Queue, Runner
from schemas import shard_index, tables
from schemas.recipe import DataRecipe
from schemas.seal import to_json

ROWS, DELAY_MS, SMALL_ROWS = 33_000_000, 30.0, 400_000
PART_ROWS, SHARD_ROWS, KEPT = driver_memory.PART_ROWS, 420, 0.6
FLOWING = ("captions", "mix", "nouns")
"""Tables of the flow whose parts are made anew."""
THERE = ("images", "captions", "nouns")
"""Tables whose parts are there already when their rows and reasons are counted."""


def recipe_of() -> DataRecipe:
    """The recipe of the made dataset."""
    run = {"runner": "local", "threads": 1}
    return DataRecipe.from_mapping({"images": "/photos", "out": f"s3://{BUCKET}/ds", "run": run})


def part_name(table: str, number: int, source: str) -> PartName:
    """A name with a content that is another for each part."""
    return PartName(number, source, f"{tables_digit(table)}{number:0{DIGITS - 1}x}")


def tables_digit(table: str) -> str:
    """A hex digit for a table."""
    return f"{list(tables.SCHEMAS).index(table) % 16:x}"


def made(num_rows: int) -> tuple[dict[str, bytes], dict[str, str]]:
    """The objects of a dataset that is done: (bytes by name, name by key)."""
    recipe, held = recipe_of(), Held(Dataset(recipe_of().out_path()))
    held._records, held._listed = dict.fromkeys(tables.SCHEMAS), {table: [] for table in tables.SCHEMAS}
    num_parts = -(-num_rows // PART_ROWS)
    shards = [f"{number:0{DIGITS}x}" for number in range(int(num_rows * KEPT) // SHARD_ROWS)]
    source = recipe.all_sources()[0]
    entry = {"path": source.location(), "name": source.label(), "rows": num_rows, "parts": num_parts, "ignored": {}}
    held._records["listing"] = JobRecord("ingest", {"part_rows": PART_ROWS, "sources": [entry]}, [])
    held._listed["listing"] = [part_name("listing", number, NOTHING) for number in range(num_parts)]
    for step in order.pipeline(recipe):
        knobs = json.loads(json.dumps(dict(step.knobs)))
        for table in step.outputs:
            planned = shards if table == "shard_plan" else None
            held._records[table] = JobRecord(step.job, knobs, list(step.inputs), planned)
            held._listed[table] = []
        sources = step.expected(held)
        for table in step.outputs:
            held._held.pop(table, None)
            held._listed[table] = [part_name(table, number, each or "") for number, each in enumerate(sources)]
    templates = {table: _part_bytes(table) for table in held._listed} | {"tar": b"tar"}
    keys = {f"ds/tables/{table}/{name.file}": table for table, names in held._listed.items() for name in names}
    keys |= {f"ds/shards/0.68/0.68-{number:06d}.tar": "tar" for number in range(len(shards))}
    records = {f"tables/.records/{table}.json": to_json(
        {name: value for name, value in vars(record).items() if value is not None}) for table, record in
        held._records.items() if record is not None}  # fmt: skip
    counts = counts_entry(held, [LedgerCount("kept", None, None, num_rows)])
    for key, text in (records | {".ledger": to_json(counts), "recipe.yaml": recipe.to_yaml()}).items():
        templates[key], keys[f"ds/{key}"] = text.encode(), key
    for table, names in held._listed.items():
        if len(names) > FEW:
            of = counts_of(table, pq.read_table(io.BytesIO(templates[table])))
            key = f"tables/{table}/{MANIFEST}"
            templates[key], keys[f"ds/{key}"] = to_json({"parts": {name.file: of for name in names}}).encode(), key
    templates["index"] = _index_bytes(held)
    for file in (shard_index.INDEX_FILE, "wids.json", "README.md"):
        keys[f"ds/shards/{file}"] = "index"
    return templates, keys


def _part_bytes(table: str) -> bytes:
    rows = np.arange(SHARD_ROWS if table == "samples" else PART_ROWS)
    given = driver_memory._columns(rows, "/photos").get(table, {"row_id": rows})
    if table == "samples":
        given = driver_memory._samples(rows, "0.68/0.68-000000.tar")
    if table == "images":
        given["reason"] = pa.array(["corrupt" if row % 50 == 0 else None for row in rows])
    schema, file = tables.schema_of(table), io.BytesIO()
    arrays = [driver_memory._array(given.get(field.name, _nothing(field)), field, len(rows)) for field in schema]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), file, compression="zstd")
    return file.getvalue()


def _nothing(field: pa.Field) -> Any:
    if field.nullable:
        return None
    kinds = {pa.types.is_string: "", pa.types.is_list: [], pa.types.is_boolean: False, pa.types.is_binary: b""}
    return next((value for is_of, value in kinds.items() if is_of(field.type)), 0)


def _index_bytes(held: Held) -> bytes:
    file = io.BytesIO()
    described = shard_index.INDEX_SCHEMA.with_metadata({INDEX_KEY: samples_digest(held).encode()})
    pq.write_table(described.empty_table(), file)
    return file.getvalue()


# ------------------------------------------------------------------------------------------------ phases


class _Naming(Runner):
    """Computes nothing: a part is committed as soon as it is taken, and the store knows it before its job ends."""

    def __init__(self, url: str) -> None:
        self._url, self._made = url, dict[str, str]()

    def run_queues(self, dataset: Dataset, queues: Sequence[Queue]) -> None:
        """See `Runner.run_queues`."""
        while ready := [queue for queue in queues if queue.waiting]:
            queue = ready[-1]
            task, job = queue.take(), queue.job
            assert isinstance(job, MapJob)
            files = tuple(f"{table}/{part_name(table, task.number, task.made_from).file}" for table in job.outputs)
            self._made |= {f"ds/tables/{file}": file.partition("/")[0] for file in files}
            if not queue.waiting and not queue.to_come:
                asked(self._url, self._made)
                self._made.clear()
            queue.committed(task, Committed(files, PART_ROWS))

    def close(self) -> None:
        """Nothing is held."""


def _names(dataset: Dataset, url: str) -> str:
    held = dataset.held()
    assert all(held.is_whole(table) for table in held.tables() if held.listed(table))
    return f"{sum(len(held.listed(table)) for table in held.tables()):,} parts"


def _status(dataset: Dataset, url: str) -> str:
    looking.status(dataset.root)
    return "the command"


def _idle(dataset: Dataset, url: str) -> str:
    recipe = recipe_of()
    built = pipeline.build(recipe, order.pipeline(recipe), Observer())
    assert built.results == []
    return f"{built.num_inputs:,} inputs"


def _flow(dataset: Dataset, url: str) -> str:
    recipe, ended = recipe_of(), list[str]()
    jobs = [step for step in order.pipeline(recipe) if isinstance(step, MapJob) and step.outputs[-1] in FLOWING]
    asked(url, {f"ds/tables/{table}/": "" for table in FLOWING})
    Flow(dataset, [(job, False) for job in jobs], Observer(), lambda job, result: ended.append(job.job)).run(
        lambda: _Naming(url)
    )
    return f"{len(ended)} jobs, offered, committed and counted"


def _there(dataset: Dataset, url: str) -> str:
    recipe, found = recipe_of(), list[JobResult | None]()
    jobs = [step for step in order.pipeline(recipe) if isinstance(step, MapJob) and step.outputs[-1] in THERE]
    Flow(dataset, [(job, True) for job in jobs], Observer(), lambda _, result: found.append(result)).run(
        lambda: _Naming(url)
    )
    reasons = sum(sum(result.reasons.values()) for result in found if result)
    return f"{sum(result.rows for result in found if result):,} rows of {len(found)} tables, {reasons:,} with a reason"


def _index(dataset: Dataset, url: str) -> str:
    return f"{write_index(dataset.held()):,} samples"


def _copies(dataset: Dataset, url: str) -> str:
    catalog.connect(dataset, reads=["ledger"]).close()
    return "the tables of the ledger copied here and compared"


def _reduce(dataset: Dataset, url: str) -> str:
    held = dataset.held()
    num_ends = len(read_counts("listing", held.paths("listing")))
    rows = pq.read_table(io.BytesIO(_part_bytes("duplicates")))
    committed = reduce_job._commit(dataset, "duplicates", NOTHING, (rows for _ in range(num_ends)))
    return f"{num_ends:,} parts counted, {count_whole('duplicates', committed).rows:,} rows committed"


def _to_check(dataset: Dataset, url: str) -> str:
    return f"{num_to_check(dataset.root):,} files"


PHASES: dict[str, Callable[[Dataset, str], str]] = {
    "names": _names,
    "status": _status,
    "nothing to do": _idle,
    "parts that are there": _there,
    "flow": _flow,
    "index": _index,
    "copies": _copies,
    "reduce": _reduce,
    "doctor begins": _to_check,
}


def measure(folder: Path, num_rows: int, delay_ms: float, phases: Sequence[str]) -> Iterator[str]:
    """A line per phase: seconds, peak memory of its process, requests, what it did."""
    objects = made(num_rows)
    with serving(folder, *objects, delay_ms) as url:
        for name in phases:
            asked(url)
            scratch = folder / "scratch"
            env = os.environ | {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
                                "AWS_EC2_METADATA_DISABLED": "true", "SIGMA_SCRATCH": str(scratch)}  # fmt: skip
            command = [sys.executable, "-m", "benchmarks.at_scale", "--phase", name, url]
            ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            shutil.rmtree(scratch, ignore_errors=True)
            if ran.returncode:
                yield f"| {name} | failed: {[*ran.stderr.splitlines(), str(ran.returncode)][-2:]} | | | |"
                continue
            found = json.loads(ran.stdout.splitlines()[-1])
            requests = ", ".join(f"{num:,} {kind}" for kind, num in sorted(asked(url).items()))
            yield (
                f"| {name}, {num_rows:,} rows, {delay_ms:g} ms | {found['seconds']:.1f} s "
                f"({found['cpu_s']:.1f} s of CPU) | peak {found['peak_gib']:.2f} GiB | {requests} | {found['did']} |"
            )


def run_phase(name: str, url: str) -> dict[str, Any]:
    """One phase in this process."""
    begun, cpu = time.perf_counter(), time.process_time()
    did = PHASES[name](Dataset(recipe_of().out_path()), url)
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "cpu_s": cpu_s, "peak_gib": peak, "did": did}


def at_scale(folder: Path) -> Iterator[str]:
    """Every phase over 400,000 rows."""
    yield from measure(folder, SMALL_ROWS, DELAY_MS, list(PHASES))


BENCHMARKS = (at_scale,)


def main() -> None:
    """One size, or (as the child of `measure`) one phase."""
    if sys.argv[1:2] == ["--phase"]:
        print(json.dumps(run_phase(*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=ROWS)
    parser.add_argument("--delay", type=float, default=DELAY_MS, help="milliseconds")
    parser.add_argument("--phases", nargs="+", default=list(PHASES), choices=list(PHASES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in measure(Path(folder), int(given.rows), given.delay, given.phases):
            print(line, flush=True)


if __name__ == "__main__":
    main()
