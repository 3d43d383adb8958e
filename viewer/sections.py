"""The overview: its sections are worked out once per state of the dataset, in the background, in the order shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, TimeoutError
from typing import Any

from captioning.figures import queries
from engine.catalog import ledger_counts
from schemas.paper import TABLE_1
from schemas.reasons import OUTCOMES
from schemas.tokens import MAX_TOKENS
from viewer import charts, costs, figures
from viewer import samples as sampled
from viewer.database import BACKGROUND_SECONDS, LEDGER_TABLE, NOUNS_TABLE, RULES_TABLE, Database
from viewer.images import cards
from viewer.report import score_chart

NUM_NOUNS = 20
NUM_BUCKETS = 20
NUM_PICTURES = 12
NUM_PAIRS = 8

Content = dict[str, Any]


def inputs(database: Database) -> Content:
    """The funnel: every input, every reason."""
    database.prepare(LEDGER_TABLE)
    with database.cursor(BACKGROUND_SECONDS) as cursor:
        database.shadow_ledger(cursor)
        funnel = ledger_counts(cursor)
        listed = figures.num_inputs(cursor)
    by_outcome = {outcome: sum(row.num for row in funnel if row.outcome == outcome) for outcome in OUTCOMES}
    return {"funnel": funnel, "by_outcome": by_outcome, "num_inputs": listed, "num": sum(by_outcome.values())}


def captions(database: Database) -> Content:
    """Table 1 beside the paper's, and Fig. 6 in words and in tokens."""
    with database.cursor(BACKGROUND_SECONDS) as cursor:
        return {
            "statistics": {row["caption_source"]: row for row in queries.table_1(cursor)},
            "paper": TABLE_1,
            "mix": queries.realised_mix(cursor),
            "lengths": charts.length_chart(figures.caption_lengths(cursor)),
            "tokens": charts.token_chart(figures.caption_tokens(cursor, MAX_TOKENS), MAX_TOKENS),
        }


def sizes(database: Database) -> Content:
    """The scatter of sizes with the lines of the buckets, and how full each bucket is."""
    with database.cursor(BACKGROUND_SECONDS) as cursor:
        database.shadow_ledger(cursor)
        buckets = figures.buckets(cursor)
        return {
            "sizes": charts.size_chart(figures.sizes(cursor)),
            "num_inputs": figures.num_inputs(cursor),
            "buckets": buckets[:NUM_BUCKETS],
            "num_buckets": len(buckets),
        }


def scores(database: Database) -> Content:
    """The histogram of scores with the threshold; the page of thresholds is prepared along with it."""
    database.prepare(RULES_TABLE)
    with database.cursor(BACKGROUND_SECONDS) as cursor:
        return {"scores": score_chart(cursor, database.dataset)}


def samples(database: Database) -> Content:
    """Random and worst pictures with their captions, and duplicates with their survivors.

    The worst by the score are shown; those by the screens that have run are links to the sorted list.
    """
    with database.cursor(BACKGROUND_SECONDS) as cursor:
        random = sampled.random(cursor, NUM_PICTURES)
        worst = {by.measure: by.found for by in sampled.worst(cursor, NUM_PICTURES)}
        pairs = sampled.duplicates(cursor, NUM_PAIRS)
    by_score = next((found for measure, found in worst.items() if measure.table == "scores"), [])
    return {
        "random": cards(database, random),
        "worst": cards(database, [row_id for row_id, _ in by_score]),
        "measures": list(worst),
        "pairs": pairs,
    }


def nouns(database: Database) -> Content:
    """The most frequent nouns of each source, and those that only one of them has."""
    database.prepare(NOUNS_TABLE)
    top = {}
    for source in figures.CAPTION_SOURCES:
        column = f"{source}_images"
        top[source] = database.rows(
            f"SELECT noun, {column} AS num FROM {NOUNS_TABLE} WHERE num > 0 ORDER BY num DESC, noun", limit=NUM_NOUNS
        )
    with database.cursor() as cursor:
        return {"top": top, "changed": figures.changed_nouns(cursor, NUM_NOUNS, NOUNS_TABLE)}


def took(database: Database) -> Content:
    """Throughput and cost of every job."""
    return {"jobs": costs.job_costs(database.dataset)}


SECTIONS: dict[str, tuple[str, Callable[[Database], Content]]] = {
    "inputs": ("Every input, accounted for", inputs),
    "captions": ("Captions", captions),
    "sizes": ("Sizes and buckets", sizes),
    "scores": ("Aesthetic scores", scores),
    "samples": ("Pictures", samples),
    "jobs": ("What each job took", took),
    "nouns": ("Nouns", nouns),
}
"""Section -> (title, what works it out); the slowest last."""


class Overview:
    """The sections of one state of the dataset."""

    def __init__(self, database: Database) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="overview")
        self._found: dict[str, Future[Content]] = {
            name: self._pool.submit(work, database) for name, (_, work) in SECTIONS.items()
        }

    def get(self, name: str, seconds: float) -> Content | None:
        """A section, or None where it is not worked out yet within `seconds`.

        Raises:
            ValueError: it cannot be worked out.
        """
        try:
            return self._found[name].result(timeout=max(0.0, seconds))
        except (TimeoutError, CancelledError):
            return None

    def ready(self, seconds: float) -> dict[str, Content | str | None]:
        """Every section, as far as they are there in `seconds` altogether; a text says why one cannot be."""
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
