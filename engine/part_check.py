"""Says what is wrong with a part of a table, of which a row group at a time is held."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from engine.content import ContentDigest
from engine.damage import Damaged, explaining_damage
from engine.dataset import row_groups
from engine.names import DIGITS, PartName
from schemas.files import refresh_copy
from schemas.seal import check_footer
from schemas.tables import refuse_other_columns, schema_of


def problem_of(path: Path, table: str, row_ids: range | None = None) -> str | None:
    """What is wrong with a part, in a few words; None where nothing is. Of one in a store no earlier copy is taken.
    `row_ids`: those that the part may hold."""
    try:
        with explaining_damage(path):
            refresh_copy(path)
            return _problem_of_rows(path, table, check_footer(path), row_ids)
    except Damaged:
        return f"{path} is damaged"


def _problem_of_rows(path: Path, table: str, sealed: bool, row_ids: range | None) -> str | None:
    pieces = row_groups(path, ["row_id"] if sealed and row_ids is not None else None)
    names = next(pieces).schema.names
    refuse_other_columns(table, names)
    contract = pa.schema([schema_of(table).field(name) for name in names])
    digest = None if sealed else ContentDigest(contract)
    for rows in pieces:
        if row_ids is not None and not _within(rows["row_id"], row_ids):
            return f"{path} holds the rows of another part"
        if digest is not None:
            digest.add(rows.cast(contract))
    name = PartName.parse(path.name)
    # a file without a seal may have another footer; what a retry fetched again has a name of its own
    if digest is not None and name is not None and table != "listing" and digest.hexdigest()[:DIGITS] != name.content:
        return f"{path} is damaged"
    return None


def _within(found: pa.ChunkedArray, row_ids: range) -> bool:
    least, most = pc.min_max(found).as_py().values()
    return least is None or (least in row_ids and most in row_ids)
