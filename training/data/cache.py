"""Copies of a dataset in a store on this machine's disk: its index once, its shards before training reads them."""

from __future__ import annotations

import errno
import fcntl
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from schemas.commit import atomic_write
from schemas.features import NULL_FILE, RECORD_FILE
from schemas.files import TEMPORARY
from schemas.shard_index import INDEX_FILE
from training.data.order import BatchOrder
from training.data.tars import Copies

log = logging.getLogger(__name__)

FETCHES = 4
"""Shards that are copied at once: one connection does not fill a line."""
PIECE = 32 << 20
"""Bytes of one request; between two of them a fetch can be stopped."""
WHOLE_SHARE = 0.5
"""A shard is copied whole if this machine still reads at least this share of its samples in the epoch; of others the
samples are read by range. Where all that it reads fits into the limit, everything is copied."""
AHEAD_SHARE = 0.25
"""Share of the limit for shards that training has not come to, at the cost of those that are read again later."""
RETRY_S = 2.0
"""Seconds between two looks whether the process that copies is gone."""
CLOSE_S = 30.0
"""Seconds that the end of training waits for requests that are under way."""
NEVER = 2**62
STALE_S = 3600
"""Age of a half-written small file that nobody writes any more."""


def bring(copies: Copies) -> None:
    """Copy what is read as a whole, where the store has another version of it: index, recipe, what features are. Tars
    are deleted with their index. Other processes of this machine wait. Raises ValueError: the store has no index
    there."""
    store, folder = copies.store, copies.folder
    heads = [f"shards/{INDEX_FILE}", *(f"features/{name}/{RECORD_FILE}" for name in store.names("features")[0])]
    keys = [*heads, "recipe.yaml", *(f"{head.removesuffix(RECORD_FILE)}{NULL_FILE}" for head in heads[1:])]
    with copies.versions() as known:
        for key in keys:
            path, found = folder / key, store.find(key)
            if key == heads[0] and found is None:
                raise ValueError(
                    f"{store.url(key)}: no shard index here; build the dataset first (sigma build), or name the folder "
                    "above shards/"
                )
            if found is not None and path.is_file() and known.get(key, "") == found.etag:
                continue
            for stale in _tars_of(copies, key) if key in heads else ():
                stale.unlink(missing_ok=True)
                stale.with_suffix(".parquet").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            if found is not None:
                store.fetch(key, path)
                known[key] = found.etag


def _tars_of(copies: Copies, head: str) -> Iterator[Path]:
    """The copies of tars that belong to an index, which are all, or to the record of a set of features."""
    return (copies.folder / head).parent.rglob("*.tar") if RECORD_FILE in head else copies.folder.rglob("*.tar")


class Epoch:
    """When a machine reads which shard in one epoch, from `first_step` on. `reads`: for each step its samples'
    shards."""

    def __init__(self, first_step: int, reads: Sequence[NDArray[np.integer]], num_shards: int) -> None:
        shards = np.concatenate(reads)
        by_shard = np.argsort(shards, kind="stable")
        numbers = np.arange(first_step, first_step + len(reads), dtype=np.int32)
        self._steps = np.repeat(numbers, [len(of) for of in reads])[by_shard]
        self._begins = np.cumsum([0, *np.bincount(shards, minlength=num_shards)])
        self.order = shards[np.sort(np.unique(shards, return_index=True)[1])]

    def reads_from(self, shard: int, step: int) -> NDArray[np.int32]:
        """The steps from `step` on at which a shard is read, one per sample, ascending."""
        steps = self._steps[self._begins[shard] : self._begins[shard + 1]]
        return steps[np.searchsorted(steps, step) :]


class ShardCache:
    """Copies shards to this machine on threads, in the order in which training comes to them. Of all processes that
    train on this machine the one with the lock copies; the others find the copies, and read by range what is not there
    yet. Where the limit is reached, the copy goes whose next use is furthest, if that is after the use of the shard
    that is to come; else the copying waits for training. Only copies are ever deleted: the folder holds nothing else.
    Half files of a killed process are swept, whole ones are used again. `folders`: of the tars, below the copies'
    folder. `names`: of the shards, by `order`'s numbers. `samples`: how many each shard has, read or not. `limit`:
    bytes. `node`: this machine's number, and how many there are. Raises ValueError: the limit holds no shard."""

    def __init__(
        self,
        copies: Copies,
        folders: Sequence[Path],
        names: Sequence[str],
        samples: Mapping[str, int],
        order: BatchOrder,
        steps: range,
        limit: float,
        node: tuple[int, int],
    ) -> None:
        self._copies, self._order, self._steps, self._node, self._limit = copies, order, steps, node, limit
        self._samples = [samples[name] for name in names]
        self._paths = [[folder / name for folder in folders] for name in names]
        self._numbers = {path: number for number, paths in enumerate(self._paths) for path in paths}
        self._sizes = {
            path: found.size
            for folder in folders
            for found in copies.store.below(copies.key(folder))
            if (path := copies.folder / found.key) in self._numbers
        }
        if self._sizes and limit < (largest := max(self._sizes.values())):
            path = next(path for path, size in self._sizes.items() if size == largest)
            raise ValueError(
                f"data.cache_gb {limit / 1e9:g} holds no shard: {copies.shown(path)} has {largest:,} bytes; set at "
                f"least {largest / 1e9 + 0.005:.2f}, or 0 to read by ranges alone"
            )
        self._held: dict[Path, int] = {}
        self._fetching: set[Path] = set()
        self._epochs: dict[int, Epoch] = {}
        self._uses: dict[Path, int] = {}  # the next one of each copy, as it was last found
        self._at, self._lead, self._stopped, self._warned = steps.start, 1, False, False
        self._changed, self._choosing = threading.Condition(), threading.Lock()
        self._thread: threading.Thread | None = None

    def reached(self, step: int) -> None:
        """Training comes to a step: what is read before it alone may go. The first call begins the copying."""
        with self._changed:
            self._at = step
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shard cache", daemon=True)
            self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        with (self._copies.folder / ".copying").open("a") as file:
            try:
                while not self._stopped and not _taken(file):
                    with self._changed:
                        self._changed.wait(RETRY_S)
                self._take_stock()
            except OSError as error:
                self._warn(error)
                return
            wanted = self._wanted()
            threads = [threading.Thread(target=self._fetch_all, args=(wanted,), daemon=True) for _ in range(FETCHES)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _take_stock(self) -> None:
        """Find the whole copies that are there, and delete what is left of half ones."""
        for path in self._copies.folder.rglob(f"{TEMPORARY}*"):
            with suppress(FileNotFoundError):  # another process gives it its name
                if path.suffix == ".tar" or time.time() - path.stat().st_mtime > STALE_S:
                    path.unlink()
        for path in self._copies.folder.rglob("[!.]*.tar"):
            size = path.stat().st_size
            if self._sizes.get(path, size) == size:
                self._held[path] = size
            else:
                path.unlink()

    def _fetch_all(self, wanted: Iterator[Path]) -> None:
        while True:
            try:
                with self._choosing:
                    path = next(wanted, None)
            except OSError as error:  # a copy cannot be deleted
                self._warn(error)
                return
            if path is None:
                return
            try:
                self._fetch(path)
            except (OSError, ValueError) as error:
                with self._changed:
                    del self._held[path]
                    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                        self._limit = sum(self._held.values())  # what is there now is what there is room for
                if not self._stopped:
                    self._warn(error)
            with self._changed:
                self._fetching.discard(path)
                self._changed.notify_all()

    def _fetch(self, path: Path) -> None:
        key, size = self._copies.key(path), self._sizes[path]
        with atomic_write(path) as file:
            for begin in range(0, size, PIECE):
                if self._stopped:
                    raise InterruptedError
                file.write(self._copies.store.piece(key, begin, min(begin + PIECE, size)))

    def _warn(self, error: OSError | ValueError) -> None:
        """Say once that copies cannot be made; training goes on without them."""
        if not self._warned:
            self._warned = True
            why = (error.strerror if isinstance(error, OSError) else None) or error
            log.warning("%s: shards are not copied (%s) and read by range instead", self._copies.folder, why)

    def _wanted(self) -> Iterator[Path]:
        """The tars to copy, each once there is room for it."""
        for number in count(self._at // len(self._order)):
            first_step = number * len(self._order)
            if first_step >= self._steps.stop:
                return
            epochs = {known: of for known, of in self._epochs.items() if known >= number - 1}
            for known in (number, number + 1):  # what the next epoch reads first stays
                if known not in epochs and known * len(self._order) < self._steps.stop:
                    reads = self._order.shards_of(known, *self._node)
                    epochs[known] = Epoch(known * len(self._order), reads, len(self._paths))
            with self._changed:
                self._epochs, self._uses = epochs, {}
            epoch = epochs[number]
            total = sum(self._sizes.get(path, 0) for shard in epoch.order for path in self._paths[shard])
            fits, self._lead = (
                total <= self._limit,
                1 + int(len(self._order) * AHEAD_SHARE * self._limit / max(total, 1)),
            )
            for shard in epoch.order.tolist():
                for path in self._paths[shard]:
                    if path in self._sizes and self._has_room(path, shard, epoch, fits):
                        yield path
            with self._changed:
                while self._at < first_step and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return

    def _has_room(self, path: Path, shard: int, epoch: Epoch, fits: bool) -> bool:
        """Wait until there is room for a copy, and take it; false where the copy is there, or not worth it any more."""
        size = self._sizes[path]
        with self._changed:
            while not self._stopped:
                left = epoch.reads_from(shard, self._at)
                worth = len(left) and (fits or len(left) >= WHOLE_SHARE * self._samples[shard])
                if path in self._held or not worth or size > self._limit:
                    return False
                if sum(self._held.values()) + size <= self._limit:
                    self._held[path] = size
                    self._fetching.add(path)
                    return True
                uses = [(self._next_use(held), held) for held in self._held if held not in self._fetching]
                furthest, held = max(uses, default=(-1, path))
                if furthest > left[0] and (furthest == NEVER or left[0] <= self._at + self._lead):
                    self._drop(held)
                else:
                    self._changed.wait()
        return False

    def _next_use(self, path: Path) -> int:
        if self._uses.get(path, -1) < self._at:
            shard, epochs = self._numbers.get(path), sorted(self._epochs.items())
            steps = (epoch.reads_from(shard, self._at) for _, epoch in epochs if shard is not None)
            self._uses[path] = next((int(left[0]) for left in steps if len(left)), NEVER)
        return self._uses[path]

    def _drop(self, path: Path) -> None:
        """Delete a copy; what other processes have open of it loses its bytes."""
        del self._held[path]
        with suppress(FileNotFoundError), path.open("r+b") as file:
            path.unlink()
            file.truncate()
            path.with_suffix(".parquet").unlink(missing_ok=True)  # of features


def _taken(file: IO[str]) -> bool:
    """Whether this process has the lock of a file now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
