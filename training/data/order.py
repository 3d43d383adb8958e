"""The order of training: batch k is a pure function of (index, seed, epoch, k), so a position is one integer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int]
"""(height, width) of a training picture in px."""


@dataclass(frozen=True)
class Batch:
    """One global batch: pictures of one shape.

    Attributes:
        epoch: how often the data has been gone through before.
        shape: (height, width) in px.
        rows: positions in the index, (batch,).
        occurrences: how often each row came before within this epoch, (batch,); see `BatchOrder`.
    """

    epoch: int
    shape: Shape
    rows: NDArray[np.int64]
    occurrences: NDArray[np.int64]

    def part(self, rank: int, world_size: int) -> Batch:
        """The slice of one process.

        Raises:
            ValueError: the processes do not divide the batch.
        """
        if len(self.rows) % world_size:
            raise ValueError(f"a batch of {len(self.rows)} cannot be split over {world_size} processes evenly")
        size = len(self.rows) // world_size
        mine = slice(rank * size, (rank + 1) * size)
        return Batch(self.epoch, self.shape, self.rows[mine], self.occurrences[mine])


class BatchOrder:
    """Deals every row of the index into batches of one shape, anew each epoch.

    Shards are permuted, then rows within a window of consecutive ones, so that reads stay near each other;
    then each shape's rows are cut into batches. Nothing is left over: the last batch of a shape is filled from
    the shape's first rows, as often as it takes, so a shape with fewer rows than a batch still trains. A row
    that comes again within an epoch has a higher occurrence, which gives it other noise.

    Every epoch has the same number of batches, so step k is batch k % len of epoch k // len.

    Args:
        shards: the shard of each row, rows in tar order.
        shapes: the shape of each row.
        batch: pictures per global batch.
        window: rows shuffled together.
    """

    def __init__(self, shards: Sequence[str], shapes: Sequence[Shape], batch: int, seed: int, window: int) -> None:
        if not len(shards) or len(shards) != len(shapes):
            raise ValueError(f"{len(shards)} rows of {len(shapes)} shapes: there is nothing to order")
        self._batch, self._seed, self._window = batch, seed, window
        names = {name: number for number, name in enumerate(dict.fromkeys(shards))}
        self._shard_of = np.array([names[name] for name in shards], dtype=np.int64)
        self._shapes = sorted(set(shapes))
        numbers = {shape: number for number, shape in enumerate(self._shapes)}
        self._shape_of = np.array([numbers[shape] for shape in shapes], dtype=np.int64)
        self._length = int(np.ceil(np.bincount(self._shape_of) / batch).sum())
        self._planned: tuple[int, list[Batch]] | None = None

    def __len__(self) -> int:
        """Batches per epoch."""
        return self._length

    def batch(self, step: int) -> Batch:
        """The global batch of a step, counted from 0 over all epochs."""
        epoch, position = divmod(step, self._length)
        if self._planned is None or self._planned[0] != epoch:
            self._planned = (epoch, self._plan(epoch))
        return self._planned[1][position]

    def substitute(self, row: int, attempt: int) -> int:
        """The row that stands in for a damaged one: the `attempt`-th after it of the same shape, going round."""
        same = np.flatnonzero(self._shape_of == self._shape_of[row])
        return int(same[(np.searchsorted(same, row) + attempt) % len(same)])

    def _plan(self, epoch: int) -> list[Batch]:
        random = np.random.Generator(np.random.Philox(key=np.array([self._seed % 2**64, epoch], np.uint64)))
        rank = random.permutation(self._shard_of.max() + 1)
        rows = np.argsort(rank[self._shard_of], kind="stable")  # whole shards, in permuted order
        for start in range(0, len(rows), self._window):
            rows[start : start + self._window] = random.permutation(rows[start : start + self._window])

        planned = []  # (place of its first row in the walk, batch)
        walk_shapes = self._shape_of[rows]
        for number, shape in enumerate(self._shapes):
            places = np.flatnonzero(walk_shapes == number)
            for start in range(0, len(places), self._batch):
                draws = np.arange(start, start + self._batch)
                chosen = rows[places[draws % len(places)]]
                planned.append((places[start], Batch(epoch, shape, chosen, draws // len(places))))
        return [batch for _, batch in sorted(planned, key=lambda pair: pair[0])]
