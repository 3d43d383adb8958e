"""Reads the rows of some inputs or prompts from a table, and no others: a page shows a few of millions."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from itertools import accumulate

import pyarrow as pa

from engine.ahead import of_each
from engine.dataset import count_rows, read_some, schema_of
from engine.names import Held
from schemas.tables import ROOTS, cut_of


def rows_at(held: Held, table: str, row_ids: Collection[int], columns: list[str] | None = None) -> pa.Table:
    """The rows of some inputs in a table that is cut as the listing is, or of some prompts in one that is cut as the
    prompts are; no other row group is read.

    Args:
        columns: `row_id` among them.

    Raises:
        ValueError: a file is missing or damaged.
    """
    found = [schema_of(table).empty_table().select(columns or schema_of(table).names)]
    begin, ends = 0, _ends_of(held, ROOTS.get(cut_of(table), "listing"))
    for number in held.parts(table):
        end = ends.get(number)
        inside = [row_id for row_id in row_ids if end is None or begin <= row_id < end]
        begin = end or begin
        if inside:
            found.append(read_some(held.path(table, number), "row_id", inside, columns).cast(found[0].schema))
    return pa.concat_tables(found)


@lru_cache(4)
def _ends_of(held: Held, root: str) -> dict[int, int]:
    """The row_id behind the last one of each part of the root; a page asks for many rows of one state."""
    return dict(zip(held.parts(root), accumulate(of_each(count_rows, held.paths(root))), strict=True))
