"""The database of the live pages: read-only queries over one state of a dataset, bounded in rows and in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import duckdb

from curation.selection.thresholds import facts_sql, rules_on_record
from curation.upkeep.doctor import memory_of
from engine import catalog, duck
from engine.dataset import Dataset
from engine.duck import Connection, Row
from engine.one_state import Replaced, one_state, parts_now
from engine.reduce_job import explaining_memory
from schemas.lru import Lru
from viewer.figures import COUNTED, LEDGER_TABLE
from viewer.rows import know_parts
from viewer.search import Search

MOST_ROWS = 1000
"""A query of a page returns at most this many rows."""
MOST_SECONDS = 10.0
"""A query of a page is interrupted after this."""
BACKGROUND_SECONDS = 900.0
"""A query in the background is interrupted after this; it runs once per state of the dataset."""

STORE_LISTED_EVERY_S = 5.0
"""How often the pages look whether a dataset in a store has changed, in seconds."""

MOST_SEARCHES = 8
"""This many searches keep the row_ids that they found."""

RULES_TABLE = "counted_rules"
"""A table in memory with the facts that the rules on record look at."""

Signature = tuple[tuple[str, int], ...]


class TooSlow(ValueError):
    """A query was interrupted."""


class Database:
    """One state of a dataset: a read-only connection, and the tables and searches in memory."""

    def __init__(self, dataset: Dataset, seconds: float = MOST_SECONDS) -> None:
        """Open it. Raises ValueError: the folder is no dataset, or a file of it is damaged. Raises Replaced: a build
        has replaced tables meanwhile."""
        self.dataset, self.signature, self.held = dataset, signature(dataset), dataset.held()
        self.replaced = False
        """Whether a build has replaced or deleted a file of a table since it was opened."""
        with one_state(dataset) as self._parts:
            self._memory, self.seconds = memory_of(dataset), seconds
            self._connection = catalog.connect_read_only(dataset, memory=self._memory)
        know_parts(self.held)
        self._looked_at, self._look_at = self.signature, 0.0
        self._prepared: set[str] = set()
        self._active: set[Connection] = set()
        self._searches = Lru[tuple[str, str], Search](MOST_SEARCHES, on_drop=Search.stop)

    @contextmanager
    def cursor(self, seconds: float | None = None) -> Iterator[Connection]:
        """A connection for one request, interrupted when its time is over.

        Raises:
            TooSlow: the time was over.
            Replaced: what was read, here or before, may be of two states.
            ValueError: DuckDB refuses the query, or a file is gone or damaged.
        """
        seconds = self.seconds if seconds is None else seconds
        cursor = self._connection.cursor()
        self._active.add(cursor)
        timer = threading.Timer(seconds, cursor.interrupt)
        timer.daemon = True
        timer.start()
        try:
            with explaining_memory("this", self._memory, self.dataset):
                yield cursor
            self._refuse_replaced()
        except duckdb.InterruptException:
            raise TooSlow(f"this takes longer than {seconds:g} s; narrow the filter") from None
        except duckdb.Error as error:
            self._refuse_replaced()
            raise ValueError(str(error).splitlines()[0]) from None
        finally:
            timer.cancel()
            self._active.discard(cursor)
            cursor.close()

    def _refuse_replaced(self) -> None:
        if self.dataset.store is not None and time.monotonic() < self._look_at and not self.replaced:
            return  # listing a store takes longer than most queries
        self._look_at = time.monotonic() + STORE_LISTED_EVERY_S
        now = signature(self.dataset)
        if now != self._looked_at:  # new parts are no other state: the connection does not see them
            self.replaced |= not self._parts <= parts_now(self.dataset)
            self._looked_at = now
        if self.replaced:
            raise Replaced("a build is replacing tables of this dataset; load the page again") from None

    def rows(self, sql: str, values: Mapping[str, Any] | None = None, limit: int = MOST_ROWS) -> list[Row]:
        """At most `limit` rows of a query."""
        with self.cursor() as cursor:
            return duck.rows(cursor, sql, values, limit)

    def prepare(self, table: str) -> None:
        """Count `RULES_TABLE` or a table of `figures.COUNTED` in memory; nothing is written to the dataset."""
        sql = COUNTED[table] if table in COUNTED else facts_sql(rules_on_record(self.dataset))
        with self.cursor(BACKGROUND_SECONDS) as cursor:
            cursor.execute(f"CREATE OR REPLACE TABLE {table} AS {sql}")
        self._prepared.add(table)

    def ready(self, table: str) -> bool:
        return table in self._prepared

    def search(self, kind: str, value: str) -> Search:
        """The search for a text or a noun: a new one, or one that was begun before."""

        def begin() -> Search:
            return Search(self.held, lambda: self.cursor(BACKGROUND_SECONDS), kind, value)

        return self._searches.get((kind, value), begin)

    def stop_searches(self) -> None:
        """Read no further part for a search."""
        self._searches.clear()

    def close(self) -> None:
        self.stop_searches()
        for cursor in list(self._active):
            cursor.interrupt()

    def relation(self, view: str) -> str:
        """SQL to write after FROM or JOIN for a view; the ledger is its counted table, where that is ready."""
        return f"{LEDGER_TABLE} AS ledger" if view == "ledger" and self.ready(LEDGER_TABLE) else view


def signature(dataset: Dataset) -> Signature:
    """Changes whenever a table gains, loses or replaces a file."""
    if dataset.store is not None:
        return tuple(sorted((f"{table}/{name.file}", 0) for table, name in parts_now(dataset)))
    folders = [dataset.folder(table) for table in dataset.held().tables()]
    found = []
    for path in [*folders, dataset.tables / ".records", dataset.runs]:
        with suppress(FileNotFoundError):
            found.append((str(path), path.stat().st_mtime_ns))
    return tuple(found)
