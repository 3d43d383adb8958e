"""Semantic dedup over made-up embeddings: time, peak memory, recall of planted pairs by their cosine.

`python -m benchmarks.semantic_speed ROWS FOLDER` measures one size; `make bench` takes the small one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.dedup_speed import MEMORY, peak_gb
from curation.dedup.semantic import find_similar
from engine import catalog
from engine.dataset import Dataset
from schemas.tables import schema_of
from tests.building import put

NUM_ROWS = 100_000
NUM_DIMS = 768
PART_ROWS = 20_000
PLANTED_SHARE = 0.05
"""Share of rows that are another row turned until their cosine is one of `COSINES`."""
COSINES = (0.96, 0.97, 0.98, 0.99, 0.999)
THRESHOLD = 0.95


def write_tables(root: Path, num_rows: int) -> np.ndarray:
    """A listing and embeddings in all directions alike, the hardest case for clusters; the pairs (P, 3): a, b, which of
    `COSINES`. The second row of a pair lies in the part of the first."""
    rng = np.random.default_rng(num_rows)
    dataset, planted = Dataset(root), []
    for number, begin in enumerate(range(0, num_rows, PART_ROWS)):
        num = min(PART_ROWS, num_rows - begin)
        vectors = _unit(rng.standard_normal((num, NUM_DIMS), dtype=np.float32))
        first, second = rng.permutation(num)[: 2 * int(num * PLANTED_SHARE)].reshape(2, -1)
        level = np.arange(len(first)) % len(COSINES)
        cosine = np.array(COSINES, dtype=np.float32)[level, None]
        noise = rng.standard_normal((len(first), NUM_DIMS), dtype=np.float32)
        noise -= (noise * vectors[first]).sum(axis=1, keepdims=True) * vectors[first]
        vectors[second] = cosine * vectors[first] + np.sqrt(1 - cosine**2) * _unit(noise)
        planted.append(np.column_stack([begin + first, begin + second, level]))
        _write_part(dataset, number, begin, vectors * 10)  # CLIP's are not of length 1 either
    return np.concatenate(planted)


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _write_part(dataset: Dataset, number: int, begin: int, vectors: np.ndarray) -> None:
    num = len(vectors)
    row_ids, offsets = np.arange(begin, begin + num), np.arange(num + 1, dtype=np.int32) * NUM_DIMS
    ids, names = [f"{row * 0x9E3779B97F4A7C15 % 2**64:016x}" for row in row_ids.tolist()], ["photos"] * num
    given = {
        "listing": {"row_id": row_ids, "source": names, "source_name": names, "member": ids},
        "embeddings": {
            "row_id": row_ids,
            "image_id": ids,
            "embedding": pa.ListArray.from_arrays(offsets, pa.array(vectors.astype(np.float16).ravel())),
        },
    }
    for table, schema in (("listing", schema_of("listing")), ("embeddings", schema_of("embeddings"))):
        columns = [given[table].get(field.name, pa.nulls(num, field.type)) for field in schema]
        put(dataset, table, number, pa.table(columns, names=schema.names))


def measure(root: Path, num_rows: int) -> dict[str, float]:
    """Seconds and peak memory of a process that looks for the pairs, and the share found of each cosine."""
    np.save(root.with_suffix(".npy"), write_tables(root, num_rows))
    command = [sys.executable, "-m", "benchmarks.semantic_speed", "search", str(root)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def search(root: Path) -> dict[str, float]:
    """The search in this process."""
    planted, before = np.load(root.with_suffix(".npy")), peak_gb()
    with catalog.connect(Dataset(root), memory=MEMORY) as connection:
        begun, used = time.perf_counter(), time.process_time()
        find_similar(connection, THRESHOLD, into="alike")
        measured = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - used}
        pairs = set(connection.execute("SELECT a, b FROM alike").fetchall())
    found = np.array([(min(a, b), max(a, b)) in pairs for a, b, _ in planted.tolist()])
    recall = {f"recall_{cosine}": float(found[planted[:, 2] == level].mean()) for level, cosine in enumerate(COSINES)}
    whole = {"recall": float(found.mean()), "num_planted": len(planted), "num_found": len(pairs)}
    return measured | whole | recall | {"start_gb": before, "peak_gb": peak_gb()}


def semantic_dedup(folder: Path) -> Iterator[str]:
    """One size, with the recall of each cosine."""
    measured = measure(folder / "semantic", NUM_ROWS)
    recalls = ", ".join(f"{cosine}: {measured[f'recall_{cosine}']:.3f}" for cosine in COSINES)
    yield (
        f"| semantic dedup, {NUM_ROWS:,} rows of {NUM_DIMS} | {measured['seconds']:.0f} s, "
        f"{measured['cpu_seconds']:.0f} s of CPU, peak {measured['peak_gb']:.1f} GB | recall by cosine {recalls} | | |"
    )


BENCHMARKS = (semantic_dedup,)


def main() -> None:
    """One size, or (as the child of `measure`) the search alone."""
    if sys.argv[1] == "search":
        print(json.dumps(search(Path(sys.argv[2]))))
        return
    print(json.dumps(measure(Path(sys.argv[2]), int(float(sys.argv[1])))))


if __name__ == "__main__":
    main()
