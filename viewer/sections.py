"""The sections of the report and of the overview: the content of each, from the queries to the templates."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, TimeoutError
from dataclasses import dataclass
from typing import Any

from captioning.figures import queries
from curation.selection.thresholds import rules_on_record
from engine.duck import Connection
from engine.ledger import LedgerCount, ledger_counts, remembered_counts
from engine.names import Held
from schemas.paper import TABLE_1
from schemas.reasons import OUTCOMES
from schemas.tokens import MAX_TOKENS
from viewer import cards, charts, costs, figures
from viewer.database import BACKGROUND_SECONDS, RULES_TABLE, Database
from viewer.figures import COUNTED
from viewer.grounding import worst_grounded

Content = dict[str, Any]
"""The values of one section by the names in its template; empty where the section has nothing to show."""


@dataclass(frozen=True)
class Amounts:
    """The most that a page shows of each kind."""

    pictures: int
    worst: int
    """Pictures per measure."""
    grounded: int
    pairs: int
    refused: int
    nouns: int = 20
    buckets: int = 20


REPORT = Amounts(pictures=60, worst=8, grounded=24, pairs=24, refused=200)
LIVE = Amounts(pictures=12, worst=4, grounded=4, pairs=8, refused=20)


@dataclass(frozen=True)
class Source:
    """A state of a dataset, a connection with its views, and how much of it to show."""

    connection: Connection
    held: Held
    amounts: Amounts

    def counts(self) -> list[LedgerCount]:
        """The counts of the ledger: those that the build remembered, or it is counted."""
        return remembered_counts(self.held) or ledger_counts(self.connection)


def inputs(source: Source) -> Content:
    """Every input and every reason, and the numbers at the head of the page."""
    funnel = source.counts()
    by_outcome = {outcome: sum(row.num for row in funnel if row.outcome == outcome) for outcome in OUTCOMES}
    buckets = figures.buckets(source.connection)
    return {
        "funnel": funnel,
        "by_outcome": by_outcome,
        "num_in_ledger": sum(by_outcome.values()),
        "num_inputs": figures.num_inputs(source.connection),
        "num_shards": sum(row["num_shards"] for row in buckets),
        "num_samples": sum(row["num"] for row in buckets),
        "mixed": _whole_set(queries.table_1(source.connection)).get("mix"),
    }


def captions(source: Source) -> Content:
    """Table 1 above the paper's, Fig. 6 in words and in tokens, the mix, and captions that were refused or cleaned."""
    statistics = queries.table_1(source.connection)
    return {
        "table_1": statistics,
        "statistics": _whole_set(statistics),
        "paper": TABLE_1,
        "mix": queries.realised_mix(source.connection),
        "refused": queries.refused_captions(source.connection),
        "cleaned": figures.cleaned_captions(source.connection),
        "words": charts.length_chart(figures.caption_words(source.connection)),
        "tokens": charts.length_chart(figures.caption_tokens(source.connection, MAX_TOKENS), MAX_TOKENS),
    }


def _whole_set(statistics: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows of Table 1 that are not a subset's, by caption source."""
    return {row["caption_source"]: row for row in statistics if row["subset"] is None}


def nouns(source: Source) -> Content:
    """The most frequent nouns of each source, and those that only one of them has."""
    top = {name: list[dict[str, Any]]() for name in queries.CAPTION_SOURCES}
    for name, noun, num_uses, num_images in queries.noun_counts(source.connection, source.amounts.nouns):
        if name in top:
            top[name].append({"name": noun, "num": num_uses, "num_images": num_images})
    return {"top": top, "changed": figures.changed_nouns(source.connection, source.amounts.nouns)}


def sizes(source: Source) -> Content:
    """The scatter of sizes with the lines of the buckets, and the number of samples in each bucket."""
    buckets = figures.buckets(source.connection)
    return {
        "sizes": charts.size_chart(figures.sizes(source.connection, source.held)),
        "num_inputs": figures.num_inputs(source.connection),
        "buckets": buckets[: source.amounts.buckets],
        "num_buckets": len(buckets),
    }


def scores(source: Source) -> Content:
    """The histogram of scores with the threshold that `select` applied."""
    threshold = rules_on_record(source.held.dataset).min_aesthetic
    return {"scores": charts.score_chart(figures.scores(source.connection), figures.SCORE_BIN, threshold)}


def pictures(source: Source) -> Content:
    """Kept pictures with their captions, as good as at random."""
    row_ids = cards.random(source.connection, source.amounts.pictures)
    found = cards.cards(source.connection, source.held, row_ids)
    return {"cards": found, "marked": [marked for card in found for marked in card["marks"].values()]}


def worst(source: Source) -> Content:
    """A grid per measure of its worst pictures: cards of those that no grid above shows, names of the others."""
    found = cards.worst(source.connection, source.amounts.worst)
    row_ids = [row_id for pairs in found.values() for row_id, _ in pairs]
    by_id = {card["row_id"]: card for card in cards.cards(source.connection, source.held, row_ids)}
    grids, shown = [], set[int]()
    for measure, pairs in found.items():
        rows = [by_id[row_id] | {"worst_value": value} for row_id, value in pairs if row_id in by_id]
        new = [row for row in rows if row["row_id"] not in shown]
        grids.append({"measure": measure, "cards": new, "again": [row for row in rows if row not in new]})
        shown |= {row["row_id"] for row in new}
    return {"grids": grids} if grids else {}


def grounding(source: Source) -> Content:
    found = worst_grounded(source.connection, source.amounts.grounded)
    return {"cards": found} if found else {}


def duplicates(source: Source) -> Content:
    [[num]] = source.connection.execute("SELECT count(*) FROM selection WHERE rejected_by = 'duplicate'").fetchall()
    return {"pairs": cards.duplicates(source.connection, source.held, source.amounts.pairs), "num": num}


def refused(source: Source) -> Content:
    """The first inputs that were refused, with value, threshold and detail."""
    num = sum(row.num for row in source.counts() if row.outcome in ("rejected", "error"))
    return {"rows": figures.refused(source.connection, source.held, source.amounts.refused), "num": num}


def jobs(source: Source) -> Content:
    return {"jobs": costs.job_costs(source.held.dataset)}


@dataclass(frozen=True)
class Section:
    title: str
    content: Callable[[Source], Content]


SECTIONS = {
    "inputs": Section("Every input, accounted for", inputs),
    "captions": Section("Captions", captions),
    "nouns": Section("Most frequent nouns", nouns),
    "sizes": Section("Sizes and buckets", sizes),
    "scores": Section("Aesthetic scores", scores),
    "pictures": Section("Pictures and their captions", pictures),
    "worst": Section("The worst of what is kept", worst),
    "grounding": Section("Worst grounded captions", grounding),
    "duplicates": Section("Duplicates and their survivors", duplicates),
    "refused": Section("Refused inputs", refused),
    "jobs": Section("What each job took", jobs),
}
"""All sections in the order of the page."""


def live_content(database: Database, section: Section) -> Content:
    """A section of the live pages, counted in the background."""
    with database.cursor(BACKGROUND_SECONDS) as cursor:
        return section.content(Source(cursor, database.held, LIVE))


class Overview:
    """The sections of one state of the dataset, each counted once, in the background, in the order of the page; then
    the tables that other pages read."""

    def __init__(self, database: Database) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="overview")
        self._found: dict[str, Future[Content]] = {
            name: self._pool.submit(live_content, database, section) for name, section in SECTIONS.items()
        }
        for table in (RULES_TABLE, *COUNTED):
            self._pool.submit(database.prepare, table)

    def get(self, name: str, seconds: float) -> Content | None:
        """A section, or None where it has not been counted within `seconds`. Raises ValueError: the section cannot be
        counted."""
        try:
            return self._found[name].result(timeout=max(0.0, seconds))
        except (TimeoutError, CancelledError):
            return None

    def ready(self, seconds: float) -> dict[str, Content | str | None]:
        """Every section that is ready within `seconds` altogether, None for the others; a text is an error."""
        until, found = time.monotonic() + seconds, dict[str, Content | str | None]()
        for name in SECTIONS:
            try:
                found[name] = self.get(name, until - time.monotonic())
            except ValueError as error:
                found[name] = str(error)
        return found

    def close(self) -> None:
        """Begin no further section."""
        self._pool.shutdown(wait=False, cancel_futures=True)
