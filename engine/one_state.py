"""What reads a dataset while a build runs sees one state of it, or says that the build is replacing tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.dataset import Dataset
from engine.duck import explaining_tables
from engine.names import PartName
from schemas.late import late

with late(__name__):
    import duckdb

Parts = frozenset[tuple[str, PartName]]
"""The table and the name of every part that is shown. A part never changes under its name."""


class Replaced(ValueError):
    """A file was replaced or deleted while it was read."""


@contextmanager
def one_state(dataset: Dataset) -> Iterator[Parts]:
    """Refuse what is read inside where a build has replaced or deleted a file of a table meanwhile. New files change
    nothing: a connection sees those that were there when it was made. Raises Replaced: in place of whatever error came
    of it, or at the end."""
    before = parts_now(dataset)
    try:
        with explaining_tables():
            yield before
    except (duckdb.Error, ValueError, OSError, LookupError) as error:
        if before <= parts_now(dataset):
            raise
        raise _replaced(dataset) from error
    if not before <= parts_now(dataset):
        raise _replaced(dataset)


def _replaced(dataset: Dataset) -> Replaced:
    return Replaced(f"{dataset.root}: a build is replacing tables of this dataset; wait for it, or run again")


def parts_now(dataset: Dataset) -> Parts:
    held = dataset.held()
    return frozenset((table, name) for table in held.tables() for name in held.parts(table).values())
