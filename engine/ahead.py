"""Run a function over rows on threads, or a model over batches of them: results in order, few rows in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from schemas.files import kept

Row = TypeVar("Row")
Result = TypeVar("Result")
Prepared = TypeVar("Prepared")

IN_A_STORE = 16
"""Files of a dataset in a store that are read or written at the same time: most of it is waiting."""


def ahead(
    function: Callable[[Row], Result], rows: Iterable[Row], threads: int, window: int | None = None
) -> Generator[Result, None, None]:
    """`map(function, rows)` with `threads` threads that run at most `window` rows ahead of the reader.

    Memory is bounded by that many rows, whatever the number of rows; None is two per thread, and the caller's own
    thread where `threads` is 1. The first error is raised where its result was due; rows that have not begun are
    dropped.
    """
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
) -> Generator[tuple[Prepared, Result | None], None, None]:
    """Prepare rows on threads, run a model over batches of them, and yield each in order with what came of it.

    The model has a thread of its own. While it works on a batch, the next one waits for it, those behind it are being
    prepared, and the reader has the results of the one before. So a device is idle only where the threads or the reader
    are slower than it. The first batches are smaller, so that it begins soon. Which rows share a batch depends on the
    rows alone. Twice `within` rows, two batches and two rows per thread are in memory at most.

    Args:
        prepare: reads, decodes, resizes or tokenises a row.
        model: starts to work on a batch, and returns the function that waits for it and gives a result for each row.
        size: most rows in a batch.
        kind: what the rows of a batch have in common, such as a shape; None for a row that the model is not shown. As
            it is, every row that is not None when it is prepared can be in a batch with any other.
        within: a batch is as full as so many consecutive rows make it; None is four times `size`.
    """
    within, waiting = within or 4 * size, deque[_Waiting[Prepared, Result]]()

    def batches() -> Generator[list[_Waiting[Prepared, Result]], None, None]:
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
        yield from begun.values() or [[]]

    def start(batch: list[_Waiting[Prepared, Result]]) -> Callable[[], None]:
        finish = model([row.prepared for row in batch]) if batch else list

        def done() -> None:
            for row, made in zip(batch, finish(), strict=True):
                row.made, row.is_done = made, True

        return done

    with closing(batches()) as groups, closing(ahead(start, groups, 1, window=2)) as started:
        for done in started:
            done()
            while waiting and waiting[0].is_done:
                row = waiting.popleft()
                yield row.prepared, row.made


def of_each(read: Callable[[Path], Result], paths: Sequence[Path]) -> Iterator[Result]:
    """`map(read, paths)` over files of one dataset: in order, and at the same time where they are in a store."""
    return ahead(read, paths, IN_A_STORE if paths and kept(paths[0]) is not None else 1)
