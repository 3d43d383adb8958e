"""The job `statistics` over millions of captions whose nouns follow Zipf's law: seconds, memory, growth."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas import tables

NUM_IMAGES = (1_000_000,)
NOUNS_PER_CAPTION = 50
VOCABULARY = 1_000_000
"""Words to draw from, as many as the paper's raw captions have distinct nouns, to the order."""
PART_ROWS = 250_000
MEMORY, THREADS = os.environ.get("MEMORY", "6GB"), 2
"""What DuckDB may take; the rest of 8 GiB is for the process around it."""
MEMORY_GOAL_GIB, GROWTH_GOAL = 8.0, 1.2


def write_tables(folder: Path, num_images: int, seed: int = 0) -> None:
    """The tables that Table 1 reads: a raw and a synthetic caption for every image, the second of `NOUNS_PER_CAPTION`
    nouns, the first of a quarter of them; a mix of 60 % and 40 %; no texts, stored lengths in tokens only."""
    words = pa.array([f"noun{number}" for number in range(VOCABULARY)])
    for part, first in enumerate(range(0, num_images, PART_ROWS)):
        rng = np.random.default_rng([seed, part])
        count = min(PART_ROWS, num_images - first)
        row_ids = np.arange(first, first + count)
        synthetic = rng.random(count) < 0.6
        both = np.tile([NOUNS_PER_CAPTION // 4, NOUNS_PER_CAPTION], count)
        # rank k is drawn with probability log(1 + 1/k) / log(1 + VOCABULARY), Zipf's 1/k but for the first few
        ranks = np.exp(rng.random(int(both.sum())) * np.log(VOCABULARY + 1)).astype(np.int64)
        drawn = (ranks - 1).clip(0, VOCABULARY - 1)
        nouns = pa.ListArray.from_arrays(
            np.concatenate([[0], np.cumsum(both)]).astype(np.int32), words.take(pa.array(drawn))
        )
        columns = {
            "nouns": {
                "row_id": row_ids.repeat(2),
                "caption_source": pa.DictionaryArray.from_arrays(
                    np.tile(np.array([0, 1], np.int8), count), ["raw", "synthetic"]
                ).cast(pa.string()),
                "nouns": nouns,
                "num_words": (both * 3.4).astype(np.int32),
                "num_tokens": (both * 4).astype(np.int32),
                "tokenizer": pa.array(["t5"] * (2 * count)),
            },
            "mix": {
                "row_id": row_ids,
                "caption_source": pa.DictionaryArray.from_arrays(synthetic.astype(np.int8), ["raw", "synthetic"]).cast(
                    pa.string()
                ),
                "num_tokens": np.where(synthetic, 200, 50).astype(np.int32),
                "tokenizer": pa.array(["t5"] * count),
            },
            "selection": {"row_id": row_ids, "kept": np.ones(count, bool)},
        }
        for table, given in columns.items():
            (folder / table).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(given), folder / table / f"part-{part:05d}.parquet", compression="zstd")


def measure(folder: Path) -> tuple[list[float], list[float], float]:
    """Seconds by the clock, and of the cores, to count the nouns (`noun_uses`), to make Table 1 of them and to balance
    the concepts, over a folder of `write_tables`; and this process's peak GiB."""
    import duckdb

    from captioning import balance
    from captioning.figures.queries import noun_counts
    from captioning.figures.statistics import count_nouns, reduce_job
    from schemas.recipe import Balance, DataRecipe

    connection = duckdb.connect(config={"memory_limit": MEMORY, "threads": THREADS})
    connection.execute("SET enable_progress_bar = false")
    connection.execute(f"SET temp_directory = '{folder / 'spill'}'")
    for name, schema in tables.SCHEMAS.items():
        if (folder / name).is_dir():
            there = f"SELECT * FROM read_parquet('{folder / name}/*.parquet')"
            missing = set(schema.names) - set(pq.read_schema(next((folder / name).iterdir())).names)
            empty = "".join(f", {'[]::VARCHAR[]' if column == 'subsets' else 'NULL'} AS {column}" for column in missing)
            connection.execute(f"CREATE VIEW {name} AS {there.replace('*', '*' + empty, 1)}")
    recipe = DataRecipe(images="photos", out="out", balance=Balance(most_images=20_000))
    walls, cores = [], []
    for step in (count_nouns(recipe), reduce_job(recipe), balance.reduce_job(recipe)):
        begun, busy = time.perf_counter(), time.process_time()
        (table,) = step.outputs
        path = folder / f"{table}.parquet"
        connection.execute(f"COPY ({step.query(connection)}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{path}')")
        walls.append(time.perf_counter() - begun)
        cores.append(time.process_time() - busy)
    num_images = connection.execute("SELECT count(*) FROM selection").fetchone()
    counted = connection.execute("SELECT num_images FROM statistics").fetchall()
    assert counted == [num_images] * 3, "every image has both captions and one in the mix"
    assert len(noun_counts(connection, 20)) == 60, "20 of each source"
    return walls, cores, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def statistics_at_scale(folder: Path, sizes: tuple[int, ...] = NUM_IMAGES) -> Iterator[str]:
    """A line per size; the second and later ones say how time grew from the first, over how the images did."""
    first: tuple[int, float] | None = None
    for num_images in sizes:
        write_tables(folder / str(num_images), num_images)
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process of its own: its peak is its own
            walls, cores, peak = pool.submit(measure, folder / str(num_images)).result()
        shutil.rmtree(folder / str(num_images))
        both = cores[0] + cores[1]  # of the cores, whatever else they do: growth is then the work's
        first = first or (num_images, both)
        growth = both / first[1] / (num_images / first[0])
        fits = "reached" if peak <= MEMORY_GOAL_GIB and growth <= GROWTH_GOAL else "missed"
        told = [
            f"{name} {wall:.0f} s, {core:.0f} s of the cores"
            for name, wall, core in zip(("nouns of all sources", "Table 1", "balance"), walls, cores, strict=True)
        ]
        yield (
            f"| statistics, {num_images:,} images, two captions each, 62 nouns | {'; '.join(told)} | "
            f"peak memory {peak:.2f} GiB | {growth:.2f} of linear growth | "
            f"{GROWTH_GOAL:g}, {MEMORY_GOAL_GIB:g} GiB, {fits} |"
        )


BENCHMARKS = (statistics_at_scale,)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        for line in statistics_at_scale(Path(temporary), tuple(map(int, sys.argv[1:])) or NUM_IMAGES):
            print(line, flush=True)
