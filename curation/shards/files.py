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
from engine.catalog import read_parts
from engine.dataset import Dataset, delete_set_aside, read_parquet, read_some, remove_folder
from engine.reduce_job import commit_batches, stream
from schemas import shard_index
from schemas.tables import SAMPLES

WIDS_FILE = "wids.json"

PREVIOUS_SHARDS = ".previous"
"""Folder in `shards/` where outdated tars wait until the new ones are whole."""

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
    """The `engine.part_files.PartFiles` of the shard job. A tar is never overwritten by another."""

    def delete_index(self, dataset: Dataset) -> None:
        """Delete the index of the shards, before a shard changes. While there is one the shards are whole, and what is
        left of outdated ones goes first."""
        if (dataset.shards / shard_index.INDEX_FILE).is_file():
            delete_set_aside(dataset, "samples")
            self.delete_set_aside(dataset)
        for name in (shard_index.INDEX_FILE, WIDS_FILE):
            (dataset.shards / name).unlink(missing_ok=True)

    def has_room(self, dataset: Dataset, part: Path) -> bool:
        """See `PartFiles.has_room`."""
        aside = dataset.shards / PREVIOUS_SHARDS
        if (dataset.previous("samples") / part.name).is_file():
            return False
        if not aside.is_dir():
            return True
        with suppress(ValueError):
            shards = read_parquet(part, ["shard"])["shard"].drop_null().unique().to_pylist()
            return not any((aside / shard).is_file() for shard in shards)
        return False

    def set_aside(self, dataset: Dataset) -> None:
        """Move every tar to `shards/.previous`; one whose place there is taken is deleted, as its part was."""
        for path in sorted(dataset.shards.glob("*/*.tar")):
            target = dataset.shards / PREVIOUS_SHARDS / path.relative_to(dataset.shards)
            if target.is_file():
                path.unlink()
            else:
                _move(path, target)

    def prepare(self, dataset: Dataset) -> None:
        """Write down which samples of the tars that wait belong to which shard of the plan."""
        aside, found = dataset.shards / PREVIOUS_SHARDS, list[Path]()
        if not aside.is_dir():
            return
        nameless = {str(path.relative_to(aside)) for path in aside.glob("*/*.tar")}
        for part in sorted(dataset.previous("samples").glob("part-*.parquet")):
            with suppress(ValueError):  # a damaged part: its tar says itself what it holds
                nameless -= set(read_parquet(part, ["shard"])["shard"].drop_null().to_pylist())
                found.append(part)
        rows = (sample._asdict() for shard in sorted(nameless) for sample in _samples_of(aside, shard))
        columns = ", ".join(_SCHEMA.names)
        with duckdb.connect() as connection:
            connection.register("nameless", pa.Table.from_pylist(list(rows), schema=_SCHEMA))
            known = f"UNION ALL SELECT {columns} FROM {read_parts(found)} WHERE shard IS NOT NULL" if found else ""
            sql = (
                f"SELECT shard_id::INTEGER AS shard_id, {columns.replace('shard,', 'old.shard AS shard,')} "
                f"FROM (FROM nameless {known}) AS old "
                f"JOIN (SELECT shard_id, image_id FROM {read_parts([dataset.reduced('shard_plan')])}) USING (image_id) "
                "ORDER BY shard_id, image_id"
            )
            batches = stream(connection, sql, _ROW_GROUP_ROWS)
            commit_batches(aside / PLACES_FILE, batches, _PLACES, {}, _ROW_GROUP_ROWS)

    def take_back(self, dataset: Dataset, part: Path) -> bool:
        """Move the tars that a part of `samples` names back to their place; False where one of them is gone."""
        shards = read_parquet(part, ["shard"])["shard"].drop_null().unique().to_pylist()
        return all(_take_back(dataset, shard) for shard in shards)

    def are_waiting(self, dataset: Dataset) -> bool:
        """See `PartFiles.are_waiting`."""
        return (dataset.shards / PREVIOUS_SHARDS).is_dir()

    def delete_set_aside(self, dataset: Dataset) -> None:
        """Delete the tars that nobody took back."""
        remove_folder(dataset.shards / PREVIOUS_SHARDS)


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
    if places.is_file():
        rows = read_some(places, "shard_id", number, number).to_pylist()
        found += [_old(row, f"{PREVIOUS_SHARDS}/{row['shard']}") for row in rows]
    if (dataset.shards / shard).is_file():
        found += _samples_in_place(dataset, shard, number)
    return {sample.image_id: sample for sample in found}


def _samples_in_place(dataset: Dataset, shard: str, number: int) -> Iterator[OldSample]:
    """From the table or, where it has no such rows or they are damaged, from the headers of the tar."""
    try:
        rows = read_parquet(dataset.part("samples", number), _SCHEMA.names).to_pylist()
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
    if aside.is_file():
        _move(aside, place)
    return place.is_file()


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
