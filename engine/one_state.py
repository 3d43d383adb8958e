"""What reads a dataset while a build runs sees one state of it, or says that the build is replacing tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from engine.dataset import Dataset
from schemas.tables import REDUCE_TABLES

Stamps = dict[Path, tuple[int, int]]
"""Path -> (inode, time of the last change) of every file of a table."""


class Replaced(ValueError):
    """A file was replaced or deleted while it was read."""


@contextmanager
def one_state(dataset: Dataset) -> Iterator[Stamps]:
    """Refuse what is read inside where a build has replaced or deleted a file of a table meanwhile. New files change
    nothing: a connection sees those that were there when it was made.

    Raises:
        Replaced: in place of whatever error came of it, or at the end.
    """
    before = stamps(dataset)
    try:
        yield before
    except (duckdb.Error, ValueError, OSError, LookupError) as error:
        if before.items() <= stamps(dataset).items():
            raise
        raise _replaced(dataset) from error
    if not before.items() <= stamps(dataset).items():
        raise _replaced(dataset)


def _replaced(dataset: Dataset) -> Replaced:
    return Replaced(f"{dataset.root}: a build is replacing tables of this dataset; wait for it, or run again")


def stamps(dataset: Dataset) -> Stamps:
    """The files as they are now."""
    found = {}
    for table in [*dataset.map_tables(), *REDUCE_TABLES]:
        for path in dataset.files(table):
            with suppress(FileNotFoundError):
                stat = path.stat()
                found[path] = (stat.st_ino, stat.st_mtime_ns)
    return found
