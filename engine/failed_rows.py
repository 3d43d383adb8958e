"""A job in which too many rows fail stops at its end, and the next run computes the failed ones again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path

import pyarrow as pa

from engine.dataset import Dataset, commit_table, read_parquet, schema_of
from schemas.seal import read_json, write_json

REASONS_SHOWN = 3
UNCHECKED, WITHIN = (0, 0), (0, 1)
"""Of a run (rows that failed, rows that were tried): one that nothing has counted, and one within its limit."""


@dataclass(frozen=True)
class FailureLimit:
    """How many rows of a job may end with a reason in place of a result.

    Each method names the table of the job, whose rows without a result have a `reason`.
    """

    job: str
    max_share: float | None
    """Of the rows that were tried, the knob `<job>.max_failed_share`; None is all."""
    not_tried: frozenset[str]
    """Reasons that do not count as failures: nothing was tried."""

    def check(self, dataset: Dataset, table: str, num_rows: int, reasons: Mapping[str, int]) -> None:
        """Stop a job whose share of failures is above its limit, and remember the share for the next run.

        Args:
            num_rows: of the whole table, every part of which is committed.
            reasons: rows by reason.

        Raises:
            ValueError: there are too many; the message has the count, the commonest reasons and how to go on.
        """
        note = _note(dataset, table)
        failed = {reason: count for reason, count in reasons.items() if reason not in self.not_tried}
        num_failed, num_tried = sum(failed.values()), num_rows - sum(reasons.get(each, 0) for each in self.not_tried)
        if not self._is_above(num_failed, num_tried):
            note.unlink(missing_ok=True)
            return
        write_json(note, {"num_failed": num_failed, "num_asked": num_tried})
        commonest = sorted(failed.items(), key=lambda item: (-item[1], item[0]))[:REASONS_SHOWN]
        shown = ", ".join(f"{count:,} {reason}" for reason, count in commonest)
        raise ValueError(
            f"{self.job}: {num_failed:,} of {num_tried:,} images in {table} failed ({shown}), more than "
            f"{self.job}.max_failed_share={self.max_share:g} allows; all parts are committed: run the same command "
            f"again to ask again for what failed, or set {self.job}.max_failed_share higher to go on without it"
        )

    def parts_to_retry(self, dataset: Dataset, table: str) -> list[int]:
        """The parts in which something failed, where the last run ended above the limit as it is now."""
        if not self._is_above(*_noted(dataset, table)):
            return []
        committed = (number for number in range(dataset.num_parts()) if dataset.part_done(table, number))
        return [number for number in committed if self._has_failed(dataset.part(table, number))]

    def retry(self, dataset: Dataset, table: str) -> None:
        """Open the parts to retry: the worker gets their rows again as paid for, and computes what of them is not."""
        for number in self.parts_to_retry(dataset, table):
            path = dataset.part(table, number)
            paid = dataset.paid(table, number)
            both = [read_parquet(each).replace_schema_metadata(None) for each in (paid, path) if each.is_file()]
            rows = pa.concat_tables([schema_of(table).empty_table(), *both], promote_options="default")
            commit_table(paid, rows, schema_of(table), {})
            path.unlink()
        self.begin(dataset, table)

    def begin(self, dataset: Dataset, table: str) -> None:
        """Note that there are rows which nothing has counted yet: a run that is killed before `check` is not done."""
        write_json(_note(dataset, table), {"num_failed": UNCHECKED[0], "num_asked": UNCHECKED[1]})

    def is_unchecked(self, dataset: Dataset, table: str) -> bool:
        """Whether the last run ended before its rows were counted."""
        return _noted(dataset, table) == UNCHECKED

    def _has_failed(self, part: Path) -> bool:
        reasons = set(read_parquet(part, ["reason"])["reason"].drop_null().unique().to_pylist())
        return not reasons <= self.not_tried

    def _is_above(self, num_failed: float, num_tried: float) -> bool:
        return self.max_share is not None and num_failed > self.max_share * num_tried


def _note(dataset: Dataset, table: str) -> Path:
    return dataset.paid(table, 0).with_name("failed.json")


def _noted(dataset: Dataset, table: str) -> tuple[float, float]:
    """(rows that failed, rows that were tried) of the last run; of a damaged note so many that every part is looked
    at."""
    try:
        noted = read_json(_note(dataset, table))
        return int(noted["num_failed"]), int(noted["num_asked"])
    except FileNotFoundError:
        return WITHIN
    except (OSError, ValueError, LookupError, TypeError):
        return inf, 1
