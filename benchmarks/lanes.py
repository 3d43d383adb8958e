"""Shards that each node reads in an epoch, and holds at once, with lanes and without: the real order, no pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.cache import WHOLE_SHARE
from training.data.order import BatchOrder, Shapes

NUM_ROWS, NUM_BUCKETS, SHARD_ROWS, BATCH, WINDOW = 2_000_000, 20, 256, 2048, 65536
NUM_NODES = 16
LANES = (NUM_NODES, 4 * NUM_NODES)
SHARD_GB = 0.512
GOAL_TIMES, GOAL_GB = 1.01, 56.0


def synthetic(num_rows: int = NUM_ROWS) -> tuple[NDArray[np.int64], Shapes]:
    """Shard and shape of each row: buckets of unequal size, each of whole shards but for its last."""
    shares = 1 / np.arange(2, NUM_BUCKETS + 2)
    counts = np.floor(shares / shares.sum() * num_rows).astype(np.int64)
    codes = np.repeat(np.arange(NUM_BUCKETS), counts)
    places = np.concatenate([np.arange(count) for count in counts])
    begins = np.cumsum([0, *-(-counts[:-1] // SHARD_ROWS)])
    return begins[codes] + places // SHARD_ROWS, Shapes([(16, 16 + 16 * code) for code in range(NUM_BUCKETS)], codes)


def read_by(order: BatchOrder, shards: NDArray[np.int64], node: int, share: float) -> tuple[float, int]:
    """Rows that a node fetches in an epoch, and the most shards that it holds at once.

    It fetches a shard whole of which it reads at least a share, and holds that from its first to its last step; of
    others it fetches what it reads.
    """
    rows = np.stack([order.batch(step).part(node, NUM_NODES).rows for step in range(len(order))])  # (steps, rows)
    read, sizes = np.bincount(shards[rows].ravel(), minlength=int(shards[-1]) + 1), np.bincount(shards)
    whole = read >= np.maximum(sizes * share, 1)
    first, last = np.full(len(sizes), len(rows)), np.zeros(len(sizes), np.int64)
    for step, of_step in enumerate(shards[rows]):
        np.minimum.at(first, of_step, step)
        last[of_step] = step
    changes = np.bincount(first[whole], minlength=len(rows) + 1) - np.bincount(last[whole] + 1, minlength=len(rows) + 1)
    return float(np.where(whole, sizes, read).sum()), int(np.cumsum(changes).max())


def lanes(folder: Path, num_rows: int = NUM_ROWS) -> Iterator[str]:
    """One epoch of 16 nodes, with lanes and without: what all fetch together, and what the fullest holds."""
    shards, shapes = synthetic(num_rows)

    def epoch(count: int, share: float) -> tuple[float, float]:
        """Data fetched by all nodes over that of the epoch, and the most GB that one holds."""
        order = BatchOrder(shards, shapes, BATCH, 0, WINDOW, lanes=count)
        nodes = [read_by(order, shards, node, share) for node in range(NUM_NODES)]
        return sum(fetched for fetched, _ in nodes) / num_rows, max(held for _, held in nodes) * SHARD_GB

    times_without, held_without = epoch(1, 0.0)
    for count in LANES:
        times, held = epoch(count, WHOLE_SHARE)
        verdict = "reached" if round(times, 2) <= GOAL_TIMES and held <= GOAL_GB else "missed"
        goal = f"{GOAL_TIMES} times, {GOAL_GB:.0f} GB; {verdict}" if count == NUM_NODES else ""
        yield (
            f"| {NUM_NODES} nodes, an epoch of {num_rows:,} samples in shards of {SHARD_GB * 1000:.0f} MB | {count} "
            f"lanes: {times:.2f} times the data fetched, a node holds {held:.0f} GB | 1 lane, whole shards: "
            f"{times_without:.1f} times, {held_without:.0f} GB | {times_without / times:.1f} | {goal} |"
        )


BENCHMARKS = (lanes,)
