"""Run a function over rows on threads: results in order, a bounded number in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from schemas.files import kept

Row = TypeVar("Row")
Result = TypeVar("Result")

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


def of_each(read: Callable[[Path], Result], paths: Sequence[Path]) -> Iterator[Result]:
    """`map(read, paths)` over files of one dataset: in order, and at the same time where they are in a store."""
    return ahead(read, paths, IN_A_STORE if paths and kept(paths[0]) is not None else 1)
