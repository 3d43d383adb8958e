"""A job in which too many rows fail stops at its end, and the next run computes the failed ones again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from engine.counts import read_counts
from engine.dataset import Dataset
from engine.names import Held, PartName

REASONS_SHOWN = 3

UNCHECKED = [0, 0]
"""On record in place of the numbers, while nothing has counted the rows that failed."""


@dataclass(frozen=True)
class FailureLimit:
    """How many rows of a job may end with a reason in place of a result. Each method names the table of the job, whose
    rows without a result have a `reason`."""

    job: str
    max_share: float | None
    """Of the rows that were tried, the knob `<job>.max_failed_share`; None is all."""
    not_tried: frozenset[str]
    """Reasons that do not count as failures: nothing was tried."""

    def check(self, dataset: Dataset, table: str, num_rows: int, reasons: Mapping[str, int]) -> None:
        """Stop a job whose share of failures is above its limit, and put the share on record for the next run.

        Args:
            num_rows: of the whole table, every part of which is committed.
            reasons: rows by reason.

        Raises:
            ValueError: there are too many; the message has the count, the commonest reasons and how to go on.
        """
        record = dataset.record(table)
        assert record is not None
        failed = {reason: count for reason, count in reasons.items() if reason not in self.not_tried}
        num_failed, num_tried = sum(failed.values()), num_rows - sum(reasons.get(each, 0) for each in self.not_tried)
        is_above = self._is_above(num_failed, num_tried)
        if is_above or record.failed is not None:
            dataset.write_record(table, replace(record, failed=[num_failed, num_tried] if is_above else None))
        if not is_above:
            return
        commonest = sorted(failed.items(), key=lambda item: (-item[1], item[0]))[:REASONS_SHOWN]
        shown = ", ".join(f"{count:,} {reason}" for reason, count in commonest)
        raise ValueError(
            f"{self.job}: {num_failed:,} of {num_tried:,} images in {table} failed ({shown}), more than "
            f"{self.job}.max_failed_share={self.max_share:g} allows; all parts are committed. sigma build asks again "
            "where there was no answer, and for refused answers (refused_caption in the table) only where another one "
            f"can come; else change the recipe, or set {self.job}.max_failed_share higher to go on without them"
        )

    def begin(self, dataset: Dataset, table: str) -> None:
        """Put on record that there are rows which nothing has counted yet: a run that is killed before `check` is not
        done."""
        record = dataset.record(table)
        if record is not None and record.failed != UNCHECKED:
            dataset.write_record(table, replace(record, failed=UNCHECKED))

    def is_unchecked(self, held: Held, table: str) -> bool:
        """Whether the last run ended before its rows were counted."""
        record = held.record(table)
        return record is not None and record.failed == UNCHECKED

    def parts_to_retry(self, held: Held, table: str) -> list[PartName]:
        """The parts in which something failed, where the last run ended above the limit as it is now. They are computed
        again; what of their rows was paid for is not."""
        record = held.record(table)
        if record is None or record.failed is None or not self._is_above(*record.failed):
            return []
        counts = read_counts(table, held.paths(table))
        return [
            name
            for name, found in zip(held.parts(table).values(), counts, strict=True)
            if not found.reasons.keys() <= self.not_tried
        ]

    def _is_above(self, num_failed: int, num_tried: int) -> bool:
        return self.max_share is not None and num_failed > self.max_share * num_tried
