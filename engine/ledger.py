"""Count the ledger, in which every input is one row."""

from __future__ import annotations

from contextlib import suppress
from importlib import resources
from typing import NamedTuple

from engine import catalog
from engine.duck import Connection, explaining_tables
from engine.names import Held
from engine.one_state import one_state
from schemas.reasons import OUTCOMES
from schemas.seal import read_json, write_json
from schemas.strict import DUCKDB_MEMORY, fingerprint

COUNTS = ".ledger"
"""File of a dataset: what its ledger came to when it was last counted; may be deleted."""


class LedgerCount(NamedTuple):
    """The number of inputs that have one outcome for one reason."""

    outcome: str
    stage: str | None
    reason: str | None
    num: int


def ledger_counts(connection: Connection) -> list[LedgerCount]:
    """The inputs of every kind in the ledger: in the order of `OUTCOMES`, then the most frequent first. Raises
    ValueError: a file is damaged."""
    sql = (
        f"SELECT * FROM (SELECT outcome::VARCHAR AS outcome, stage::VARCHAR AS stage, reason::VARCHAR AS reason, "
        f"count(*) AS num FROM ledger GROUP BY ALL) "
        f"ORDER BY array_position({list(OUTCOMES)}, outcome), num DESC, stage, reason"
    )
    with explaining_tables():
        return [LedgerCount(*row) for row in connection.execute(sql).fetchall()]


def counts_of(held: Held, memory: str = DUCKDB_MEMORY) -> list[LedgerCount]:
    """The counts of a dataset, of which no file is opened where they were remembered for the parts that it has. Raises
    ValueError: a file is damaged. duckdb.OutOfMemoryException: the memory does not suffice."""
    if (known := remembered_counts(held)) is not None:
        return known
    with one_state(held.dataset), catalog.connect(held.dataset, memory, reads=["ledger"]) as connection:
        return ledger_counts(connection)


def remember_counts(held: Held, counts: list[LedgerCount]) -> None:
    """Remember counts for the parts that there are; no other process may be writing."""
    if remembered_counts(held) is None:
        write_json(held.dataset.root / COUNTS, counts_entry(held, counts))


def remembered_counts(held: Held) -> list[LedgerCount] | None:
    """The counts that were remembered for the parts that there are, or None."""
    with suppress(OSError, ValueError, LookupError, TypeError):  # damaged ones are counted again
        known = read_json(held.dataset.root / COUNTS)
        if known["parts"] == _parts(held):
            return [LedgerCount(*row) for row in known["counts"]]
    return None


def counts_entry(held: Held, counts: list[LedgerCount]) -> dict[str, object]:
    return {"parts": _parts(held), "counts": counts}


def _parts(held: Held) -> str:
    """Names the parts that the ledger reads, and the query: the name of a part says what it holds."""
    parts = {table: [name.file for name in held.parts(table).values()] for table in catalog.named_in("ledger")}
    sql = resources.files("engine").joinpath("ledger.sql").read_text(encoding="utf-8")
    return fingerprint([sql, parts])
