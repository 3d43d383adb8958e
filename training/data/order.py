"""The order of training: batch k is a pure function of (index, seed, epoch, k), so a position is one integer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int]
"""(height, width) of a training picture in px."""

SCAN_ROWS = 65536
"""Rows looked through at a time for the next one of a shape."""


class Shapes(Sequence[Shape]):
    """The shape of every row: a number per row, into a table of the few shapes there are. `table`: the shapes; equal
    ones become one. `codes`: (rows,) positions in `table`."""

    def __init__(self, table: Sequence[Shape], codes: NDArray[np.integer]) -> None:
        self.table = sorted(set(table))
        places = np.array([self.table.index(shape) for shape in table], np.min_scalar_type(len(self.table)))
        self.codes = places[codes]

    @classmethod
    def of(cls, shapes: Sequence[Shape]) -> Shapes:
        """From one shape per row."""
        table = sorted(set(shapes))
        numbers = {shape: number for number, shape in enumerate(table)}
        return cls(table, np.array([numbers[shape] for shape in shapes], np.int64))

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, row: int) -> Shape: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Shape]: ...
    def __getitem__(self, row: int | slice) -> Shape | Sequence[Shape]:
        return Shapes(self.table, self.codes[row]) if isinstance(row, slice) else self.table[self.codes[row]]


@dataclass(frozen=True)
class Batch:
    """One global batch: pictures of one shape, (height, width) in px. `epoch`: how often the data has been gone through
    before. `rows`: positions in the index, (batch,). `occurrences`: how often each came before in this epoch,
    (batch,)."""

    epoch: int
    shape: Shape
    rows: NDArray[np.int64]
    occurrences: NDArray[np.int64]

    def part(self, rank: int, world_size: int) -> Batch:
        """The slice of one process. Raises ValueError: the processes do not divide the batch."""
        if len(self.rows) % world_size:
            raise ValueError(f"a batch of {len(self.rows)} cannot be split over {world_size} processes evenly")
        size = len(self.rows) // world_size
        mine = slice(rank * size, (rank + 1) * size)
        return Batch(self.epoch, self.shape, self.rows[mine], self.occurrences[mine])


@dataclass(frozen=True)
class Plan:
    """One epoch. `rows`: (rows,) all rows as they are dealt, one shape after another, each shape's in the order of the
    walk. `codes`: (batches,) number of each batch's shape. `starts`: (batches,) how many rows of its shape were dealt
    before the batch. `draws`: with lanes, for each shape, which of its draws each place in its batches is; see
    `in_lanes`."""

    epoch: int
    rows: NDArray[np.int32]
    codes: NDArray[np.int64]
    starts: NDArray[np.int64]
    draws: tuple[NDArray[np.int64], ...] | None = None


class BatchOrder:
    """Deals every row of the index into batches of one shape, in another order each epoch.

    Shards are permuted, then rows within a `window` of consecutive ones, so that reads are near each other: this is the
    walk. Then each shape's rows are split into batches, which come in the order in which the walk meets their first
    rows. Nothing is left over: the last batch of a shape is filled from the shape's first rows, as often as it takes,
    so a shape with fewer rows than a batch still trains. A row that comes again within an epoch has a higher
    occurrence, which gives it other noise.

    With lanes a batch is so many slices, one after the other. A shard belongs to the lane of its number modulo their
    number, and a slice takes the rows of its own lane as far as these go, so that a machine which trains on some lanes
    reads the shards of these. An epoch deals the same rows, as often, in batches of the same shapes, as without lanes.

    Every epoch has the same number of batches, so step k is batch k % len of epoch k // len. Not safe to share between
    threads: it plans one epoch at a time, 4 bytes per row. `shards`: of each row, in tar order. `shapes`: of each row.
    `batch`: pictures per global batch, a multiple of `lanes`. `weights`: (rows,), above 0 and at most 1: an epoch deals
    a row with about this chance, and of each shape as many rows as their weights sum up to, rounded down, at least one.
    None deals all."""

    def __init__(
        self,
        shards: Sequence[str] | NDArray[np.integer],
        shapes: Sequence[Shape],
        batch: int,
        seed: int,
        window: int,
        weights: NDArray[np.float32] | None = None,
        lanes: int = 1,
    ) -> None:
        assert batch % lanes == 0, f"{lanes} lanes do not divide a batch of {batch}"
        if not len(shards) or len(shards) != len(shapes):
            raise ValueError(f"{len(shards)} rows of {len(shapes)} shapes: there is nothing to order")
        assert len(shards) < 2**31, "rows are counted in 32 bits"
        self._batch, self._seed, self._window, self._lanes = batch, seed, window, lanes
        self._shard_ends = _run_ends(shards)
        self._shapes = shapes if isinstance(shapes, Shapes) else Shapes.of(shapes)
        self._counts = dealt_counts(self._shapes, weights)
        self._weights = weights
        self._num_batches = -(-self._counts // batch)
        self._planned: Plan | None = None

    def __len__(self) -> int:
        """Batches per epoch."""
        return int(self._num_batches.sum())

    @property
    def num_shards(self) -> int:
        return len(self._shard_ends)

    def batch(self, step: int) -> Batch:
        """The global batch of a step, counted from 0 over all epochs."""
        epoch, position = divmod(step, len(self))
        if self._planned is None or self._planned.epoch != epoch:
            self._planned = None  # its memory first
            self._planned = self._plan(epoch)
        return self._dealt(self._planned, position)

    def shards_of(self, epoch: int, part: int, parts: int) -> list[NDArray[np.int32]]:
        """For each batch of an epoch the numbers of the shards that one of `parts` equal slices reads, one per row.
        Safe to share between threads."""
        plan = self._plan(epoch)
        rows = (self._dealt(plan, position).part(part, parts).rows for position in range(len(self)))
        return [np.searchsorted(self._shard_ends, of, side="right").astype(np.int32) for of in rows]

    def _dealt(self, plan: Plan, position: int) -> Batch:
        code, start = plan.codes[position], plan.starts[position]
        dealt_before, count = self._counts[:code].sum(), self._counts[code]
        draws = np.arange(start, start + self._batch)
        if plan.draws is not None:
            draws = plan.draws[code][draws]
        rows = plan.rows[dealt_before + draws % count].astype(np.int64)
        return Batch(plan.epoch, self._shapes.table[code], rows, draws // count)

    def substitute(self, row: int, attempt: int) -> int:
        """The row that replaces a damaged one: the `attempt`-th after it of its shape, the first after the last."""
        for _ in range(attempt):
            row = self._next_of_shape(row)
        return row

    def _next_of_shape(self, row: int) -> int:
        codes = self._shapes.codes
        for begin, end in ((row + 1, len(codes)), (0, row + 1)):
            for start in range(begin, end, SCAN_ROWS):
                found = np.flatnonzero(codes[start : min(start + SCAN_ROWS, end)] == codes[row])
                if len(found):
                    return start + int(found[0])
        raise AssertionError("a row has its own shape")

    def _plan(self, epoch: int) -> Plan:
        random = np.random.Generator(np.random.Philox(key=np.array([self._seed % 2**64, epoch], np.uint64)))
        walk = self._walk(random)
        walk_codes = self._shapes.codes[walk]
        rows, first_places, end = np.empty(self._counts.sum(), walk.dtype), [], 0
        draws = []
        for code, count in enumerate(self._counts):
            places = np.flatnonzero(walk_codes == code)
            if self._weights is not None and count:
                places = places[_drawn(self._weights[walk[places]], count, random.random())]
            begin, end = end, end + count
            rows[begin:end] = walk[places]
            first_places.append(places[:: self._batch])
            if self._lanes > 1:
                lanes = np.searchsorted(self._shard_ends, rows[begin:end], side="right") % self._lanes
                draws.append(
                    in_lanes(np.resize(lanes, self._num_batches[code] * self._batch), self._lanes, self._batch)
                )
        codes = np.repeat(np.arange(len(self._counts)), self._num_batches)
        starts = np.concatenate([np.arange(0, count, self._batch) for count in self._counts])
        met = np.argsort(np.concatenate(first_places))
        return Plan(epoch, rows, codes[met], starts[met], tuple(draws) if self._lanes > 1 else None)

    def _walk(self, random: np.random.Generator) -> NDArray[np.int32]:
        """All rows: whole shards in permuted order, then windows of them shuffled."""
        walk = np.empty(len(self._shapes), np.int32)
        begins = np.concatenate([[0], self._shard_ends[:-1]])
        end = 0
        for shard in np.argsort(random.permutation(len(begins))):
            begin, end = end, end + int(self._shard_ends[shard] - begins[shard])
            walk[begin:end] = np.arange(begins[shard], self._shard_ends[shard])
        for start in range(0, len(walk), self._window):
            random.shuffle(walk[start : start + self._window])
        return walk


def dealt_counts(shapes: Shapes, weights: NDArray[np.float32] | None) -> NDArray[np.int64]:
    """How many rows of each shape an epoch deals, (shapes,); see `BatchOrder` for `weights`."""
    counts = np.bincount(shapes.codes, minlength=len(shapes.table))
    if weights is None:
        return counts
    assert len(weights) == len(shapes) and (weights > 0).all() and (weights <= 1).all()
    sums = np.bincount(shapes.codes, weights, len(counts))
    return np.minimum(counts, np.maximum(counts > 0, np.floor(sums + 1e-6))).astype(np.int64)


def in_lanes(lanes: NDArray[np.integer], num_lanes: int, batch: int) -> NDArray[np.int64]:
    """The draws of one shape, whole batches of them, put into its batches, (draws,): each batch has `num_lanes` slices
    of equal size. The slices of a lane take its draws in order. What a lane has more of than its slices hold goes where
    slices of other lanes would be left empty, in the last batches; so every draw has one place. `lanes`: of each
    draw."""
    held = len(lanes) // num_lanes  # of each lane's slices together
    places = np.arange(len(lanes)).reshape(-1, num_lanes, batch // num_lanes).swapaxes(0, 1).reshape(num_lanes, held)
    sizes = np.bincount(lanes, minlength=num_lanes)
    starts = np.cumsum(sizes) - sizes
    by_lane = np.argsort(lanes, kind="stable")
    nth = np.arange(len(lanes)) - np.repeat(starts, sizes)  # of its own lane, in the order of `by_lane`
    at_home = nth < held
    placed = np.empty(len(lanes), np.int64)
    placed[places[lanes[by_lane][at_home], nth[at_home]]] = by_lane[at_home]
    placed[places[np.arange(held) >= sizes[:, None]]] = by_lane[~at_home]
    return placed


def _drawn(weights: NDArray[np.float32], count: int, offset: float) -> NDArray[np.intp]:
    """`count` places, each with a chance in proportion to its weight, by systematic sampling: the weights are laid end
    to end on a line that is `count` long, each unit has a mark at `offset`, and a place is drawn where a mark falls on
    it."""
    ends = np.cumsum(weights, dtype=np.float64)
    marks = np.floor(ends * (count / ends[-1]) + offset).astype(np.int64)
    marks[-1] = count  # what rounding may have missed
    drawn = np.flatnonzero(np.diff(marks, prepend=0))
    assert len(drawn) == count, f"{len(drawn)} of {count} drawn: no weight may be over a whole unit"
    return drawn


def _run_ends(values: Sequence[str] | NDArray[np.integer]) -> NDArray[np.int64]:
    """Where each run of equal values ends."""
    array = np.asarray(values)
    return np.append(np.flatnonzero(array[1:] != array[:-1]) + 1, len(array))
