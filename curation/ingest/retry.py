"""Read again the inputs that failed for a passing reason; their rows keep their places, and all others stay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from curation.ingest.tar_groups import rows_of
from curation.sources.item import Item
from curation.sources.urls import fetch_rows, first_fetch, retry_of, wanted_rows
from engine.dataset import Dataset, content_digest, read_parquet
from engine.names import DIGITS, Held, PartName
from schemas.files import delete_files
from schemas.reasons import RETRIED, TRANSIENT
from schemas.recipe import DataRecipe
from schemas.sources import AnySource, UrlSource
from schemas.strict import fingerprint
from schemas.tables import schema_of


@dataclass(frozen=True)
class _Part:
    """A part with rows to try again."""

    number: int
    row_ids: set[int]


def retry_failed(dataset: Dataset, recipe: DataRecipe) -> int:
    """Fetch again the rows that failed for a transient reason, and let `ingest` read their parts again.

    The URLs among them are fetched into tars of their own, and their rows of the listing are rewritten in place: the
    same row_id, another address or another reason. Every other part of the listing stays as it is, so `ingest` and
    what follows take their parts over. A retry that is cut off goes on when it is called again.

    Returns:
        How many rows are tried again.

    Raises:
        ValueError: img2dataset could not finish; run it again.
    """
    record = dataset.record("listing")
    if record is None:
        return 0
    listed = [dict(entry) for entry in record.knobs["sources"]]
    num_rows = first_part = first_row = 0
    for position, entry in enumerate(listed):
        parts = _failed_parts(dataset.held(), entry.get("retries", 0), first_part, entry["parts"])
        if parts:
            attempt = entry.get("retries", 0) + 1
            fetched = _fetch(dataset, recipe.all_sources()[position], position, first_row, parts, attempt)
            for part in parts:
                _rewrite(dataset, part, fetched, attempt)
            entry["retries"] = attempt
            num_rows += sum(len(part.row_ids) for part in parts)
        first_part += entry["parts"]
        first_row += entry["rows"]
    if num_rows:
        knobs = {**record.knobs, "sources": listed}
        dataset.write_record("listing", replace(record, knobs=knobs))
    return num_rows


def _failed_parts(held: Held, retries: int, first: int, num_parts: int) -> list[_Part]:
    """The parts with rows that could not be read, without those that the listing itself gave up. `retries`: that are on
    record; where the listing has a part of a later one, that was cut off."""
    parts = []
    for number in range(first, first + num_parts):
        name = held.holding("images").get(number)
        if int(held.holding("listing")[number].made_from, 16) > retries:
            name = next((each for each in held.listed("images") if each.number == number), None)
        if name is None:
            continue
        images = read_parquet(held.dataset.folder("images") / name.file, ["row_id", "reason"])
        failed = set(
            images.filter(pa.compute.is_in(images["reason"], value_set=pa.array(sorted(RETRIED))))["row_id"].to_pylist()
        )
        if failed:
            listed = read_parquet(held.path("listing", number)).to_pylist()
            failed -= {row["row_id"] for row in listed if row.get("reason") not in (None, *TRANSIENT)}
        if failed:
            parts.append(_Part(number, failed))
    return parts


def _fetch(
    dataset: Dataset, source: AnySource, position: int, first_row: int, parts: list[_Part], attempt: int
) -> dict[int, Item]:
    """The new items of the URLs that failed, by row_id; empty for a source that downloads nothing itself."""
    if not isinstance(source, UrlSource):
        return {}
    numbers: set[int] = set()
    for part in parts:
        for row in dataset.read_part("listing", part.number).to_pylist():
            if (
                row["row_id"] in part.row_ids and row["reason"] in TRANSIENT
            ):  # the others are in a tar that could not be opened
                numbers.add(row["row_id"] - first_row)
    if not numbers:
        return {}
    first = first_fetch(source, str(dataset.fetched(position)))
    found = fetch_rows(retry_of(first, attempt), wanted_rows(first.work, numbers))
    return {first_row + number: item for number, item in found}


def _rewrite(dataset: Dataset, part: _Part, fetched: dict[int, Item], attempt: int) -> None:
    """Write the new items into a part of the listing, with another content in its name, so that later jobs see the
    change."""
    before = dataset.part("listing", part.number)
    rows: list[dict[str, Any]] = read_parquet(before).to_pylist()
    for place, row in enumerate(rows):
        if (item := fetched.get(row["row_id"])) is not None:
            (fresh,) = next(rows_of([item], row["source"], row["source_name"])).to_pylist()
            rows[place] = fresh | {"row_id": row["row_id"]}
    table = pa.Table.from_pylist(rows, schema=schema_of("listing"))
    name = PartName(part.number, f"{attempt:0{DIGITS}x}", fingerprint([content_digest(table), attempt])[:DIGITS])
    if dataset.commit_part("listing", *name[:2], table, name.content) != before:
        delete_files(before)
