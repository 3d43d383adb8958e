"""The rows of each part of a table, and how many of them have which reason, in one file per table: nobody opens ten
thousand parts to add them up.

It has parts by their names, which digest what they hold. So it is never wrong, even where it was written before, or by
two at the same time; what it lacks is counted from the part itself. It says nothing about what is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from engine.ahead import IN_A_STORE, of_each
from engine.dataset import count_rows, read_parquet
from schemas.columns import ROOTS
from schemas.commit import write_bytes
from schemas.late import late
from schemas.seal import read_json, to_json

with late(__name__):
    import pyarrow as pa
    import pyarrow.compute as pc

    from schemas.tables import schema_of

MANIFEST = ".counts.json"
"""File in the folder of a table; may be deleted."""

FEW = IN_A_STORE
"""So many parts are opened as soon as a manifest is read; a table with no more has none."""


class Counts(NamedTuple):
    """Of one part or of several."""

    rows: int
    reasons: dict[str, int]
    """Rows by reason, where they have one."""


_known: dict[Path, Counts] = {}
"""Of the parts that this process has counted or seen committed."""


def counts_of(table: str, rows: pa.Table) -> Counts:
    """The counts of the rows of a part."""
    column = _reason(table)
    found = pc.value_counts(rows[column].drop_null()).to_pylist() if column else []
    return Counts(rows.num_rows, {each["values"]: each["counts"] for each in found})


def note(path: Path, counts: Counts) -> None:
    """Remember the counts of a part that was committed."""
    _known[path] = counts


def read_counts(table: str, paths: Sequence[Path]) -> list[Counts]:
    """The counts of some parts of a table. Raises ValueError: a part that nothing has counted is damaged."""
    if sum(path not in _known for path in paths) > FEW:
        folder = paths[0].parent
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # a damaged one says nothing
            _known.update((folder / name, Counts(*of)) for name, of in read_json(folder / MANIFEST)["parts"].items())
    unknown = [path for path in paths if path not in _known]
    _known.update(zip(unknown, of_each(partial(_count, table), unknown), strict=True))
    return [_known[path] for path in paths]


def count_whole(table: str, paths: Sequence[Path]) -> Counts:
    """The counts of a table that is whole, over all of its parts. Its manifest is written."""
    found = read_counts(table, paths)
    if len(paths) > FEW:
        parts = {path.name: counts for path, counts in zip(paths, found, strict=True)}
        write_bytes(paths[0].parent / MANIFEST, to_json({"parts": parts}, sort_keys=True).encode())
    return total(found)


def total(parts: Iterable[Counts]) -> Counts:
    """The sum of the counts of some parts."""
    rows, reasons = 0, Counter[str]()
    for part in parts:
        rows += part.rows
        reasons.update(part.reasons)
    return Counts(rows, dict(sorted(reasons.items())))


def _count(table: str, path: Path) -> Counts:
    column = _reason(table)
    return counts_of(table, read_parquet(path, [column])) if column else Counts(count_rows(path), {})


def _reason(table: str) -> str | None:
    """The column with the reasons of a table; a root has none until its rows are read."""
    names = () if table in ROOTS.values() else schema_of(table).names
    return next((name for name in ("reason", "rejected_by") if name in names), None)
