"""Sort more entries than fit in memory: sorted runs in one temporary file, merged as they are read."""

from __future__ import annotations

import heapq
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import IO, TypeVar

RUN_ENTRIES = 1 << 17
"""Entries sorted at once: some 30 MB of names."""
CHUNK_ENTRIES = 256
"""Entries of a run that are read at once; each run holds that many while runs are merged."""

Entry = TypeVar("Entry")


def sorted_on_disk(
    entries: Iterable[Entry], key: Callable[[Entry], bytes], run_entries: int = RUN_ENTRIES
) -> Iterator[Entry]:
    """The entries in the order of their keys; equal keys keep the order they came in.

    `entries` is read to its end before this returns, so that what counts while it is read has counted, and its errors
    are raised here. Up to `run_entries` are sorted in memory and touch no disk; more go through a file in the
    temporary folder (TMPDIR), which has no name and goes with the iterator.

    Raises:
        ValueError: the temporary folder cannot be written, or is full.
    """
    rest = iter(entries)
    run = sorted(islice(rest, run_entries), key=key)
    following = next(rest, None)
    if following is None:
        return iter(run)
    rest = chain([following], rest)
    with _naming_the_folder():
        file = tempfile.TemporaryFile()  # noqa: SIM115  it goes with the iterators that read it
    places = []
    while run:
        with _naming_the_folder():
            places.append(_write(file, run))
        run = sorted(islice(rest, run_entries), key=key)
    return heapq.merge(*(_read(file, chunks) for chunks in places), key=key)


@contextmanager
def _naming_the_folder() -> Iterator[None]:
    """An error of the temporary folder is none of the folder that is listed."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{tempfile.gettempdir()}: the names of a large folder are sorted there ({error.strerror}); free some "
            "space, or set TMPDIR to a folder that has some"
        ) from None


def _write(file: IO[bytes], run: list[Entry]) -> list[tuple[int, int]]:
    """Where each chunk of a run lies: (begin, bytes)."""
    chunks = []
    for begin in range(0, len(run), CHUNK_ENTRIES):
        data = pickle.dumps(run[begin : begin + CHUNK_ENTRIES], pickle.HIGHEST_PROTOCOL)
        chunks.append((file.tell(), len(data)))
        file.write(data)
    file.flush()
    return chunks


def _read(file: IO[bytes], chunks: list[tuple[int, int]]) -> Iterator[Entry]:
    for begin, size in chunks:
        with _naming_the_folder():
            file.seek(begin)
            data = file.read(size)
        yield from pickle.loads(data)
