"""Dedup and select over synthetic tables of millions of rows: time, growth, peak memory, recall of planted pairs.

`python -m benchmarks.dedup_speed ROWS FOLDER [MAX_DISTANCE]` measures one size; `make bench` takes the small sizes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from curation.dedup import dedup
from curation.selection import select
from engine.dataset import Dataset
from schemas import tables
from schemas.recipe import DataRecipe
from tests.building import put

SIZES = (1_000_000, 8_000_000)
MEMORY = "4GB"
PART_ROWS = 1_000_000
PLANTED_SHARE = 0.05
"""Share of rows whose hash is another row's with 0 to `dedup.max_distance` bits flipped."""
NUM_PLAIN = 20
"""Plain backgrounds: patterns that the first 32 bits of some hashes share, as those of real photographs do."""
PLAIN_SHARE = 0.05
MAX_DISTANCE = 3
DISTANCES = (4, 5, 6)


def write_tables(root: Path, num_rows: int, max_distance: int = MAX_DISTANCE) -> np.ndarray:
    """The tables that both jobs read, of a dataset that nobody photographed; the planted pairs (P, 3): a, b, bits."""
    rng = np.random.default_rng(num_rows)
    hashes = rng.integers(1, 2**64 - 1, num_rows, dtype=np.uint64)
    plain = rng.random(num_rows) < PLAIN_SHARE
    patterns = rng.integers(0, 2**32, NUM_PLAIN, dtype=np.uint64)
    low = hashes[plain] & np.uint64(2**32 - 1)
    hashes[plain] = (patterns[rng.integers(0, NUM_PLAIN, int(plain.sum()))] << np.uint64(32)) | low
    places = rng.permutation(num_rows)[: 2 * int(num_rows * PLANTED_SHARE)].reshape(-1, 2)
    bits = np.arange(len(places)) % (max_distance + 1)
    flips = np.argsort(rng.random((len(places), 64)), axis=1)[:, :max_distance].astype(np.uint64)
    masks = (np.uint64(1) << flips) * (np.arange(max_distance) < bits[:, None]).astype(np.uint64)
    hashes[places[:, 1]] = hashes[places[:, 0]] ^ np.bitwise_or.reduce(masks, axis=1)
    for number, begin in enumerate(range(0, num_rows, PART_ROWS)):
        _write_part(root, number, begin, hashes[begin : begin + PART_ROWS], rng)
    return np.column_stack([places, bits])


def _write_part(root: Path, number: int, begin: int, hashes: np.ndarray, rng: np.random.Generator) -> None:
    num = len(hashes)
    row_id = np.arange(begin, begin + num)
    digests = [rng.bytes(32).hex() for _ in range(num)]
    ids = [digest[:32] for digest in digests]
    sides = rng.integers(512, 4096, (2, num), dtype=np.int32)
    names = pa.array(["photos"] * num)
    columns: dict[str, dict[str, object]] = {
        "listing": {"row_id": row_id, "source": names, "source_name": names, "member": ids},
        "images": {"row_id": row_id, "image_id": ids, "source": names, "source_name": names, "member": ids,
                   "sha256": digests, "format": pa.array(["JPEG"] * num), "width": sides[0], "height": sides[1]},
        "fingerprints": {"row_id": row_id, "image_id": ids, "phash": hashes, "pixel_sha256": digests[::-1]},
        "scores": {"row_id": row_id, "image_id": ids, "aesthetic": rng.normal(5, 1, num).astype(np.float32)},
        "raw_captions": {"row_id": row_id, "image_id": ids, "removed": [[]] * num},
    }  # fmt: skip
    for table, given in columns.items():
        schema = tables.SCHEMAS[table]
        filled = {field.name: given.get(field.name, pa.nulls(num, field.type)) for field in schema}
        put(Dataset(root), table, number, pa.table(filled).cast(schema))


def measure(root: Path, num_rows: int, max_distance: int = MAX_DISTANCE) -> dict[str, float]:
    """Seconds of dedup and select, peak memory of a process that does both, and the share of planted pairs found."""
    planted = write_tables(root, num_rows, max_distance)
    np.save(root / "planted.npy", planted)
    del planted
    command = [sys.executable, "-m", "benchmarks.dedup_speed", "jobs", str(root), str(max_distance)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found["recall"], found["num_planted"] = recall(root)
    return found


def run_jobs(root: Path, max_distance: int) -> dict[str, float]:
    """Both jobs in this process, as `sigma build` runs them."""
    knobs = {"dedup": {"max_distance": max_distance}, "run": {"duckdb_memory": MEMORY}}
    recipe = DataRecipe.from_mapping({"images": str(root), "out": str(root), **knobs})
    dataset, seconds = Dataset(root), {}
    before = peak_gb()
    for work in (dedup.reduce_job(recipe), select.reduce_job(recipe)):
        begun, used = time.perf_counter(), time.process_time()
        work.prepare(dataset, work.state(dataset.held()), redo=False)
        result = work.run(dataset, MEMORY)
        seconds[work.job] = time.perf_counter() - begun
        seconds[f"{work.job}_cpu"] = time.process_time() - used
        seconds[f"{work.job}_rows"] = result.rows
        print(work.job, round(seconds[work.job], 1), "s,", result.rows, "rows", file=sys.stderr, flush=True)
    return seconds | {"start_gb": before, "peak_gb": peak_gb()}


def peak_gb() -> float:
    """Most memory that this process has held; `getrusage` would count what its parent held before it was started."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def recall(root: Path) -> tuple[float, int]:
    """Share of the planted pairs whose two rows are in one group."""
    with duckdb.connect() as connection:
        pairs = np.load(root / "planted.npy")
        connection.register("planted", pa.table({"a": pairs[:, 0], "b": pairs[:, 1]}))
        path = f"{Dataset(root).folder('duplicates')}/*.parquet"
        (found,) = connection.execute(
            f"SELECT count(*) FROM planted JOIN '{path}' AS x ON x.row_id = a JOIN '{path}' AS y ON y.row_id = b "
            "WHERE x.group_id = y.group_id"
        ).fetchone() or (0,)
    return found / len(pairs), len(pairs)


def dedup_and_select(folder: Path) -> Iterator[str]:
    """Rows per second of both jobs, growth from one size to the next, peak memory and recall."""
    first: tuple[int, float] | None = None
    for num_rows in SIZES:
        measured = measure(folder / str(num_rows), num_rows)
        seconds = measured["dedup"] + measured["select"]
        first = first or (num_rows, seconds)
        growth = seconds / first[1] / (num_rows / first[0])
        yield (
            f"| dedup and select, {num_rows / 1e6:g} million rows | dedup {measured['dedup']:.0f} s, select "
            f"{measured['select']:.0f} s, peak {measured['peak_gb']:.1f} GB | recall of planted pairs "
            f"{measured['recall']:.6f} | {growth:.2f} of linear | at most 1.5 |"
        )


def dedup_distances(folder: Path) -> Iterator[str]:
    """The same for pHashes that may differ in more bits, over the smallest size."""
    for max_distance in DISTANCES:
        measured = measure(folder / f"distance-{max_distance}", SIZES[0], max_distance)
        yield (
            f"| dedup, {SIZES[0] / 1e6:g} million rows, {max_distance} bits | {measured['dedup']:.0f} s, "
            f"{measured['dedup_cpu']:.0f} s of CPU, peak {measured['peak_gb']:.1f} GB | "
            f"recall of planted pairs {measured['recall']:.6f} | | |"
        )


BENCHMARKS = (dedup_and_select, dedup_distances)


def main() -> None:
    """One size, or (as the child of `measure`) the jobs alone."""
    if sys.argv[1] == "jobs":
        print(json.dumps(run_jobs(Path(sys.argv[2]), int(sys.argv[3]))))
        return
    num_rows, max_distance = int(float(sys.argv[1])), int(sys.argv[3]) if len(sys.argv) > 3 else MAX_DISTANCE
    print(json.dumps(measure(Path(sys.argv[2]), num_rows, max_distance)))


if __name__ == "__main__":
    main()
