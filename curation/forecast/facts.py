"""Read what a built sample has shown: outcomes, bytes, buckets, and what each job took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.forecast.forecast import BucketFacts, Facts, JobFacts, TableSize
from curation.forecast.sample import Sample
from engine import catalog
from engine.dataset import ROW_GROUP_ROWS, STORED, Dataset, read_parquet
from engine.job import Job
from engine.ledger import ledger_counts
from engine.map_job import MapJob
from engine.run_log import read_runs
from schemas.columns import Cut, cut_of
from schemas.files import is_file, size_of
from schemas.shard import BLOCK
from schemas.shard_index import INDEX_FILE

GROUPS = 10
"""Into which the inputs of the sample are dealt, to see how much the bytes of a table vary."""


def facts_of(sample: Sample, steps: Sequence[Job]) -> Facts:
    """All that the projection needs; the dataset is only read."""
    dataset = sample.dataset
    with catalog.connect(dataset, reads=["images", "duplicates", "ledger"]) as connection:
        [[with_caption]] = connection.execute("SELECT count(raw_caption) FROM images").fetchall()
        outcomes = ledger_counts(connection)
        (pairs,) = connection.execute(
            "SELECT coalesce(sum(num * (num - 1) // 2), 0)::BIGINT FROM "
            "(SELECT count(*) AS num FROM duplicates WHERE method IS NOT NULL GROUP BY group_id)"
        ).fetchone() or (0,)
    samples = _samples(dataset)
    return Facts(
        num_inputs=sample.num_inputs,
        num_sampled=sample.num_sampled,
        num_parts=sample.num_parts,
        outcomes=outcomes,
        duplicate_pairs=pairs,
        tables=_table_sizes(dataset, sample.num_sampled),
        proxy_bytes=_proxy_bytes(dataset),
        shard_bytes=_shard_bytes(samples, sample.num_sampled),
        buckets=_buckets(dataset, samples),
        jobs=_jobs(dataset, steps),
        listing_s=sample.listing_s,
        unsampled=[name for name, (rows, taken) in sample.by_source.items() if rows and not taken],
        all_synthetic=sample.num_sampled > 0 and not with_caption,
    )


def _samples(dataset: Dataset) -> pa.Table:
    rows = dataset.read_table("samples")
    return rows.filter(rows["shard"].is_valid())


def _table_sizes(dataset: Dataset, num_sampled: int) -> dict[str, TableSize]:
    """Every table but the proxies, by name; the index of the shards among them."""
    found, held = {}, dataset.held()
    kinds = {Cut.LISTING: "parts", Cut.SHARD: "shards", Cut.SHARDS: "one", Cut.WHOLE: "one"}
    for table in sorted(set(held.tables()) - {"proxies"}):
        files = held.paths(table)
        if files:
            rows = dataset.read_table(table)
            on_disk = sum(size_of(path) for path in files)
            found[table] = table_size(rows, num_sampled, on_disk, kinds[cut_of(table)])
    path = dataset.shards / INDEX_FILE
    if is_file(path):
        rows = read_parquet(path).replace_schema_metadata(None)
        found[path.stem] = table_size(rows, num_sampled, size_of(path), "one")
    return found


def table_size(rows: pa.Table, num_sampled: int, on_disk: int, files: str) -> TableSize:
    """How a table grows, from what Parquet makes of all its rows, of each half and of tenths of the inputs. A file
    costs a + b n bytes for n inputs, so two halves cost a more than the whole."""
    whole = _stored_bytes(rows)
    if "row_id" not in rows.column_names or num_sampled < 2:
        return TableSize(whole, (), 0.0, on_disk, files)
    row_ids = rows["row_id"].to_numpy()
    halves = [_stored_bytes(rows.filter(pa.array(row_ids % 2 == half))) for half in (0, 1)]
    per_file = min(max(sum(halves) - whole, 0), whole)
    groups = min(GROUPS, num_sampled)
    sizes = np.bincount(np.arange(num_sampled) % groups, minlength=groups)
    per_input = [
        max(_stored_bytes(rows.filter(pa.array(row_ids % groups == group))) - per_file, 0) / int(sizes[group])
        for group in range(groups)
    ]
    return TableSize(per_file, per_input, (whole - per_file) / num_sampled, on_disk, files)


def _stored_bytes(rows: pa.Table) -> int:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, row_group_size=ROW_GROUP_ROWS, **STORED)
    return int(sink.tell())


def _proxy_bytes(dataset: Dataset) -> list[float]:
    """Bytes on disk of each input's row. The bytes of other columns are split evenly over the rows."""
    found: list[float] = []
    for path in dataset.parts("proxies"):
        jpegs = read_parquet(path, ["jpeg"])["jpeg"]
        own = [len(jpeg) if jpeg is not None else 0 for jpeg in jpegs.to_pylist()]
        beside = (size_of(path) - sum(own)) / len(own)
        found += [size + beside for size in own]
    return found


def _shard_bytes(samples: pa.Table, num_sampled: int) -> list[float]:
    """Bytes in a tar of each input: a header per member, and each padded to whole blocks."""
    found = [0.0] * num_sampled
    columns = (samples[name].to_pylist() for name in ("row_id", "image_size", "txt_size", "json_size"))
    for row_id, *sizes in zip(*columns, strict=True):
        found[row_id] = float(sum(BLOCK + -(-size // BLOCK) * BLOCK for size in sizes))
    return found


def _buckets(dataset: Dataset, samples: pa.Table) -> dict[str, BucketFacts]:
    """The originals' bytes, by which shards are cut, by bucket."""
    if not samples.num_rows:
        return {}
    plan = dataset.read_table("shard_plan", ["row_id", "bucket", "num_bytes", "shard"])
    packed = set(samples["row_id"].to_pylist())
    sizes: dict[str, list[int]] = {}
    shards: dict[str, set[str]] = {}
    for row in plan.to_pylist():
        if row["row_id"] in packed:
            sizes.setdefault(row["bucket"], []).append(row["num_bytes"])
            shards.setdefault(row["bucket"], set()).add(row["shard"])
    return {bucket: BucketFacts(found, len(shards[bucket])) for bucket, found in sizes.items()}


def _jobs(dataset: Dataset, steps: Sequence[Job]) -> list[JobFacts]:
    """What each step took, as the last entry of `runs/` about its table has it."""
    last = {entry["tables"][-1]: entry for entry in read_runs(dataset)}
    return [_job(step, last[step.outputs[-1]]) for step in steps if step.outputs[-1] in last]


def _job(step: Job, entry: Mapping[str, Any]) -> JobFacts:
    table, seconds = step.outputs[-1], entry["seconds"]
    if not isinstance(step, MapJob):
        return JobFacts(step.job, table, True, seconds)
    num_timed = entry.get("timed_parts", 0)
    scale = entry["parts_computed"] / num_timed if num_timed else 0.0  # a count may be lost with its worker
    return JobFacts(
        job=step.job,
        table=table,
        is_reduce=False,
        seconds=seconds,
        busy_s=entry.get("busy_s", 0.0) * scale,
        cpu_s=entry.get("cpu_s", 0.0) * scale,
        gpu_s=entry.get("busy_gpu_s", 0.0) * scale,
        start_s=entry.get("start_s", 0.0) / max(entry.get("starts", 0), 1),
        wants_gpu=step.num_gpus is None or step.num_gpus > 0,
        max_workers=step.workers,
        gpu_workers=gpu_workers(step.num_gpus, entry),
    )


def gpu_workers(num_gpus: float | None, entry: Mapping[str, Any]) -> int | None:
    """Workers of a job that the GPUs have room for: as the cluster shared them out, else by the GPUs that this
    machine's one worker saw; None where it ran on a CPU. `num_gpus`: of each worker; None is one. `entry`: of
    `runs/`."""
    if shared_out := entry.get("gpu_workers"):
        return int(shared_out)
    if not entry.get("visible_gpus") or not entry.get("busy_gpu_s"):
        return None
    seen = entry["visible_gpus"] / entry["timed_parts"]
    return max(1, int(seen / (num_gpus or 1) + 1e-6))
