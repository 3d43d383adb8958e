"""Keeps every answer that was paid for, and every person's: on the disk as soon as it is there, and never forgotten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from engine.dataset import Dataset
from engine.paid import Paid
from evaluation.judge.reply import read_verdict
from schemas.tables import schema_of

BATCHES = 256
"""As many files of answers are put together into one."""

Row = dict[str, Any]


class Journal:
    """The answers below `paid/` of an output. The dataset's lock is held by whoever adds some."""

    read: Callable[[str], tuple[str, str | None]] = staticmethod(read_verdict)
    """The verdict of a reply, `unparsed` where there is none, and its reason."""

    def __init__(self, paid: Paid) -> None:
        """Read what is there. Raises ValueError: a file of it is damaged."""
        self._paid = paid
        self._replies: dict[tuple[str, int], Row] = {}
        self._people: dict[tuple[str, str, str], Row] = {}
        self._num_batches = 0
        for rows in (self._paid.earlier(), self._paid.noted()):
            self._index(self.loaded(rows))

    @classmethod
    def of(cls, dataset: Dataset) -> Journal:
        return cls(Paid.of(dataset, "verdicts", 0))

    def stored(self, rows: Sequence[Row]) -> pa.Table:
        return pa.Table.from_pylist(list(rows), schema=schema_of("verdicts"))

    def loaded(self, table: pa.Table) -> list[Row]:
        return table.to_pylist()

    def add(self, rows: Sequence[Row]) -> None:
        """Make answers durable."""
        if rows:
            self._paid.note(self.stored(rows))
            self._index(rows)
            self._num_batches += 1
            if self._num_batches % BATCHES == 0:
                self.settle()

    def settle(self) -> None:
        """Put the files of single answers together."""
        self._paid.settle()

    def reply(self, key: str) -> Row | None:
        """The last attempt at a question, read by the rules of today; None where it was never asked."""
        row = self._replies.get((key, 1)) or self._replies.get((key, 0))
        if row is None or row["reply"] is None:
            return row
        verdict, reason = self.read(row["reply"])
        return row | {"verdict": verdict, "reason": reason}

    def of_person(self, pair: str, aspect: str, person: str) -> Row | None:
        """What a person has said of a pair, by its blind id."""
        return self._people.get((pair, aspect, person))

    def people(self) -> Mapping[tuple[str, str, str], Row]:
        """(blind id of a pair, aspect, person) -> what they said."""
        return self._people

    def _index(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.get("kind") == "person":
                self._people.setdefault((row["question"], row["aspect"], row["judge"]), row)
            else:
                self._replies[row["question"], row["attempt"]] = row


def is_settled(row: Row | None) -> bool:
    """Whether nothing more is to be asked after an attempt: one that cannot be read is made once more."""
    return row is not None and (row["verdict"] != "unparsed" or row["attempt"] > 0)
