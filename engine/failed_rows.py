"""A job in which too much has failed: it says so at its end, and the next run asks again for what failed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from engine.dataset import Dataset, read_parquet
from engine.journal import Journal
from engine.stage import Stage
from schemas.commit import write_bytes
from schemas.reasons import PURGED, CaptionReason

NOT_ASKED = frozenset({CaptionReason.NOT_SELECTED.value, PURGED})
"""The reasons of rows that nothing was asked about, and which are no failures."""
REASONS_SHOWN = 3


def check_failures(dataset: Dataset, stage: Stage, num_rows: int, reasons: Mapping[str, int]) -> None:
    """Stop a job whose share of failures is above its limit, and remember the share for the next run.

    Args:
        num_rows: of the whole table, every part of which is committed.
        reasons: rows by reason.

    Raises:
        ValueError: there are too many; the message has the count, the commonest reasons and how to go on.
    """
    note = _note(dataset, stage)
    failed = {reason: count for reason, count in reasons.items() if reason not in NOT_ASKED}
    num_failed, num_asked = sum(failed.values()), num_rows - sum(reasons.get(reason, 0) for reason in NOT_ASKED)
    if not _above(stage, num_failed, num_asked):
        note.unlink(missing_ok=True)
        return
    write_bytes(note, json.dumps({"num_failed": num_failed, "num_asked": num_asked}).encode())
    commonest = sorted(failed.items(), key=lambda item: (-item[1], item[0]))[:REASONS_SHOWN]
    told = ", ".join(f"{count:,} {reason}" for reason, count in commonest)
    raise ValueError(
        f"{stage.job}: {num_failed:,} of {num_asked:,} images in {stage.outputs[-1]} failed ({told}), more than "
        f"{stage.job}.max_failed_share={stage.max_failed_share:g} allows; all parts are committed: run the same "
        f"command again to ask again for what failed, or set {stage.job}.max_failed_share higher to go on without it"
    )


def has_too_many(dataset: Dataset, stage: Stage) -> bool:
    """Whether the last run ended above the limit as it is now."""
    try:
        told = json.loads(_note(dataset, stage).read_text(encoding="utf-8"))
        return _above(stage, int(told["num_failed"]), int(told["num_asked"]))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def failed_parts(dataset: Dataset, stage: Stage) -> list[int]:
    """The parts in which something failed."""
    table = stage.outputs[-1]
    return [
        number
        for number in range(dataset.num_parts())
        if dataset.part_done(table, number)
        and any(
            reason is not None and reason not in NOT_ASKED
            for reason in read_parquet(dataset.part(table, number), ["reason"])["reason"].unique().to_pylist()
        )
    ]


def ask_again(dataset: Dataset, stage: Stage) -> None:
    """Open the parts that hold failures: their captions go back to the journal, so that only the rest is asked for."""
    table = stage.outputs[-1]
    for number in failed_parts(dataset, stage):
        path = dataset.part(table, number)
        rows = read_parquet(path).replace_schema_metadata(None)
        Journal.of(dataset, table, number).append(rows.filter(rows["reason"].is_null()))
        path.unlink()
    forget_failures(dataset, stage)


def forget_failures(dataset: Dataset, stage: Stage) -> None:
    """The table is computed anew: what the last run came to no longer counts."""
    _note(dataset, stage).unlink(missing_ok=True)


def _above(stage: Stage, num_failed: int, num_asked: int) -> bool:
    return stage.max_failed_share is not None and num_failed > stage.max_failed_share * num_asked


def _note(dataset: Dataset, stage: Stage) -> Path:
    return dataset.paid(stage.outputs[-1], 0).with_name("failed.json")
