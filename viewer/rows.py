"""Reads the rows of some inputs or prompts from the parts that hold them: a page shows a few of millions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate

import pyarrow as pa

from engine.catalog import create_views
from engine.counts import read_counts
from engine.dataset import read_some, schema_of
from engine.duck import Connection
from engine.names import Held
from schemas.columns import ROOTS, cut_of


def rows_at(held: Held, table: str, row_ids: Collection[int], columns: list[str] | None = None) -> pa.Table:
    """The rows of some inputs in a table that is cut as the listing is, or of some prompts in one that is cut as the
    prompts are; no other row group is read. `columns`: `row_id` among them. Raises ValueError: a file is missing or
    damaged."""
    found = [schema_of(table).empty_table().select(columns or schema_of(table).names)]
    parts = held.parts(table)
    for number, inside in _by_part(held, ROOTS.get(cut_of(table), "listing"), row_ids).items():
        if number in parts:
            found.append(read_some(held.path(table, number), "row_id", inside, columns).cast(found[0].schema))
    return pa.concat_tables(found)


@contextmanager
def around(connection: Connection, held: Held, row_ids: Collection[int], reads: Iterable[str]) -> Iterator[Connection]:
    """A connection with views of the parts that hold some inputs, for those of `reads` that are cut as the listing is:
    a query by row_id over all parts opens every file."""
    with connection.cursor() as near:
        create_views(near, held.only(_by_part(held, "listing", row_ids)), reads, own=True)
        yield near


def know_parts(held: Held) -> None:
    """Learn where every row is, which takes seconds for millions of inputs, before a page asks for some."""
    held.only(())
    _ends_of(held, "listing")


def _by_part(held: Held, root: str, row_ids: Collection[int]) -> dict[int, list[int]]:
    """Part -> those of the rows that it holds, in the order of the parts."""
    ends, found = _ends_of(held, root), dict[int, list[int]]()
    numbers, behind = list(ends), list(ends.values())
    for row_id in sorted(set(row_ids)):
        place = bisect_right(behind, row_id)
        if place < len(numbers):
            found.setdefault(numbers[place], []).append(row_id)
    return found


@lru_cache(4)
def _ends_of(held: Held, root: str) -> dict[int, int]:
    """The row_id behind the last one of each part of the root; a page asks for many rows of one state."""
    ends = accumulate(part.rows for part in read_counts(root, held.paths(root)))
    return dict(zip(held.parts(root), ends, strict=True))
