"""The tars of a dataset as files of the shard job: a tar is one write over its name, and its pictures are copied from
those that were there before."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, Self

from engine.ahead import of_each
from engine.catalog import database
from engine.dataset import Dataset, read_parquet, read_some
from engine.duck import read_parts, stream
from engine.names import Held, PartName
from engine.part_file import commit_batches
from schemas.files import copy_file, delete_files, find_files, is_file, is_folder, open_file, remove_folder
from schemas.late import late
from schemas.lru import Lru
from schemas.unread import is_unread

with late(__name__):
    import pyarrow as pa

    from curation.shards.rewriter import members_of
    from schemas import shard_index
    from schemas.tables import schema_of, with_added

WIDS_FILE = "wids.json"

PREVIOUS_SHARDS = ".previous"
"""Folder in `shards/` of what pictures are copied from until all shards are whole: the tars that others have replaced,
and the place of every picture."""

PICTURES_FILE = "pictures.parquet"
"""In that folder: where the pictures of the shards are that no longer hold, and to which planned shard each belongs."""


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


_NO_SHARD = -1
"""In place of the number of a shard: of a picture that is in no plan."""
_ROW_GROUP_ROWS = 4096
_MOST_OPEN = 16


def _schema() -> pa.Schema:
    stored = schema_of("samples")
    return pa.schema([pa.field("image_id", pa.string()), *(stored.field(name) for name in OldSample._fields[1:])])


class ShardFiles:
    """The `engine.map_job.PartFiles` of the shard job. A tar that is written over another gives it a second name in
    `shards/.previous` first. A name that is taken there stays as it is: that tar was whole when a run began that did
    not end. Rows that no longer hold are deleted before a tar changes, and the places of their pictures are written
    down before that."""

    def delete_index(self, dataset: Dataset) -> None:
        """Delete the index of the shards, before a shard changes. While there is one the shards are whole, and what is
        left of previous ones goes first."""
        if is_file(dataset.shards / shard_index.INDEX_FILE):
            remove_folder(dataset.shards / PREVIOUS_SHARDS)
        for name in (shard_index.INDEX_FILE, WIDS_FILE):  # one after the other
            delete_files(dataset.shards / name)

    def are_waiting(self, dataset: Dataset) -> bool:
        return is_folder(dataset.shards / PREVIOUS_SHARDS)

    def delete_outdated(self, held: Held) -> None:
        """Delete the tars that are in no plan, and those that were replaced."""
        shards = held.dataset.shards
        if self.are_waiting(held.dataset):
            planned, tars = {*_planned(held).values()}, find_files(shards, "*/*.tar")
            delete_files(*(path for path in tars if str(path.relative_to(shards)) not in planned))
            remove_folder(shards / PREVIOUS_SHARDS)

    def release(self, dataset: Dataset, held: Held, names: Collection[PartName]) -> None:
        if not names and held.is_whole("samples") and not self.are_waiting(dataset):
            return
        there = {str(path.relative_to(dataset.shards)) for path in find_files(dataset.shards)}
        if {shard_index.INDEX_FILE, WIDS_FILE} & there:
            self.delete_index(dataset)
            there = there if shard_index.INDEX_FILE not in there else {name for name in there if name[0] != "."}
        folder, pictures = dataset.folder("samples"), dataset.shards / PREVIOUS_SHARDS / PICTURES_FILE
        stay = [number for number, name in held.holding("samples").items() if name not in names]
        planned = _planned(held) if stay else {}
        known = {planned.get(number) for number in stay}
        sources = [pictures] if f"{PREVIOUS_SHARDS}/{PICTURES_FILE}" in there else []
        with database(dataset).cursor() as connection:
            if sources:
                sql = f"SELECT DISTINCT shard FROM {read_parts(sources)}"
                known |= {shard for (shard,) in connection.execute(sql).fetchall()}
            paths = [folder / name.file for name in names]
            for path, shards in zip(paths, of_each(_shards_of, paths), strict=True):
                if not known & shards:  # else that tar was whole before a run that wrote it again and did not end
                    sources += [path] if shards else []
                    known |= shards
            tars = {name.removeprefix(f"{PREVIOUS_SHARDS}/") for name in there if name.endswith(".tar") and "/" in name}
            if sources or tars - known:
                nameless = (sample for tar in sorted(tars - known) for sample in _samples_of(dataset, tar))
                table = pa.Table.from_pylist([sample._asdict() for sample in nameless], schema=_schema())
                connection.register("nameless", table)
                query = stream(connection, _where_pictures_are(sources, held.paths("shard_plan")), _ROW_GROUP_ROWS)
                schema = pa.schema([pa.field("shard_id", pa.int32()), *_schema()])
                commit_batches(pictures, query, schema, {}, _ROW_GROUP_ROWS)
        delete_files(*paths)


def _where_pictures_are(sources: list[Path], plan: list[Path]) -> str:
    """The SELECT of the rows of some files and of the table `nameless`, by the planned shard that each belongs to."""
    columns = ", ".join(OldSample._fields)
    known = [f"SELECT {columns} FROM {read_parts([path])} WHERE shard IS NOT NULL" for path in sources[:1]]
    if sources[1:]:
        known.append(f"SELECT {columns} FROM {read_parts(sources[1:])} WHERE shard IS NOT NULL")
    planned = read_parts(plan) if plan else "(SELECT NULL::INTEGER AS shard_id, NULL::VARCHAR AS image_id LIMIT 0)"
    return (
        f"SELECT coalesce(shard_id, {_NO_SHARD})::INTEGER AS shard_id, "
        f"{columns.replace('shard,', 'old.shard AS shard,')} "
        f"FROM ({' UNION ALL '.join([*known, 'FROM nameless'])}) AS old "
        f"LEFT JOIN (SELECT shard_id, image_id FROM {planned}) USING (image_id) ORDER BY ALL"
    )


def _planned(held: Held) -> dict[int, str]:
    """Number -> tar of every planned shard."""
    with database(held.dataset).cursor() as connection:
        sql = f"SELECT DISTINCT shard_id, shard FROM {read_parts(held.paths('shard_plan'))}"
        return dict(connection.execute(sql).fetchall())


def _shards_of(part: Path) -> set[str | None]:
    """The tars that a part of `samples` names; none where it is damaged."""
    with suppress(ValueError):
        return {*read_parquet(part, ["shard"])["shard"].drop_null().unique().to_pylist()}
    return set()


def _samples_of(dataset: Dataset, shard: str) -> Iterator[OldSample]:
    """The samples of a tar from its headers; none where they are damaged. Raises OSError: it cannot be read now."""
    previous = dataset.shards / PREVIOUS_SHARDS / shard
    try:
        members = members_of(previous if is_file(previous) else dataset.shards / shard)
    except (ValueError, OSError) as error:
        if is_unread(error):
            raise
        return
    words = {member.key: (member.offset, member.size) for member in members if member.extension == "json"}
    for member in members:
        if member.extension not in ("txt", "json") and member.key in words:
            yield OldSample(member.key, shard, member.extension, member.offset, member.size, *words[member.key])


def keep_previous(dataset: Dataset, shard: str) -> None:
    """Give a tar that is about to be replaced a second name, unless its name there is taken."""
    path, previous = dataset.shards / shard, dataset.shards / PREVIOUS_SHARDS / shard
    if is_file(path) and not is_file(previous):
        copy_file(path, previous)


class OldTars:
    """The pictures of a planned shard in tars that were written before; use it as a context, which closes these."""

    def __init__(self, dataset: Dataset, number: int) -> None:
        """Find them. Raises ValueError: what says where the pictures are is damaged; the next build writes it anew."""
        self._shards = dataset.shards
        self._opened = Lru[str, IO[bytes]](_MOST_OPEN, on_drop=lambda tar: tar.close())
        self._samples: dict[str, list[OldSample]] = {}
        pictures = read_some(self._shards / PREVIOUS_SHARDS / PICTURES_FILE, "shard_id", [number])
        for row in pictures.select([*OldSample._fields]).to_pylist():
            self._samples.setdefault(row["image_id"], []).append(OldSample(**row))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.clear()

    def samples_of(self, image_id: str) -> list[OldSample]:
        """Where a picture may be."""
        return self._samples.get(image_id, [])

    def read(self, old: OldSample) -> Iterator[tuple[bytes, bytes]]:
        """What may be the bytes of the image and of the metadata of a sample; twice, if another worker may have
        replaced the tar while the first ones were read. Raises OSError: the tar cannot be read now."""
        for _ in range(2):
            try:
                tar = self._opened.get(old.shard, lambda: self._open(old.shard))
                tar.seek(old.image_offset)
                data = tar.read(old.image_size)
                tar.seek(old.json_offset)
                yield data, tar.read(old.json_size)
            except OSError as error:
                if is_unread(error):
                    raise
            self._opened.clear()

    def _open(self, shard: str) -> IO[bytes]:
        try:
            return open_file(self._shards / PREVIOUS_SHARDS / shard)
        except FileNotFoundError:
            return open_file(self._shards / shard)


def index_rows(part: Path) -> pa.Table:
    """The rows of the index that a part of `samples` gives."""
    return in_index(with_added("samples", read_parquet(part)))


def in_index(samples: pa.Table) -> pa.Table:
    """The rows of the index that rows of `samples` give: those that are in a shard."""
    return samples.select(shard_index.INDEX_SCHEMA.names).filter(samples["shard"].is_valid())
