"""Count the ledger, in which every input is one row."""

from __future__ import annotations

from typing import NamedTuple

from engine.catalog import explaining_tables
from engine.duck import Connection
from schemas.reasons import OUTCOMES


class LedgerCount(NamedTuple):
    """The number of inputs that have one outcome for one reason."""

    outcome: str
    stage: str | None
    reason: str | None
    num: int


def ledger_counts(connection: Connection, ledger: str = "ledger") -> list[LedgerCount]:
    """The inputs of every kind in the ledger: in the order of `OUTCOMES`, then the most frequent first.

    Args:
        ledger: the relation with the outcomes.

    Raises:
        ValueError: a file is damaged.
    """
    sql = (
        f"SELECT * FROM (SELECT outcome::VARCHAR AS outcome, stage::VARCHAR AS stage, reason::VARCHAR AS reason, "
        f"count(*) AS num FROM {ledger} GROUP BY ALL) "
        f"ORDER BY array_position({list(OUTCOMES)}, outcome), num DESC, stage, reason"
    )
    with explaining_tables():
        return [LedgerCount(*row) for row in connection.execute(sql).fetchall()]
