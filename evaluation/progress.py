"""How far an evaluation is, seen from its folder alone: no recipe is read and no model looked for."""

from __future__ import annotations

from engine.names import Held
from schemas.files import find_files

ORDER = ("prompts", "pictures", "features", "agreement", "answers", "nearness", "results")
"""The tables, or families of tables, in the order in which they are made."""


def progress_of(held: Held) -> list[tuple[str, str, int, int]]:
    """(job, table, parts that hold, parts that it will have) of every table that was begun, by its record."""
    records = held.dataset.tables / ".records"
    tables = sorted(str(path.relative_to(records).with_suffix("")) for path in find_files(records, "**/*.json"))
    rows = []
    for table in sorted(tables, key=lambda table: ORDER.index(table.partition("/")[0])):
        record, expected = held.record(table), held.expected_on_record(table)
        if table == "prompts":
            expected = [""] * len(held.holding(table))
        if record is not None and expected is not None:
            rows.append((record.job, table, len(held.holding(table)), len(expected)))
    return rows
