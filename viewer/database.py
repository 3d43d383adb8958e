"""Queries of the live pages: read-only, bounded in rows and in time, over the dataset as it is now."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb

from curation.selection import select
from engine import catalog
from engine.catalog import Connection, Row
from engine.dataset import Dataset
from schemas.reasons import PURGED
from schemas.tables import MAP_TABLES, SCHEMAS, SCREENS
from viewer import costs
from viewer.figures import COUNTED, LEDGER_TABLE
from viewer.search import Searches

MOST_ROWS = 1000
"""A query of a page gives no more."""
MOST_SECONDS = 10.0
"""A query of a page is interrupted after this."""
BACKGROUND_SECONDS = 900.0
"""What is counted in the background, once per state of the dataset, may take this long."""

RULES_TABLE = "counted_rules"
"""A table in memory with what the rules of `select` look at."""

_LOOKED_AT = (
    "row_id", "reason", "width", "height", "short_side", "long_side", "group_id", "distance", "method",
    "other_dataset", "other_image_id", "other_method", "other_distance",
)  # fmt: skip
"""Columns of `select.PICTURES` that are asked for whatever the thresholds are."""

# Texts that only decide between doubles are taken for doubles alone: a million of each would fill the memory.
_RULES = """
SELECT {columns}, aesthetic,
       CASE WHEN method IS NOT NULL THEN pictures.image_id END AS image_id,
       CASE WHEN method IS NOT NULL THEN sha256 END AS sha256,
       CASE WHEN method = 'bytes' THEN raw_captions.caption END AS caption,
       coalesce(selection.kept, false) AS was_kept, selection.rejected_by AS was_rejected_by
FROM ({pictures}) AS pictures
     LEFT JOIN (SELECT row_id, caption FROM raw_captions WHERE row_id IN
                (SELECT row_id FROM duplicates WHERE method = 'bytes')) AS raw_captions USING (row_id)
     LEFT JOIN selection USING (row_id)
WHERE coalesce(pictures.reason, '{purged}') = '{purged}'
"""


Signature = tuple[tuple[str, int], ...]


class TooSlow(ValueError):
    """A query was interrupted."""


class Database:
    """One state of a dataset: a read-only connection, and what has been prepared over it."""

    def __init__(self, dataset: Dataset, seconds: float = MOST_SECONDS) -> None:
        """Open it.

        Raises:
            ValueError: the folder is no dataset.
        """
        self.dataset, self.signature = dataset, signature(dataset)
        self._connection, self.seconds = catalog.connect_read_only(dataset), seconds
        self._prepared: set[str] = set()
        self._active: set[Connection] = set()
        self.searches = Searches(dataset, lambda: self.cursor(BACKGROUND_SECONDS))

    @contextmanager
    def cursor(self, seconds: float | None = None) -> Iterator[Connection]:
        """A connection for one request, interrupted when its time is over.

        Raises:
            TooSlow: it was.
            ValueError: DuckDB refuses what it is asked, or a file is gone or damaged.
        """
        seconds = self.seconds if seconds is None else seconds
        cursor = self._connection.cursor()
        self._active.add(cursor)
        timer = threading.Timer(seconds, cursor.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield cursor
        except duckdb.InterruptException:
            raise TooSlow(f"this takes longer than {seconds:g} s; narrow the filter") from None
        except duckdb.Error as error:
            raise ValueError(str(error).splitlines()[0]) from None
        finally:
            timer.cancel()
            self._active.discard(cursor)
            cursor.close()

    def rows(self, sql: str, values: Mapping[str, Any] | None = None, limit: int = MOST_ROWS) -> list[Row]:
        """At most `limit` rows of a query."""
        with self.cursor() as cursor:
            return catalog.rows(cursor, sql, values, limit)

    def prepare(self, table: str) -> None:
        """Count `RULES_TABLE` or a table of `figures.COUNTED` in memory; nothing is written to the dataset."""
        sql = self.rules_sql() if table == RULES_TABLE else COUNTED[table]
        with self.cursor(BACKGROUND_SECONDS) as cursor:
            cursor.execute(f"CREATE OR REPLACE TABLE {table} AS {sql}")
        self._prepared.add(table)

    def ready(self, table: str) -> bool:
        """Whether a table has been counted."""
        return table in self._prepared

    def rules_sql(self) -> str:
        """SELECT of what the rules on record look at, and `was_kept` and `was_rejected_by` as `select` left them."""
        rules = costs.rules(self.dataset)
        limits = [rule.value for rule in select.RULES if getattr(rules, rule.knob) is not None]
        screens = [value for value in limits if value in SCREENS.names]
        columns = ", ".join(f"pictures.{name}" for name in (*_LOOKED_AT, *screens))
        return _RULES.format(columns=columns, pictures=select.PICTURES, purged=PURGED)

    def close(self) -> None:
        """Stop what is still running."""
        self.searches.close()
        for cursor in list(self._active):
            cursor.interrupt()

    def relation(self, view: str) -> str:
        """What to write after FROM or JOIN for a view: the prepared table under the view's name, where there is one."""
        return f"{LEDGER_TABLE} AS ledger" if view == "ledger" and self.ready(LEDGER_TABLE) else view


def signature(dataset: Dataset) -> Signature:
    """Changes whenever a table gains, loses or replaces a file."""
    paths = [dataset.tables / table if table in MAP_TABLES else dataset.reduced(table) for table in SCHEMAS]
    return tuple((path.name, path.stat().st_mtime_ns) for path in [*paths, dataset.runs] if path.exists())
