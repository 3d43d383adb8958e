"""What a takedown does to the rows of one table: empty them, filter them, number them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.ingest.takedown_log import IDENTITY, KeepValue, blank
from engine.dataset import as_stored, commit_table, content_digest, read_parquet
from engine.names import DIGITS
from schemas.columns import added_to
from schemas.files import delete_files


def emptied(rows: pa.Table, mask: pa.ChunkedArray, whys: Mapping[int, str]) -> pa.Table:
    """A table whose rows under the mask hold nothing of their images, and in `detail` why they were taken out. `whys`:
    by row_id."""
    names = rows.schema.names
    details = [whys.get(row_id) for row_id in rows["row_id"].to_pylist()] if "detail" in names else []
    columns = []
    for field in rows.schema:
        column = rows[field.name]
        value = KeepValue if field.name in IDENTITY else blank(field)
        if field.name == "detail":
            column = pc.if_else(mask, pa.array(details, field.type), column)
        elif value is not KeepValue:
            column = pc.if_else(mask, pa.scalar(value, field.type), column)
        columns.append(column)
    return pa.table(columns, schema=rows.schema)


def without_captions(selection: pa.Table, mask: pa.ChunkedArray) -> pa.Table:
    """The selection without the captions that the rows under the mask have inherited."""
    for name in added_to("selection"):
        field = selection.schema.field(name)
        column = pc.if_else(mask, pa.scalar(None, field.type), selection[name])
        selection = selection.set_column(selection.schema.get_field_index(name), field, column)
    return selection


def renumbered(plan: pa.Table) -> pa.Table:
    """A plan whose samples are counted again within each shard; shards keep their numbers."""
    counts: dict[Any, int] = {}
    positions = []
    for shard_id in plan["shard_id"].to_pylist():
        positions.append(counts.get(shard_id, 0))
        counts[shard_id] = positions[-1] + 1
    place = plan.schema.get_field_index("position")
    return plan.set_column(place, plan.schema.field(place), pa.array(positions, pa.int32()))


def keep_rows(path: Path, table: str, mask: Callable[[pa.Table], pa.ChunkedArray]) -> None:
    """Replace a file of rows that were paid for by one with those under the mask."""
    rows = as_stored(table, read_parquet(path))
    kept = rows.filter(mask(rows))
    if kept.num_rows == rows.num_rows:
        return
    if kept.num_rows:
        *first, _, _ = path.name.split(".")
        name = ".".join([*first, content_digest(kept)[:DIGITS], "parquet"])
        commit_table(path.with_name(name), kept, rows.schema, {})
    delete_files(path)
