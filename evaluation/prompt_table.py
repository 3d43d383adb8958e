"""The table of prompts, from which all others of an evaluation are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from engine.content import content_digest
from engine.dataset import Dataset, JobRecord, as_stored
from engine.names import DIGITS, NOTHING
from evaluation.prompts import read_prompts
from schemas.evaluation import EvaluationRecipe
from schemas.files import delete_files, shown_place
from schemas.ids import unit_interval
from schemas.reasons import PromptReason
from schemas.tables import schema_of
from schemas.tokens import MAX_TOKENS, count_tokens


def prompt_rows(recipe: EvaluationRecipe, quick: int | None = None) -> list[dict[str, Any]]:
    """The rows of `prompts`; of a quick evaluation those with the smallest coins. Raises ValueError: as
    `read_prompts`."""
    found = read_prompts(recipe.prompts.source, recipe.prompts.kind)
    if quick is not None:
        chosen = {
            each.prompt_id for each in sorted(found, key=lambda each: unit_interval(each.prompt_id, "quick"))[:quick]
        }
        found = [each for each in found if each.prompt_id in chosen]
    rows = []
    for row_id, each in enumerate(found):
        row = {"row_id": row_id, **vars(each)}
        if each.prompt is not None and (count := count_tokens(each.prompt)) > MAX_TOKENS:
            detail = f"{count} words and marks, its end included; text encoders read {MAX_TOKENS} tokens"
            row |= {"prompt": None, "reason": PromptReason.TOO_LONG.value, "detail": detail}
        rows.append(row)
    return rows


def update_prompts(dataset: Dataset, rows: Sequence[Mapping[str, Any]], per_part: int, redo: bool = False) -> None:
    """Commit the table `prompts`. Rows may be added behind those that are there. Raises ValueError: other prompts are
    there already, and `redo` does not allow it."""
    table = pa.Table.from_pylist(
        [{name: row.get(name) for name in schema_of("prompts").names} for row in rows], schema=schema_of("prompts")
    )
    parts = [as_stored("prompts", table.slice(start, per_part)) for start in range(0, table.num_rows, per_part)]
    held, record = dataset.held(), JobRecord("prompts", {"prompts.per_part": per_part}, [])
    there = held.parts("prompts")
    contents = [content_digest(part)[:DIGITS] for part in parts]
    if [name.content for name in there.values()] == contents and [*there] == [*range(len(parts))]:
        dataset.write_record("prompts", record)
        return
    if there and not redo:
        _refuse_other_prompts(dataset, table.to_pylist(), per_part)
    for number, (part, content) in enumerate(zip(parts, contents, strict=True)):
        before = there.get(number)
        if before is None or before.content != content:
            made_from = NOTHING if before is None else f"{int(before.made_from, 16) + 1:0{DIGITS}x}"
            dataset.commit_part("prompts", number, made_from, part)
    dataset.write_record("prompts", record)
    held = dataset.held()
    kept = {number: name for number, name in held.parts("prompts").items() if number < len(parts)}
    old = [name.file for name in held.listed("prompts") if kept.get(name.number) != name]
    delete_files(*(dataset.folder("prompts") / file for file in old))


def _refuse_other_prompts(dataset: Dataset, rows: Sequence[Mapping[str, Any]], per_part: int) -> None:
    record, shown = dataset.record("prompts"), shown_place(dataset.root)
    again = "add --redo prompts to take them, which draws those that are new, or name another out"
    if record is not None and record.knobs != {"prompts.per_part": per_part}:
        was = record.knobs["prompts.per_part"]
        raise ValueError(f"{shown}: prompts.per_part was {was} and is now {per_part}; set it back, or {again}")
    for number, old in enumerate(dataset.read_table("prompts").to_pylist()):
        if number == len(rows):
            raise ValueError(f"{shown}: there were more prompts, such as {old['prompt_id']!r} after the last; {again}")
        new = rows[number]
        for what in ("prompt_id", *old):
            if new[what] != old[what]:
                now = f"it was {old[what]!r} and is {new[what]!r}"
                raise ValueError(f"{shown}: prompt {number + 1:,} has another {what}: {now}; {again}")
