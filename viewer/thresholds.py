"""What if a threshold of `select` were another: counts, and the pictures that would fall or come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from curation.selection import select
from engine.catalog import Connection, Row, rows
from schemas.reasons import Rejection
from schemas.recipe import Select
from viewer import costs
from viewer.cards import cards
from viewer.database import RULES_TABLE, Database

MOST_MOVED = 12
"""Pictures that are shown of those that fall, and of those that come in."""

HIGHEST_SIDE_PX = 1_000_000

OUTCOMES = tuple(
    str(name)
    for name in ("kept", *(rule.reason for rule in select.RULES), Rejection.IN_OTHER_DATASET, Rejection.DUPLICATE)
)
"""What may become of a picture, in the order it is asked."""

ALWAYS_SHOWN = frozenset(
    {"kept", Rejection.TOO_SMALL, Rejection.EXTREME_ASPECT, Rejection.LOW_AESTHETIC, Rejection.DUPLICATE}
)
"""Of them, those that have a row although they happen to no picture: what the sliders move."""

_STEP = 0.05


@dataclass(frozen=True)
class Slider:
    """A threshold that can be tried here; what other rules refuse stays refused."""

    knob: str
    label: str
    low: float
    high: float
    step: float
    value: float
    """Where it stands."""
    now: float | None
    """As `select` has it; None where there is no limit."""
    unlimited: float | None
    """The end that means no limit, if one does."""


def sliders(tried: Select, now: Select) -> tuple[Slider, ...]:
    """The thresholds of `tried` beside those of `select`.

    The lower end of the score means no limit, since scores may lie below it. An end of the aspect does only before
    `select` has run: a recipe always has that limit.
    """
    unlimited = costs.EVERYTHING.max_aspect
    widest = 8.0 if now.max_aspect == unlimited else max(8.0, now.max_aspect, tried.max_aspect)
    least, scores = lowest_score(now), (tried.min_aesthetic, now.min_aesthetic)
    return (
        Slider(
            "min_short_side_px", "Shortest short side, px", 1,
            max(2048, now.min_short_side_px * 2, tried.min_short_side_px), 1,
            tried.min_short_side_px, now.min_short_side_px, None,
        ),
        Slider(
            "max_aspect", "Longest side / short side", 1, widest, _STEP, min(tried.max_aspect, widest),
            *((None, widest) if now.max_aspect == unlimited else (now.max_aspect, None)),
        ),
        Slider(
            "min_aesthetic", "Lowest aesthetic score", least, max(10.0, *(score or 0.0 for score in scores)), _STEP,
            least if tried.min_aesthetic is None else tried.min_aesthetic, now.min_aesthetic, least,
        ),
    )  # fmt: skip


def lowest_score(now: Select) -> float:
    """The end of the slider, below what `select` has."""
    return 1.0 if now.min_aesthetic is None else min(1.0, round(now.min_aesthetic - _STEP, 6))


def tried(given: Mapping[str, str], now: Select) -> Select:
    """The rules of `select` with the thresholds that an address names.

    Raises:
        ValueError: a value that is no threshold.
    """
    standing = {slider.knob: slider for slider in sliders(now, now)}
    side, aspect, score = (standing[name] for name in ("min_short_side_px", "max_aspect", "min_aesthetic"))
    wide = _number(given, aspect, max(1000.0, aspect.high))
    moved: dict[str, float | None] = {
        "min_short_side_px": int(_number(given, side, HIGHEST_SIDE_PX)),
        "max_aspect": wide,
        "min_aesthetic": _number(given, score, score.high),
    }
    if aspect.unlimited is not None and wide >= aspect.unlimited:
        moved["max_aspect"] = costs.EVERYTHING.max_aspect
    if moved["min_aesthetic"] == score.unlimited:
        moved["min_aesthetic"] = None
    return now.model_copy(update=moved)


@dataclass(frozen=True)
class Outcome:
    """What thresholds come to."""

    counts: list[Row]
    """(what, num, now): pictures kept and refused by each rule, here and as `select` left them."""
    fallen: list[Row]
    """Kept now, refused by these thresholds or as a duplicate, nearest to a threshold first."""
    num_fallen: int
    returned: list[Row]
    """Refused now, kept by these."""
    num_returned: int
    sql: str


def outcome(database: Database, rules: Select) -> Outcome:
    """What `select`'s own query gives by these rules, beside what it chose."""
    with database.cursor() as cursor:
        facts = RULES_TABLE
        if not database.ready(RULES_TABLE):
            facts = "looked_at"
            cursor.execute(f"CREATE TEMP TABLE {facts} AS {database.rules_sql()}")
        captions = f"(SELECT row_id, caption FROM {facts} WHERE caption IS NOT NULL)"
        cursor.execute(
            f"CREATE TEMP TABLE moved AS SELECT row_id, kept, rejected_by, was_kept, was_rejected_by "
            f"FROM ({chosen(rules, f'FROM {facts}', captions)}) JOIN {facts} USING (row_id)"
        )
        found = {row["what"]: row for row in rows(cursor, _counts("moved", "moved", "was_"))}
        fallen, num_fallen = _moved(cursor, facts, "was_kept AND NOT kept", rules)
        returned, num_returned = _moved(cursor, facts, "kept AND NOT was_kept", rules)
        shown = {card["row_id"]: card for card in cards(cursor, [row["row_id"] for row in [*fallen, *returned]])}
    refused = {row["row_id"]: row["rejected_by"] for row in fallen}
    return Outcome(
        [
            {"what": what, "num": 0, "now": 0} | found.pop(what, {})
            for what in OUTCOMES
            if what in found or what in ALWAYS_SHOWN
        ]
        + list(found.values()),
        [shown[row_id] | {"rule": rule} for row_id, rule in refused.items()],
        num_fallen,
        [shown[row["row_id"]] for row in returned],
        num_returned,
        _counts(f"({chosen(rules)})", "selection"),
    )


def chosen(rules: Select, pictures: str = select.PICTURES, captions: str = "raw_captions") -> str:
    """SELECT of what `select` would make of every picture; captions that are taken over and subsets are left out."""
    bare = rules.model_copy(update={"inherit_captions": False, "subsets": {}})
    return select.statement(bare, max_distance=None, pictures=pictures, captions=captions)


def _counts(then: str, now: str, prefix: str = "") -> str:
    """Pictures kept and refused by each rule, `then` beside `now`."""
    return f"""SELECT what, sum(num)::BIGINT AS num, sum(now)::BIGINT AS now FROM (
    SELECT if(kept, 'kept', rejected_by) AS what, count(*) AS num, 0 AS now FROM {then} GROUP BY what
    UNION ALL
    SELECT if({prefix}kept, 'kept', {prefix}rejected_by) AS what, 0, count(*) FROM {now} GROUP BY what
) WHERE what IS NOT NULL GROUP BY what ORDER BY what"""


def _moved(cursor: Connection, facts: str, which: str, rules: Select) -> tuple[list[Row], int]:
    """The pictures that change sides, those nearest to a threshold first, and how many there are."""
    [(num,)] = cursor.execute(f"SELECT count(*) FROM moved WHERE {which}").fetchall()
    if not num:
        return [], 0
    nearness = [
        f"abs(ln(short_side / {rules.min_short_side_px}::DOUBLE))",
        f"abs(ln(long_side / short_side::DOUBLE / {rules.max_aspect!r}::DOUBLE))",
    ]
    if rules.min_aesthetic is not None:
        nearness.append(f"abs(aesthetic - {rules.min_aesthetic!r}::FLOAT)")  # least passes over a null
    found = rows(
        cursor,
        f"SELECT row_id, rejected_by FROM (SELECT row_id, rejected_by FROM moved WHERE {which}) JOIN {facts} AS facts "
        f"USING (row_id) ORDER BY least({', '.join(nearness)}), row_id LIMIT {MOST_MOVED}",
    )
    return found, num


def _number(given: Mapping[str, str], slider: Slider, high: float) -> float:
    text = given.get(slider.knob, "").strip()
    try:
        number = float(text) if text else float(slider.value)
    except ValueError:
        raise ValueError(f"{slider.knob} is a number, not {text[:40]!r}") from None
    if not slider.low <= number <= high:
        raise ValueError(f"{slider.knob} lies between {slider.low:g} and {high:g}, not at {number:g}")
    return number
