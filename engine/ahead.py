"""Run a function over rows on threads, or a model over batches of them: results in order, few rows in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from schemas.files import kept

Row = TypeVar("Row")
Result = TypeVar("Result")
Prepared = TypeVar("Prepared")

ALONE = nullcontext()
"""The turn of one who shares the model with nobody."""

IN_A_STORE = 16
"""Files of a dataset in a store that are read or written at the same time: most of it is waiting."""


def ahead(
    function: Callable[[Row], Result], rows: Iterable[Row], threads: int, window: int | None = None
) -> Generator[Result, None, None]:
    """`map(function, rows)` with `threads` threads that run at most `window` rows ahead of the reader. Memory is
    bounded by that many rows, whatever the number of rows; None is two per thread, and the caller's own thread where
    `threads` is 1. The first error is raised where its result was due; rows that have not begun are dropped."""
    if threads == 1 and window is None:
        yield from map(function, rows)
        return
    window = window or 2 * threads
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[Result]] = deque()
    try:
        for row in rows:
            pending.append(pool.submit(function, row))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Turn:
    """Takes a lock at most once, and gives it back at most once."""

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._lock, self._held, self._was_taken = lock, ExitStack(), False

    def __enter__(self) -> _Turn:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def give_back(self) -> None:
        self._held.close()

    def take(self) -> None:
        """Wait for the lock, the first time."""
        if not self._was_taken:
            self._held.enter_context(self._lock)
            self._was_taken = True


@dataclass
class _Waiting(Generic[Prepared, Result]):
    """A row that is prepared, and what the model has made of it."""

    prepared: Prepared
    is_done: bool
    made: Result | None = None


def in_batches(
    prepare: Callable[[Row], Prepared],
    rows: Iterable[Row],
    model: Callable[[list[Any]], Callable[[], Iterable[Result]]],
    *,
    threads: int,
    size: int,
    kind: Callable[[Prepared], Hashable | None] = lambda prepared: None if prepared is None else True,
    within: int | None = None,
    turn: AbstractContextManager[Any] = ALONE,
) -> Generator[tuple[Prepared, Result | None], None, None]:
    """Prepare rows on threads, run a model over batches of them, and yield each in order with what came of it.

    The model has a thread of its own: while it works on a batch, the next one waits, those behind it are prepared, and
    the reader has the results of the one before. The first batches are smaller, so that it begins soon. Which rows
    share a batch depends on them alone. Twice `within` rows, two batches and two rows per thread are in memory at most.

    Args:
        prepare: reads, decodes, resizes or tokenises a row.
        model: starts a batch, and returns the function that waits for it and gives a result for each row.
        size: most rows in a batch.
        kind: what the rows of a batch have in common; None for a row that the model is not shown. As it is, all that is
            not None when it is prepared is of one kind.
        within: a batch is as full as so many consecutive rows make it; None is four times `size`.
        turn: a lock of those who share the model, held from the first batch until the last one has begun.
    """
    within, waiting = within or 4 * size, deque[_Waiting[Prepared, Result]]()

    def batches() -> Generator[list[_Waiting[Prepared, Result]] | None, None, None]:
        begun: dict[Hashable, list[_Waiting[Prepared, Result]]] = {}
        with closing(ahead(prepare, rows, threads, window=within + 2 * threads)) as found:
            for number, prepared in enumerate(found, 1):
                alike = kind(prepared)
                waiting.append(_Waiting(prepared, is_done=alike is None))
                if alike is not None:
                    begun.setdefault(alike, []).append(waiting[-1])
                    if len(begun[alike]) >= min(size, max(size // 8, number // 2)):
                        yield begun.pop(alike)
                if number % within == 0:
                    yield from begun.values() or [[]]  # an empty batch hands over the rows that need none
                    begun.clear()
        yield from begun.values()
        yield None  # behind the last batch

    with (
        _Turn(turn) as mine,
        closing(batches()) as groups,
        closing(ahead(partial(_start, model, mine), groups, 1, window=2)) as started,
    ):
        for done in started:
            done()
            while waiting and waiting[0].is_done:
                row = waiting.popleft()
                yield row.prepared, row.made


def _start(
    model: Callable[[list[Any]], Callable[[], Iterable[Result]]],
    turn: _Turn,
    batch: list[_Waiting[Prepared, Result]] | None,
) -> Callable[[], None]:
    """Start a batch in turn; None is behind the last one. The function that is returned waits for its results."""
    if batch is None:
        turn.give_back()
    elif batch:
        turn.take()
    finish = model([row.prepared for row in batch]) if batch else list

    def done() -> None:
        for row, made in zip(batch or (), finish(), strict=True):
            row.made, row.is_done = made, True

    return done


def of_each(read: Callable[[Path], Result], paths: Sequence[Path]) -> Iterator[Result]:
    """`map(read, paths)` over files of one dataset: in order, and at the same time where they are in a store."""
    return ahead(read, paths, IN_A_STORE if paths and kept(paths[0]) is not None else 1)
