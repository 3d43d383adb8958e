"""What if a threshold of `select` were another: counts, and the pictures that would fall or come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curation.browse.filters import with_literals
from curation.browse.pictures import cards
from curation.browse.queries import RULES_TABLE, Database
from curation.report import jobs
from curation.report.figures import Row
from schemas.reasons import Rejection

MOST_MOVED = 12
"""Pictures that are shown of those that fall, and of those that come back."""

HIGHEST_SIDE_PX = 1_000_000

MOVABLE = (Rejection.TOO_SMALL, Rejection.EXTREME_ASPECT, Rejection.LOW_AESTHETIC)
"""The rules whose thresholds are tried here; what `select` refused by another rule stays refused."""


@dataclass(frozen=True)
class Cut:
    """Thresholds to try."""

    min_short_side_px: int
    max_aspect: float
    min_aesthetic: float

    @classmethod
    def of(cls, given: Mapping[str, str], now: jobs.Thresholds) -> Cut:
        """From the parameters of an address; those that are not given are as `select` has them.

        Raises:
            ValueError: a value that is no threshold.
        """
        return cls(
            int(_number(given, "min_short_side_px", now.min_short_side_px, 1, HIGHEST_SIDE_PX)),
            _number(given, "max_aspect", now.max_aspect or 100.0, 1, 1000),
            _number(given, "min_aesthetic", now.min_aesthetic or 1.0, 1, 10),
        )

    @property
    def values(self) -> dict[str, Any]:
        """The parameters of the SQL."""
        return {"p0": self.min_short_side_px, "p1": self.max_aspect, "p2": self.min_aesthetic}


@dataclass(frozen=True)
class Outcome:
    """What thresholds come to."""

    counts: list[Row]
    """(what, num, now): pictures kept and refused by each rule, here and as `select` left them."""
    fallen: list[Row]
    """Kept now, refused by these thresholds, nearest to the threshold first."""
    num_fallen: int
    returned: list[Row]
    """Refused now by a threshold, kept or a duplicate by these."""
    num_returned: int
    sql: str


def outcome(database: Database, cut: Cut) -> Outcome:
    """Count the rules in their order (size, aspect, score, then duplicates), as `select` applies them."""
    facts = RULES_TABLE if database.ready(RULES_TABLE) else f"({database.rules_sql()})"
    found = {row["what"]: row for row in database.rows(counts_sql(facts), cut.values)}
    rules = tuple(str(rule) for rule in Rejection if rule is not Rejection.NO_CAPTION)
    counts = [found.get(what, {"what": what, "num": 0, "now": 0}) for what in ("kept", *rules)]
    thresholds = ", ".join(f"'{rule}'" for rule in MOVABLE)
    fell, came = "kept AND rule IS NOT NULL", f"rejected_by IN ({thresholds}) AND rule IS NULL"
    (num,) = database.rows(
        f"SELECT count(*) FILTER ({fell}) AS fallen, count(*) FILTER ({came}) AS returned FROM ({_ruled(facts)})",
        cut.values,
    )
    return Outcome(
        counts,
        _moved(database, facts, fell, cut) if num["fallen"] else [],
        num["fallen"],
        _moved(database, facts, came, cut) if num["returned"] else [],
        num["returned"],
        with_literals(counts_sql(f"({database.rules_sql()})"), cut.values),
    )


def counts_sql(facts: str) -> str:
    """Pictures by rule under the thresholds $p0, $p1 and $p2, beside what `selection` holds.

    Of a group of duplicates that pass the rules one stays, whichever it is, so counting needs no choice between them.
    """
    return f"""WITH ruled AS ({_ruled(facts)}),
counted AS (
    SELECT rule AS what, count(*) AS num, 0 AS now FROM ruled WHERE rule IS NOT NULL GROUP BY rule
    UNION ALL SELECT 'kept', count(DISTINCT same), 0 FROM ruled WHERE rule IS NULL
    UNION ALL SELECT '{Rejection.DUPLICATE}', count(*) - count(DISTINCT same), 0 FROM ruled WHERE rule IS NULL
    UNION ALL SELECT if(kept, 'kept', rejected_by), 0, count(*) FROM ruled WHERE kept OR rejected_by IS NOT NULL
    GROUP BY ALL
)
SELECT what, sum(num)::BIGINT AS num, sum(now)::BIGINT AS now FROM counted GROUP BY what ORDER BY what"""


def _ruled(facts: str) -> str:
    """The facts with the rule that each picture fails first, null where it passes."""
    undecided = ", ".join(f"'{rule}'" for rule in (*MOVABLE, Rejection.DUPLICATE))
    return (
        f"SELECT *, CASE WHEN short_side < $p0 THEN '{Rejection.TOO_SMALL}' "
        f"WHEN aspect > CAST($p1 AS DOUBLE) THEN '{Rejection.EXTREME_ASPECT}' "
        f"WHEN aesthetic < CAST($p2 AS FLOAT) THEN '{Rejection.LOW_AESTHETIC}' "
        f"WHEN rejected_by NOT IN ({undecided}) THEN rejected_by END AS rule FROM {facts}"
    )


def _moved(database: Database, facts: str, which: str, cut: Cut) -> list[Row]:
    """Cards of the pictures that change sides, those nearest to a threshold first."""
    nearness = (
        "least(abs(ln(short_side / $p0::DOUBLE)), abs(ln(aspect / CAST($p1 AS DOUBLE))), "
        "coalesce(abs(aesthetic - CAST($p2 AS FLOAT)), 100))"
    )
    found = database.rows(
        f"SELECT row_id, rule, rejected_by FROM ({_ruled(facts)}) WHERE {which} "
        f"ORDER BY {nearness}, row_id LIMIT {MOST_MOVED}",
        cut.values,
    )
    why = {row["row_id"]: row["rule"] or row["rejected_by"] for row in found}
    return [card | {"rule": why[card["row_id"]]} for card in cards(database, [row["row_id"] for row in found])]


def _number(given: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = given.get(name, "").strip()
    try:
        number = float(text) if text else float(default)
    except ValueError:
        raise ValueError(f"{name} is a number, not {text[:40]!r}") from None
    if not low <= number <= high:
        raise ValueError(f"{name} lies between {low:g} and {high:g}, not at {number:g}")
    return number
