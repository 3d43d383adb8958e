"""The tars of a dataset as files of the shard job: they move together with the rows of `samples` that name them, and
the pictures in outdated ones are copied into the new ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from curation.shards.rewriter import members_of
from engine.dataset import Dataset, read_parquet, read_some
from engine.duck import read_parts, stream
from engine.names import NOTHING, Held, names_in
from engine.reduce_job import commit_batches
from schemas import shard_index
from schemas.files import delete_file, find_files, is_file, is_folder, move_file, remove_folder
from schemas.tables import SAMPLES

WIDS_FILE = "wids.json"

PREVIOUS_SHARDS = ".previous"
"""Folder in `shards/` where outdated tars wait until the new ones are whole, with the parts of `samples` that name
them."""

PLACES_FILE = "places.parquet"
"""In that folder: which of their samples belong to which shard of the plan."""


class OldSample(NamedTuple):
    """A sample in a tar that was written before, and the places of what is copied from it."""

    image_id: str
    shard: str
    """Path of the tar, relative to `shards/`."""
    image_ext: str
    image_offset: int
    image_size: int
    json_offset: int
    json_size: int


_OLD = pa.schema([SAMPLES.field(name) for name in OldSample._fields if name != "image_id"])
_SCHEMA = pa.schema([pa.field("image_id", pa.string()), *_OLD])
_PLACES = pa.schema([pa.field("shard_id", pa.int32()), *_SCHEMA])
_ROW_GROUP_ROWS = 4096


class ShardFiles:
    """The `engine.map_job.PartFiles` of the shard job. A tar is never overwritten by another.

    Outdated tars wait in `shards/.previous`, with the parts of `samples` that say what they hold. The rows go before
    their tar and come back after it, so that no row is left without one.
    """

    def delete_index(self, dataset: Dataset) -> None:
        """Delete the index of the shards, before a shard changes. While there is one the shards are whole, and what is
        left of outdated ones goes first."""
        if is_file(dataset.shards / shard_index.INDEX_FILE):
            self.delete_outdated(dataset)
        for name in (shard_index.INDEX_FILE, WIDS_FILE):
            delete_file(dataset.shards / name)

    def delete_outdated(self, dataset: Dataset) -> None:
        """Delete the tars that wait."""
        remove_folder(dataset.shards / PREVIOUS_SHARDS)

    def are_waiting(self, dataset: Dataset) -> bool:
        """See `PartFiles.are_waiting`."""
        return is_folder(dataset.shards / PREVIOUS_SHARDS)

    def prepare(self, dataset: Dataset, held: Held, redo: bool) -> None:
        """See `PartFiles.prepare`. What waits already was whole when the run began that did not end, so that shards of
        that run never take its place."""
        aside, folder = dataset.shards / PREVIOUS_SHARDS, dataset.folder("samples")
        is_whole = held.is_whole("samples") and not held.outdated("samples")
        if not redo and is_whole and not is_folder(aside):  # while a tar waits, a kill may have left it in both places
            return
        self.delete_index(dataset)
        stay = {} if redo else held.parts("samples")
        waiting = {name.number for name in names_in(aside)}
        for name in held.listed("samples"):
            if stay.get(name.number) == name:
                continue
            if name.number in waiting or any(is_file(aside / shard) for shard in _shards_of(folder / name.file)):
                delete_file(folder / name.file)
            else:
                never = name._replace(made_from=NOTHING) if redo else name
                move_file(folder / name.file, aside / never.file)
        planned = {} if redo else _planned(held)
        staying = {planned.get(number) for number in stay}
        for path in find_files(dataset.shards, "*/*.tar"):
            tar = path.relative_to(dataset.shards)
            if str(tar) in staying:
                continue
            if is_file(aside / tar):
                delete_file(path)
            else:
                move_file(path, aside / tar)
        if not redo and is_folder(aside):
            self._take_back(dataset, held)
            self._write_places(dataset, held)

    def _take_back(self, dataset: Dataset, held: Held) -> None:
        """Move the parts that wait and hold again back to their place, their tars first."""
        aside, digests = dataset.shards / PREVIOUS_SHARDS, held.expected_on_record("samples") or []
        for name in names_in(aside):
            if name.number < len(digests) and name.made_from == digests[name.number]:
                shards = _shards_of(aside / name.file)
                if all(_take_back(dataset, shard) for shard in shards):
                    move_file(aside / name.file, dataset.folder("samples") / name.file)

    def _write_places(self, dataset: Dataset, held: Held) -> None:
        """Write down which samples of the tars that wait belong to which shard of the plan."""
        aside, found = dataset.shards / PREVIOUS_SHARDS, list[Path]()
        nameless = {str(path.relative_to(aside)) for path in find_files(aside, "*/*.tar")}
        for name in names_in(aside):
            with suppress(ValueError):  # a damaged part: its tar says itself what it holds
                nameless -= set(read_parquet(aside / name.file, ["shard"])["shard"].drop_null().to_pylist())
                found.append(aside / name.file)
        rows = (sample._asdict() for shard in sorted(nameless) for sample in _samples_of(aside, shard))
        columns = ", ".join(_SCHEMA.names)
        with duckdb.connect() as connection:
            connection.register("nameless", pa.Table.from_pylist(list(rows), schema=_SCHEMA))
            known = f"UNION ALL SELECT {columns} FROM {read_parts(found)} WHERE shard IS NOT NULL" if found else ""
            sql = (
                f"SELECT shard_id::INTEGER AS shard_id, {columns.replace('shard,', 'old.shard AS shard,')} "
                f"FROM (FROM nameless {known}) AS old "
                f"JOIN (SELECT shard_id, image_id FROM {read_parts(held.paths('shard_plan'))}) USING (image_id) "
                "ORDER BY shard_id, image_id"
            )
            batches = stream(connection, sql, _ROW_GROUP_ROWS)
            commit_batches(aside / PLACES_FILE, batches, _PLACES, {}, _ROW_GROUP_ROWS)


def _planned(held: Held) -> dict[int, str]:
    """Number -> tar of every planned shard."""
    with duckdb.connect() as connection:
        sql = f"SELECT DISTINCT shard_id, shard FROM {read_parts(held.paths('shard_plan'))}"
        return dict(connection.execute(sql).fetchall())


def _shards_of(part: Path) -> list[str]:
    """The tars that a part of `samples` names; none where it is damaged."""
    with suppress(ValueError):
        shards: list[str] = read_parquet(part, ["shard"])["shard"].drop_null().unique().to_pylist()
        return shards
    return []


def old_samples(dataset: Dataset, shard: str, number: int) -> dict[str, OldSample]:
    """image_id -> where the picture of a sample of a planned shard is stored: in a tar that waits, or in the very tar
    that is written again.

    Args:
        shard: the tar's name in the plan.
        number: the shard's number in the plan.

    Raises:
        ValueError: what says where the pictures are is damaged; the next build writes it anew.
    """
    places, found = dataset.shards / PREVIOUS_SHARDS / PLACES_FILE, list[OldSample]()
    if is_file(places):
        rows = read_some(places, "shard_id", [number]).to_pylist()
        found += [_old(row, f"{PREVIOUS_SHARDS}/{row['shard']}") for row in rows]
    if is_file(dataset.shards / shard):
        found += _samples_in_place(dataset, shard, number)
    return {sample.image_id: sample for sample in found}


def _samples_in_place(dataset: Dataset, shard: str, number: int) -> Iterator[OldSample]:
    """From the table or, where it has no such rows or they are damaged, from the headers of the tar."""
    try:
        rows = dataset.read_part("samples", number, _SCHEMA.names).to_pylist()
    except ValueError:
        rows = []
    named = [_old(row, shard) for row in rows if row["shard"] == shard]
    yield from named or _samples_of(dataset.shards, shard)


def _old(row: Mapping[str, Any], shard: str) -> OldSample:
    return OldSample(**{name: row[name] for name in OldSample._fields} | {"shard": shard})


def _samples_of(folder: Path, shard: str) -> Iterator[OldSample]:
    """The samples of a tar from its headers; none where they cannot be read."""
    try:
        members = members_of(folder / shard)
    except (ValueError, OSError):
        return
    words = {member.key: (member.offset, member.size) for member in members if member.extension == "json"}
    for member in members:
        if member.extension not in ("txt", "json") and member.key in words:
            yield OldSample(member.key, shard, member.extension, member.offset, member.size, *words[member.key])


def _take_back(dataset: Dataset, shard: str) -> bool:
    place, aside = dataset.shards / shard, dataset.shards / PREVIOUS_SHARDS / shard
    if is_file(aside):
        move_file(aside, place)
    return is_file(place)
