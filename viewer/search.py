"""Searches for a text or a noun: the parts are read in order, once, in the background; the first images are there at
once. Nothing is written; a search keeps the row_ids that it found."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from engine.duck import Connection, read_parts
from engine.names import Held

MOST_FOUND = 100_000
"""A search stops at this many rows; the tables are then queried for each page."""
FIRST_PARTS, MOST_PARTS = 2, 32
"""Parts per query: few at first, so that the first images come soon, then twice as many each time."""

Cursors = Callable[[], AbstractContextManager[Connection]]


def condition(column: str) -> str:
    """SQL of a column that contains `$value` in any case."""
    return f"contains(lower({column}), lower($value))"


def text_condition(column: str, text: str) -> str:
    """The same for an ASCII text, several times as fast: a pattern passes over the rows that surely lack it. The
    pattern also takes the one letter beyond ASCII that `lower` makes ASCII and a pattern in any case does not, the
    dotted I, so it lets through all that the exact condition does."""
    if not text.isascii():
        return condition(column)
    pattern = "".join(
        "[iİ]" if letter in "iI" else letter if letter.isalnum() else f"\\x{{{ord(letter):x}}}" for letter in text
    )
    return f"CASE WHEN regexp_matches({column}, '(?i){pattern}') THEN {condition(column)} ELSE false END"


def searched(kind: str, value: str, beside: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(table, SQL condition) that a search of a kind, text or noun, reads; `beside` are tables of further captions."""
    if kind == "noun":
        return [("nouns", "list_contains(nouns, $value)")]
    return [
        ("images", text_condition("raw_caption", value)),
        *((table, text_condition("caption", value)) for table in ("captions", *beside)),
    ]


class Search:
    """One search, begun when it is made."""

    def __init__(self, held: Held, cursors: Cursors, kind: str, value: str) -> None:
        self._cursors, self._value = cursors, value
        self._sources = [
            (dict(zip(held.parts(table), held.paths(table), strict=True)), sql)
            for table, sql in searched(kind, value, held.extra_captions())
        ]
        self._changed, self._stopped = threading.Condition(), False
        self._error: ValueError | None = None
        self.rows = array("q")
        """Found so far, ascending."""
        self.done = False
        self.cut = False
        """Whether it stopped at `MOST_FOUND`."""
        threading.Thread(target=self._run, name="search", daemon=True).start()

    def wait(self, num: int, after: int, seconds: float) -> Sequence[int]:
        """At most `num` of the rows beyond `after`; fewer where there are no more, or not yet within `seconds`. Raises
        ValueError: a part cannot be read."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.done or len(self.rows) - bisect_right(self.rows, after) >= num, timeout=seconds
            )
            if self._error is not None:
                raise self._error
            begin = bisect_right(self.rows, after)
            return self.rows[begin : begin + num]

    def finished(self, seconds: float) -> bool:
        """Wait at most `seconds` for the end of the search; return whether it has ended."""
        self.wait(MOST_FOUND + 1, -1, seconds)
        return self.done

    def stop(self) -> None:
        self._stopped = True

    def _run(self) -> None:
        numbers = sorted({number for parts, _ in self._sources for number in parts})
        begin, step = 0, FIRST_PARTS
        try:
            while begin < len(numbers) and not self._stopped and not self.cut:
                found = self._read(numbers[begin : begin + step])
                begin, step = begin + step, min(2 * step, MOST_PARTS)
                with self._changed:
                    self.rows.extend(found)
                    self.cut = len(self.rows) > MOST_FOUND
                    self._changed.notify_all()
        except ValueError as error:
            self._error = error
        finally:
            with self._changed:
                self.done = True
                self._changed.notify_all()

    def _read(self, numbers: Sequence[int]) -> list[int]:
        """The rows of some parts, ascending, each once."""
        selects = []
        for parts, sql in self._sources:
            paths = [parts[number] for number in numbers if number in parts]
            if paths:
                selects.append(f"SELECT row_id FROM {read_parts(paths)} WHERE {sql}")
        with self._cursors() as cursor:
            found = cursor.execute(" UNION ".join(selects), {"value": self._value}).fetchall()
        return sorted({row_id for (row_id,) in found})
