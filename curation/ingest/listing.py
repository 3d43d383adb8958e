"""The listing: every input gets its row_id and its part, once and for all, before anything is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation.ingest.tar_groups import ROWS_AT_ONCE, list_groups, rows_of
from curation.sources import SourceListing, list_source
from engine.ahead import IN_A_STORE, ahead
from engine.counts import count_whole, counts_of, note
from engine.dataset import Dataset, JobRecord
from engine.names import NOTHING, Held
from engine.runner import Runner
from schemas.files import delete_files, remove_folder
from schemas.recipe import DataRecipe
from schemas.sources import AnySource
from schemas.tables import schema_of

FEW_PARTS, LEAST_PART_ROWS = 16, 32
"""A source that would fill fewer parts than this is cut into as many, each of so many rows at least. Both are the same
on every machine: where a part ends is a function of the inputs, not of the workers that happen to be there."""
FEW_ITEMS = 65_536
"""The most items that are held in memory to see whether a source is that small."""

LISTED = ".listed"
"""Folder of groups of tars that wait until their source is listed."""


@dataclass(frozen=True)
class Listed:
    """Counts of the listing of a recipe's sources."""

    num_inputs: int
    num_new: int
    """Inputs of sources that were not listed before."""
    ignored: dict[str, int]
    """Files that are no inputs, by kind."""
    links: dict[str, int] = field(default_factory=dict)
    """Inputs that are links, by where these lead."""


def update_listing(held: Held, recipe: DataRecipe, runner: Callable[[], Runner] | None = None) -> Listed:
    """List the sources that are not listed yet; each starts a new part, so nothing before it moves. `runner`: gives
    what lists many tars; None does it here, one after the other. Raises ValueError: the dataset lists other sources
    than the recipe, or in parts of another size; or a source has no image."""
    dataset, listed = held.dataset, _allowed(held, recipe)
    fresh = range(len(listed), len(recipe.all_sources()))
    here, recorded = held.parts("listing"), _count(listed, "parts")
    # others are of a listing that was cut off before it was recorded, or of a retry
    old = [name for name in held.listed("listing") if name.number >= recorded or here[name.number] != name]
    delete_files(*(dataset.folder("listing") / name.file for name in old))
    num_new = 0
    for position in fresh:
        entry = _list_one(dataset, recipe, position, _count(listed, "parts"), _count(listed, "rows"), runner)
        num_new += entry["rows"]
        listed.append(entry)
        knobs = {"part_rows": recipe.part_rows, "sources": listed}
        dataset.write_record("listing", JobRecord("ingest", knobs, []))
    if fresh:
        count_whole("listing", dataset.parts("listing"))
    remove_folder(dataset.tables / LISTED)
    ignored, links = Counter[str](), Counter[str]()
    for entry in listed:
        ignored.update(entry["ignored"])
        links.update(entry.get("links", {}))
    return Listed(_count(listed, "rows"), num_new, dict(ignored), dict(links))


def is_listed(held: Held, recipe: DataRecipe) -> bool:
    """Whether every source of the recipe is in the listing already. Raises as `update_listing` does."""
    return len(_allowed(held, recipe)) == len(recipe.all_sources())


def num_inputs(dataset: Dataset) -> int:
    """Rows of the listing, as they are on record."""
    return _count(_recorded_sources(dataset.record("listing")), "rows")


def _recorded_sources(record: JobRecord | None) -> list[dict[str, Any]]:
    return list(record.knobs["sources"]) if record else []


def _count(listed: list[dict[str, Any]], what: str) -> int:
    return sum(entry[what] for entry in listed)


def _allowed(held: Held, recipe: DataRecipe) -> list[dict[str, Any]]:
    """The sources on record, which the recipe must have too."""
    dataset, record, sources = held.dataset, held.record("listing"), recipe.all_sources()
    if record is None:
        return []
    if record.knobs["part_rows"] != recipe.part_rows:
        raise ValueError(
            f"{dataset.root}: was made with part_rows={record.knobs['part_rows']}, the recipe says {recipe.part_rows}; "
            "parts are never cut anew: set it back, or name another out"
        )
    dataset.refuse_lost_inputs(held)
    listed = _recorded_sources(record)
    for position, entry in enumerate(listed):
        _refuse_other_source(dataset, entry, sources[position] if position < len(sources) else None)
    return listed


def _refuse_other_source(dataset: Dataset, entry: dict[str, Any], source: AnySource | None) -> None:
    named = None if source is None else _shown(source.kind, source.location())
    was = _shown(entry.get("kind", "folder"), entry["path"])
    if source is None or named != was:
        raise ValueError(
            f"{dataset.root}: was made from {was}, the recipe has {named or 'nothing'} in its place; "
            "sources may be added at the end, never changed: name another out for another dataset"
        )
    if (label := source.label()) != entry["name"]:
        raise ValueError(
            f"{dataset.root}: {entry['path']} was listed under the name {entry['name']!r}, the recipe says "
            f"{label!r}; samples carry the name: set it back, or name another out"
        )
    options, were = source.listing_options(), entry.get("options", {})
    if changed := [name for name in were | options if options.get(name) != were.get(name)]:
        raise ValueError(
            f"{dataset.root}: {entry['path']} was listed with {changed[0]}={were.get(changed[0])}, the "
            f"recipe says {options.get(changed[0])}; a listing is taken once: set it back, or name another out"
        )


def _shown(kind: str, location: str) -> str:
    return location if kind == "folder" else f"{kind} {location}"


def _list_one(
    dataset: Dataset, recipe: DataRecipe, position: int, part: int, row: int, runner: Callable[[], Runner] | None
) -> dict[str, Any]:
    """List one source part by part; at first `FEW_ITEMS` of it are held in memory, then a few parts."""
    source = recipe.all_sources()[position]
    location, label = source.location(), source.label()
    listing, given = SourceListing([], {}), None
    if runner is not None:
        given = list_groups(dataset, source, dataset.tables / LISTED / f"source-{position:02d}", listing, runner)
    if given is None:
        listing = list_source(source, str(dataset.fetched(position)))
        given = rows_of(listing.items, location, label)
    num_rows = num_parts = 0

    def expecting() -> Iterator[pa.Table]:
        for number, rows in enumerate(given):
            if not number and runner is not None:  # its workers come up while the others are listed
                runner().expect(dataset, 1 if rows.num_rows < ROWS_AT_ONCE else FEW_PARTS)
            yield rows

    def numbered() -> Iterator[tuple[int, pa.Table]]:
        nonlocal num_rows, num_parts
        for rows in _cut(expecting(), recipe.part_rows):
            ids = pa.array(range(row + num_rows, row + num_rows + rows.num_rows), pa.int64())
            num_rows, num_parts = num_rows + rows.num_rows, num_parts + 1
            yield part + num_parts - 1, rows.set_column(0, schema_of("listing").field(0), ids)

    def commit(made: tuple[int, pa.Table]) -> None:
        note(dataset.commit_part("listing", made[0], NOTHING, made[1]), counts_of("listing", made[1]))

    threads = 1 if dataset.store is None else IN_A_STORE
    for _ in ahead(commit, numbered(), threads, 2 * threads):  # while the next ones are listed
        pass
    if not num_rows:
        others = ", ".join(f"{num:,} {kind}" for kind, num in sorted(listing.ignored.items()))
        seen = f" (not counted: {others})" if others else ""
        raise ValueError(f"{location}: holds no image{seen}; name another place, or take it out of the recipe")
    entry = {
        "path": location,
        "name": label,
        "rows": num_rows,
        "parts": num_parts,
        "ignored": dict(sorted(listing.ignored.items())),
    }
    if listing.links:
        entry["links"] = dict(sorted(listing.links.items()))
    if source.kind != "folder" or source.listing_options():
        entry |= {"kind": source.kind, "options": source.listing_options()}
    return entry


def part_size(num_items: int, most: int) -> int:
    """The inputs per part of a source that has so many: `most`, or fewer where that would make few parts."""
    if num_items >= FEW_PARTS * most or num_items > FEW_ITEMS:
        return most
    return min(most, max(LEAST_PART_ROWS, math.ceil(num_items / FEW_PARTS)))


def _cut(given: Iterable[pa.Table], most: int) -> Iterator[pa.Table]:
    """The same rows in tables as large as a part."""
    few = min(FEW_PARTS * most, FEW_ITEMS) + 1
    held, size = schema_of("listing").empty_table(), 0
    for rows in given:
        held = pa.concat_tables([held, rows])
        if not size and held.num_rows >= few:
            size = part_size(few, most)
        while size and held.num_rows >= size:
            yield held.slice(0, size).combine_chunks()
            held = held.slice(size)
    size = size or part_size(held.num_rows, most)
    for begin in range(0, held.num_rows, size):
        yield held.slice(begin, size).combine_chunks()
