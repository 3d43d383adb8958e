"""Other thresholds, as the console, a page in a file and the live page show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from curation.selection import select, thresholds
from curation.selection.thresholds import EVERYTHING, Comparison, Count
from engine.dataset import Dataset
from engine.duck import Row
from schemas.commit import write_bytes
from schemas.files import shown_place
from schemas.reasons import Rejection
from schemas.recipe import Select
from viewer.cards import cards, data_uris
from viewer.database import RULES_TABLE, Database
from viewer.rendering import environment

MOST_MOVED = 12
"""At most this many pictures that fall are shown, and as many that come in."""

HIGHEST_SIDE_PX = 1_000_000

OUTCOMES = tuple(
    str(name)
    for name in ("kept", *(rule.reason for rule in select.RULES), Rejection.IN_OTHER_DATASET, Rejection.DUPLICATE)
)
"""All outcomes of `select`, in the order in which the rules run."""

ALWAYS_SHOWN = frozenset(
    {"kept", Rejection.TOO_SMALL, Rejection.EXTREME_ASPECT, Rejection.LOW_AESTHETIC, Rejection.DUPLICATE}
)
"""Outcomes shown even at zero, because a slider can change them."""

_STEP = 0.05


@dataclass(frozen=True)
class Slider:
    """A threshold that the page can move; the other rules apply as they are."""

    knob: str
    label: str
    low: float
    high: float
    step: float
    value: float
    """The position of the slider."""
    now: float | None
    """The threshold that `select` applied; None without a limit."""
    unlimited: float | None
    """The end of the slider that means no limit; None if neither does."""


def sliders(tried: Select, now: Select) -> tuple[Slider, ...]:
    """A slider per threshold: at its value in `tried`, with its value in `now`. The lower end of the score means no
    limit, since scores may lie below it. An end of the aspect does only before `select` has run: a recipe always has
    that limit."""
    unlimited = EVERYTHING.max_aspect
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
    """The lower end of the slider of the score, below the threshold of `select`."""
    return 1.0 if now.min_aesthetic is None else min(1.0, round(now.min_aesthetic - _STEP, 6))


def tried(given: Mapping[str, str], now: Select) -> Select:
    """The rules of `select` with the thresholds that an address names. Raises ValueError: a value that is no
    threshold."""
    standing = {slider.knob: slider for slider in sliders(now, now)}
    side, aspect, score = (standing[name] for name in ("min_short_side_px", "max_aspect", "min_aesthetic"))
    wide = _number(given, aspect, max(1000.0, aspect.high))
    moved: dict[str, float | None] = {
        "min_short_side_px": int(_number(given, side, HIGHEST_SIDE_PX)),
        "max_aspect": wide,
        "min_aesthetic": _number(given, score, score.high),
    }
    if aspect.unlimited is not None and wide >= aspect.unlimited:
        moved["max_aspect"] = EVERYTHING.max_aspect
    if moved["min_aesthetic"] == score.unlimited:
        moved["min_aesthetic"] = None
    return now.model_copy(update=moved)


@dataclass(frozen=True)
class Outcome:
    """The counts and pictures on the page of thresholds."""

    counts: list[Count]
    """Pictures kept and refused by each rule, as `select` left them and with these thresholds."""
    fallen: list[Row]
    """Cards of pictures that are kept now and would fall, nearest to a threshold first, with the `rule`."""
    num_fallen: int
    returned: list[Row]
    """Cards of pictures that are refused now and would come in."""
    num_returned: int
    sql: str


def outcome(database: Database, rules: Select) -> Outcome:
    """The outcome of `select`'s own query by these rules, compared with its choice on record."""
    rules = rules.model_copy(update={"subsets": {}})
    with database.cursor() as cursor:
        facts = RULES_TABLE
        if not database.ready(RULES_TABLE):
            facts = "facts"
            cursor.execute(f"CREATE TEMP TABLE {facts} AS {thresholds.facts_sql(rules)}")
        thresholds.try_rules(cursor, rules, facts)
        found = {count.name: count for count in thresholds.count(cursor, "rejected by")}
        num_fallen, num_returned = thresholds.num_moved(cursor)
        fallen, returned = (
            thresholds.nearest_moved(cursor, rules, facts, comes_in, MOST_MOVED) for comes_in in (False, True)
        )
        shown = {
            card["row_id"]: card
            for card in cards(cursor, database.held, [row["row_id"] for row in [*fallen, *returned]])
        }
    names = [name for name in OUTCOMES if name in found or name in ALWAYS_SHOWN]
    return Outcome(
        [found.get(name, Count(name, 0, 0)) for name in dict.fromkeys([*names, *found])],
        [shown[row["row_id"]] | {"rule": row["rejected_by"]} for row in fallen],
        num_fallen,
        [shown[row["row_id"]] for row in returned],
        num_returned,
        thresholds.count_sql("rejected by", now="selection", then=f"({thresholds.chosen_sql(rules)})"),
    )


def _number(given: Mapping[str, str], slider: Slider, high: float) -> float:
    text = given.get(slider.knob, "").strip()
    try:
        number = float(text) if text else float(slider.value)
    except ValueError:
        raise ValueError(f"{slider.knob} is a number, not {text[:40]!r}") from None
    if not slider.low <= number <= high:
        raise ValueError(f"{slider.knob} must be between {slider.low:g} and {high:g}; this is {number:g}")
    return number


def lines(found: Comparison) -> Iterator[str]:
    now, then = found.kept
    yield f"kept: {now:,} now, {then:,} then ({then - now:+,})" + (
        f": {found.num_fallen:,} would fall, {found.num_returned:,} would come in"
    )
    for title, counts in found.counts.items():
        yield f"{title:<20} {'now':>12} {'then':>12} {'change':>10}"
        for name, num_now, num_then in counts:
            yield f"  {name:<18} {num_now:>12,} {num_then:>12,} {num_then - num_now:>+10,}"
    for knob, near in found.near.items():
        yield f"nearest to select.{knob}"
        for picture in near:
            yield f"  {'kept' if picture.kept else 'out ':<4} {picture.value:>12.4g}  {picture.name}"


def write_page(dataset: Dataset, found: Comparison, path: Path) -> None:
    """An HTML file with the comparison and a thumbnail of every picture near a threshold."""
    row_ids = [picture.row_id for near in found.near.values() for picture in near]
    thumbnails = data_uris(dataset.held(), row_ids)
    page = environment(live=False).get_template("comparison.html.jinja").render(
        name=dataset.root.name, root=shown_place(dataset.root), found=found, thumbnails=thumbnails
    )  # fmt: skip
    write_bytes(path, page.encode("utf-8", errors="replace"))
