"""The jobs `statistics` and `balance` over millions of captions whose nouns follow Zipf's law: seconds, memory, growth.

`python -m benchmarks.statistics_speed 1000000 10000000 --memory 1.25GB` writes the tables of each size part by part and
runs each job in a process of its own. Only the nouns are as long as real ones.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.dedup_speed import peak_gb
from benchmarks.driver_memory import new_dataset, parts_of, recipe_of, run_reduce, write_part
from captioning.figures.queries import noun_counts
from commands import order
from engine import catalog
from engine.dataset import Dataset
from engine.job import Job
from schemas.recipe import Balance, DataRecipe
from schemas.strict import DUCKDB_MEMORY

NUM_IMAGES = (1_000_000,)
NOUNS_PER_CAPTION = 50
VOCABULARY = 1_000_000
"""Words to draw from, as many as the paper's raw captions have distinct nouns, to the order."""
MOST_IMAGES = 20_000
"""`balance.most_images`."""
MEMORY_GOAL_GIB, GROWTH_GOAL = 2.0, 1.2
COUNTED = ("noun_uses", "statistics", "balance")


def balanced_recipe(root: Path) -> DataRecipe:
    """The recipe that the synthetic dataset says it was made by."""
    return recipe_of(root).model_copy(update={"balance": Balance(most_images=MOST_IMAGES)})


def write_tables(root: Path, num_images: int) -> None:
    """The tables that the jobs read: a raw and a synthetic caption for every image, the second of `NOUNS_PER_CAPTION`
    nouns, the first of a quarter of them; a mix of 60 % and 40 %; no texts, stored lengths in tokens only."""
    recipe = balanced_recipe(root)
    dataset = new_dataset(recipe, num_images, order.pipeline(recipe))
    words = pa.array([f"noun{number}" for number in range(VOCABULARY)])
    for number, rows in enumerate(parts_of(num_images)):
        for table, columns in _columns(rows, words, np.random.default_rng([0, number])).items():
            write_part(dataset, number, table, columns)


def _columns(row_id: np.ndarray, words: pa.Array, rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Columns of one part of each table. `words`: the vocabulary, the commonest first."""
    count = len(row_id)
    synthetic = rng.random(count) < 0.6
    both = np.tile([NOUNS_PER_CAPTION // 4, NOUNS_PER_CAPTION], count)
    # rank k is drawn with probability log(1 + 1/k) / log(1 + VOCABULARY), Zipf's 1/k but for the first few
    ranks = np.exp(rng.random(int(both.sum())) * np.log(len(words) + 1)).astype(np.int64)
    drawn = words.take(pa.array((ranks - 1).clip(0, len(words) - 1)))
    sources = pa.array(["raw", "synthetic"])
    return {
        "listing": {"row_id": row_id, "source": "photos", "source_name": "photos", "member": "", "num_bytes": 0},
        "selection": {"row_id": row_id, "image_id": "", "kept": True, "subsets": []},
        "nouns": {
            "row_id": row_id.repeat(2),
            "image_id": "",
            "caption_source": sources.take(pa.array(np.tile([0, 1], count))),
            "nouns": pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(both)]).astype(np.int32), drawn),
            "num_words": (both * 3.4).astype(np.int32),
            "num_tokens": (both * 4).astype(np.int32),
            "tokenizer": "t5",
        },
        "mix": {
            "row_id": row_id,
            "image_id": "",
            "caption_source": sources.take(pa.array(synthetic.astype(np.int8))),
            "num_tokens": np.where(synthetic, 200, 50).astype(np.int32),
            "tokenizer": "t5",
            "truncated": False,
        },
    }


def measure(root: Path, table: str, memory: str) -> tuple[float, float, float]:
    """Seconds by the clock, and of the cores, of the job that writes a table; and this process's peak GiB."""
    dataset, begun, busy = Dataset(root / "dataset"), perf_counter(), process_time()
    run_reduce(_job(root, table), dataset, memory)
    return perf_counter() - begun, process_time() - busy, peak_gb() * 1e9 / 2**30


def _job(root: Path, table: str) -> Job:
    (job,) = (job for job in order.pipeline(balanced_recipe(root)) if job.outputs == (table,))
    return job


def check(root: Path) -> None:
    """Raises AssertionError: the tables are not what they should be."""
    dataset = Dataset(root / "dataset")
    with catalog.connect(dataset) as connection:
        counted = connection.execute("SELECT num_images, total_nouns FROM statistics").fetchall()
        (num_images,) = connection.execute("SELECT count(*) FROM selection").fetchone() or ()
        assert [images for images, _ in counted] == [num_images] * 3, "every image has both captions and one in the mix"
        assert counted[0][1] + counted[1][1] == num_images * (NOUNS_PER_CAPTION + NOUNS_PER_CAPTION // 4)
        assert len(noun_counts(connection, 20)) == 60, "20 of each source"
        assert connection.execute("SELECT count(*) FROM balance").fetchone() == (num_images,)


def statistics_at_scale(
    folder: Path, sizes: tuple[int, ...] = NUM_IMAGES, memory: str = DUCKDB_MEMORY
) -> Iterator[str]:
    """A line per size and table; the second and later sizes say how time grew from the first, over how the images
    did, by the clock and by the cores."""
    first: dict[str, tuple[float, float]] = {}
    for num_images in sizes:
        root = folder / str(num_images)
        write_tables(root, num_images)
        for table in COUNTED:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process of its own: its peak is its own
                wall, cores, peak = pool.submit(measure, root, table, memory).result()
            by_clock, by_cores = first.setdefault(table, (wall / num_images, cores / num_images))
            grown = wall / num_images / by_clock
            fits = "reached" if peak <= MEMORY_GOAL_GIB and grown <= GROWTH_GOAL else "missed"
            yield (
                f"| {table}, {num_images:,} images, two captions each, 62 nouns, {memory} | {wall:.1f} s, "
                f"{cores:.1f} CPU-s | peak {peak:.2f} GiB | {grown:.2f} of linear growth "
                f"({cores / num_images / by_cores:.2f} by the cores) | {GROWTH_GOAL:g}, {MEMORY_GOAL_GIB:g} GiB, "
                f"{fits} | {os.getloadavg()[0]:.0f} |"
            )
        check(root)
        shutil.rmtree(root)


BENCHMARKS = (statistics_at_scale,)


def main() -> None:
    """The sizes that are given, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=float, nargs="*", default=NUM_IMAGES)
    parser.add_argument("--folder", type=Path, help="where an own folder is made, and removed at the end")
    parser.add_argument("--memory", default=DUCKDB_MEMORY, help="limit of run.duckdb_memory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for line in statistics_at_scale(Path(folder), tuple(map(int, given.images)), given.memory):
            print(line, flush=True)


if __name__ == "__main__":
    main()
