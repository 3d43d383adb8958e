"""Images for the live pages: a page of a list, one image with all its rows, and thumbnails in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from engine.duck import Row
from engine.run_log import read_runs
from schemas.columns import WIDE_TABLES
from schemas.lru import Lru
from schemas.tables import SCHEMAS
from viewer.cards import cards, proxies, thumbnail
from viewer.database import Database, TooSlow
from viewer.filters import Filter
from viewer.rows import rows_at

PAGE = 24
"""Images per page of a list."""
MOST_COUNTED = 10_000
"""Images of a list are counted up to this number."""
FIRST_S, COUNT_S = 2.0, 0.2
"""Longest waits for a search: for a full page, and then for its end."""
THUMBNAIL_PX = 320
MOST_THUMBNAIL_BYTES = 64_000_000
"""Memory for the last thumbnails, in bytes."""


@dataclass(frozen=True)
class Page:
    cards: list[Row]
    num: int
    """Images of the filter, counted up to `MOST_COUNTED` + 1."""
    next: tuple[float, int] | None
    """The sort key and row_id at which the next page begins."""
    counting: bool = False
    """Whether the search is still running; `num` is then the number found so far."""

    @property
    def more(self) -> bool:
        return self.num > MOST_COUNTED


def page(database: Database, wanted: Filter) -> Page:
    """The images of a filter from its place on. Raises TooSlow: they are not found in time."""
    searches = {kind: database.search(kind, value)
                for kind, value in (("text", wanted.text), ("noun", wanted.noun)) if value}  # fmt: skip
    if wanted.only_looks:
        search = searches[wanted.only_looks]
        after = wanted.after[1] if wanted.after else -1
        rows = search.wait(PAGE + 1, after, FIRST_S)
        if len(rows) > PAGE or not search.cut:
            search.finished(COUNT_S)
            rows = search.wait(PAGE + 1, after, 0)
            num = min(len(search.rows), MOST_COUNTED + 1)
            following = (float(rows[PAGE - 1]), rows[PAGE - 1]) if len(rows) > PAGE else None
            counting = not search.done and num <= MOST_COUNTED
            return Page(_cards(database, list(rows[:PAGE])), num, following, counting)
    for search in searches.values():
        if not search.finished(database.seconds):
            raise TooSlow(f"this takes longer than {database.seconds:g} s; narrow the filter")
    looked = {kind: search.rows for kind, search in searches.items() if not search.cut}
    found = database.rows(*wanted.page(PAGE + 1, database.relation, looked))
    (counted,) = database.rows(*wanted.count(MOST_COUNTED + 1, database.relation, looked))
    shown = found[:PAGE]
    following = (shown[-1]["sort_key"], shown[-1]["row_id"]) if len(found) > PAGE else None
    keys = {row["row_id"]: row["sort_key"] if math.isfinite(row["sort_key"]) else None for row in shown}
    with_keys = [card | {"sort_key": keys[card["row_id"]]} for card in _cards(database, list(keys))]
    return Page(with_keys, counted["num"], following)


def _cards(database: Database, row_ids: list[int]) -> list[Row]:
    """The cards of these images, within the time of a page."""
    with database.cursor() as cursor:
        return cards(cursor, database.held, row_ids)


@dataclass(frozen=True)
class TableHistory:
    """The job that made a table, for the history of a row."""

    table: str
    job: str
    finished: str
    knobs: dict[str, Any]


@dataclass(frozen=True)
class ImageDetails:
    """All rows of one input, and the history of its tables."""

    row_id: int
    ledger: Row
    card: Row
    tables: dict[str, list[Row]]
    """Its rows, by table; tables without one are absent."""
    group: list[Row]
    """Inputs of the same group of duplicates: row_id, member, rejected_by."""
    history: list[TableHistory]


def details(database: Database, row_id: int) -> ImageDetails | None:
    """All rows of an input over all tables; None where nothing was listed under this number."""
    ledger = database.rows(f"SELECT * FROM ledger WHERE row_id = {int(row_id)}")
    if not ledger:
        return None
    found = {}
    views = [table for table, schema in SCHEMAS.items() if "row_id" in schema.names]
    views.insert(views.index("captions") + 1, "captions_beside")
    for table in views:
        if table in WIDE_TABLES:
            rows = rows_at(database.held, table, [row_id]).to_pylist()
        else:
            rows = database.rows(f"SELECT * FROM {table} WHERE row_id = {int(row_id)}", limit=20)
        for row in rows:
            if "jpeg" in row:
                row["jpeg_bytes"] = None if (jpeg := row.pop("jpeg")) is None else len(jpeg)
        if rows:
            found[table] = rows
    group: list[Row] = []
    if "duplicates" in found:
        group = database.rows(
            "SELECT row_id, listing.member, selection.rejected_by FROM duplicates "
            "JOIN listing USING (row_id) LEFT JOIN selection USING (row_id) WHERE group_id = $group ORDER BY row_id",
            {"group": found["duplicates"][0]["group_id"]},
            limit=PAGE,
        )
    return ImageDetails(
        row_id,
        ledger[0],
        _cards(database, [row_id])[0],
        found,
        group,
        history(database, [*found, *database.dataset.held().extra_captions()]),
    )


def history(database: Database, tables: list[str]) -> list[TableHistory]:
    """Which job made each of these tables, when it last ran, and by which knobs, in the order of the runs."""
    last = {table: entry for entry in read_runs(database.dataset) for table in entry["tables"]}
    made = []
    for table in tables:
        record = database.dataset.record(table)
        if record is not None or table in last:
            entry = last.get(table, {})
            made.append(
                TableHistory(
                    table,
                    str(entry.get("job") or (record.job if record else "")),
                    str(entry.get("finished", "")),
                    record.knobs if record else {},
                )
            )
    return sorted(made, key=lambda item: item.finished)


def proxy(database: Database, row_id: int) -> bytes | None:
    with database.cursor():
        return proxies(database.held, [row_id]).get(row_id)


class Thumbnails(Lru[int, bytes | None]):
    """The last thumbnails, by row_id, as JPEGs."""

    def __init__(self, max_bytes: int = MOST_THUMBNAIL_BYTES) -> None:
        super().__init__(max_bytes, size_of=lambda jpeg: len(jpeg or b""))

    def of(self, database: Database, row_id: int) -> bytes | None:
        """The thumbnail of an input; None where it has no proxy, or one that cannot be decoded."""

        def make() -> bytes | None:
            jpeg = proxy(database, row_id)
            return None if jpeg is None else thumbnail(jpeg, THUMBNAIL_PX)

        return self.get(row_id, make)
