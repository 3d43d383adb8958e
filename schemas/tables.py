"""The Arrow schema of every table, made from `schemas.columns`."""

from __future__ import annotations

from functools import cache

import pyarrow as pa

from schemas import columns


def _type(name: str) -> pa.DataType:
    kind, _, item = name.rpartition(" ")
    made = pa.type_for_alias(item)
    return pa.list_(made) if kind == "list of" else pa.map_(pa.string(), made) if kind else made


@cache
def schema_of(table: str) -> pa.Schema:
    """The schema of a table, of any family too."""
    return pa.schema(
        [pa.field(name, _type(each.type), each.nullable) for name, each in columns.columns_of(table).items()]
    )


SCHEMAS = {table: schema_of(table) for table in columns.TABLES}


def with_added(table: str, rows: pa.Table) -> pa.Table:
    """The rows of a file, with nulls in the columns that its table has gained since it was written."""
    for name in {*columns.added_to(table)}.difference(rows.schema.names):
        field = schema_of(table).field(name)
        rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows


def refuse_other_columns(table: str, names: list[str]) -> None:
    """Refuse a part that has other columns than its table, as one of another table has. Raises pa.ArrowInvalid."""
    added = columns.added_to(table)
    if names != [name for name in schema_of(table).names if name in names or name not in added]:
        raise pa.ArrowInvalid(f"it is a part of another table, with {', '.join(names)}")
