"""A part's name says what it was computed from and what it holds; from names and records follows which parts hold."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.ahead import IN_A_STORE, ahead
from schemas import files
from schemas.columns import BESIDE, ROOTS, SHARDS_PER_PART, TABLES, Cut, cut_of, is_map_table
from schemas.strict import fingerprint

if TYPE_CHECKING:
    from engine.dataset import Dataset, JobRecord

DIGITS = 12
"""Hex digits of a digest in a name."""

NOTHING = "0" * DIGITS
"""In place of the digest of the inputs: of a part that has none, or of one that is shown until it is computed again."""


_PART = re.compile(r"part-(\d{5}|[1-9]\d{5,})\.([0-9a-f]+)\.([0-9a-f]+)\.parquet", re.ASCII)


class PartName(NamedTuple):
    """The name of a part, `part-00017.<made_from>.<content>.parquet`."""

    number: int
    made_from: str
    """Digest of the job, its knobs and the contents of its inputs."""
    content: str
    """Digest of the rows."""

    @property
    def file(self) -> str:
        """The file's name."""
        return f"part-{self.number:05d}.{self.made_from}.{self.content}.parquet"

    @classmethod
    def parse(cls, file: str) -> PartName | None:
        """The name that a file has; None for a file that is no part, such as a copy that a desktop has made of one."""
        match = _PART.fullmatch(file)
        return cls(int(match[1]), match[2], match[3]) if match else None

    @classmethod
    def of(cls, path: Path) -> PartName:
        """The name of a file that is a part."""
        name = cls.parse(path.name)
        assert name is not None, "a part was written"
        return name


def names_in(folder: Path) -> list[PartName]:
    """The parts in a folder, by number."""
    return _parts_of(files.entries_in(folder))


def _parts_of(names: Iterable[str]) -> list[PartName]:
    return sorted(name for name in map(PartName.parse, names) if name is not None)


def made_from(job: str, knobs: Mapping[str, Any]) -> Callable[[Iterable[str]], str]:
    """Give the function that digests what a part of a job is made from, out of the contents of its inputs."""
    begun = hashlib.sha256(fingerprint([job, dict(knobs)]).encode())

    def digest(contents: Iterable[str]) -> str:
        whole = begun.copy()
        whole.update("\n".join(contents).encode())
        return whole.hexdigest()[:DIGITS]

    return digest


@lru_cache(1024)
def _record_of(dataset: Dataset, table: str, _etag: str) -> JobRecord | None:
    return dataset.record(table)


_resolving = threading.RLock()
"""Held by the thread that finds out what holds, so that others (a browser asks for many pictures at once) see all of it
or wait."""


class Held:
    """The parts of a dataset that hold, as each folder was listed when its table was first asked for. A part holds if
    its name says that it was made from what its inputs are now, by the job and the knobs on record. One that was made
    from anything else is outdated, and its rows are pending. Where a part of its inputs is missing, nothing contradicts
    it: it is shown, and nothing is computed from it."""

    def __init__(self, dataset: Dataset, listing_before: bool = False) -> None:
        """Look at nothing yet. `listing_before`: where a part of the listing is there twice, take the one that was
        written first."""
        self.dataset, self._listing_before = dataset, listing_before
        self._records: dict[str, JobRecord | None] = {}
        self._listed: dict[str, list[PartName]] = {}
        self._held: dict[str, dict[int, PartName]] = {}
        self._shown: dict[str, dict[int, PartName]] = {}
        self._paths: dict[str, list[Path]] = {}

    # ------------------------------------------------------------------------------------ one table

    def record(self, table: str) -> JobRecord | None:
        """The record of a table."""
        if table not in self._records:
            found = self.dataset.record(table) if self.dataset.store is None else self._stored_records.get(table)
            if isinstance(found, ValueError):
                raise found
            self._records[table] = found
        return self._records[table]

    @cached_property
    def _stored_records(self) -> dict[str, JobRecord | ValueError | None]:
        """The records of a dataset in a store by table, read at the same time; an error for one that is damaged."""
        etags = {
            f"{folder}/{name}".removeprefix(".records/").removesuffix(".json"): etag or secrets.token_hex(8)
            for folder, names in (self._below or {}).items()
            for name, etag in names.items()
            if f"{folder}/".startswith(".records/")
        }

        def read(table: str) -> JobRecord | ValueError | None:
            try:
                return _record_of(self.dataset, table, etags[table])
            except ValueError as error:
                return error

        return dict(zip(etags, ahead(read, etags, IN_A_STORE), strict=True))

    @cached_property
    def _below(self) -> Mapping[str, Mapping[str, str | None]] | None:
        """See `schemas.files.Kept.tree`, of the tables of a dataset in a store: one listing in the place of one for
        each of them."""
        keeper = files.kept(self.dataset.tables)
        return None if keeper is None else keeper.tree(self.dataset.tables)

    def _entries(self, folder: str) -> Iterable[str]:
        """The names of the files and folders in a folder of the tables."""
        if self._below is None:
            return files.entries_in(self.dataset.tables / folder)
        inside = (name[len(folder) + 1 :].partition("/")[0] for name in self._below if name.startswith(f"{folder}/"))
        return {*self._below.get(folder, ()), *inside}

    def listed(self, table: str) -> list[PartName]:
        """Every part of a table that is on the disk, by number."""
        if table not in self._listed:
            self._listed[table] = _parts_of(self._entries(table))
        return self._listed[table]

    def holding(self, table: str) -> dict[int, PartName]:
        """Number -> the part that holds, in order."""
        with _resolving:
            if table not in self._held:
                self._held[table] = self._shown[table] = {}  # for a record that, damaged, leads back to itself
                self._resolve(table)
            return self._held[table]

    def parts(self, table: str) -> dict[int, PartName]:
        """Number -> the part that is shown, in order: the one that holds, or one that nothing contradicts."""
        self.holding(table)
        return self._shown[table]

    def add(self, table: str, name: PartName) -> None:
        """Let a part that was committed since hold too. Parts are then no longer in order."""
        self.holding(table)[name.number] = self.parts(table)[name.number] = name

    def outdated(self, table: str) -> list[PartName]:
        """The parts on the disk that are not shown."""
        shown = self.parts(table)
        return [name for name in self.listed(table) if shown.get(name.number) != name]

    def paths(self, table: str) -> list[Path]:
        """The files that are shown, in order."""
        if table not in self._paths:
            folder = self.dataset.folder(table)
            self._paths[table] = [folder / name.file for name in self.parts(table).values()]
        return self._paths[table]

    def path(self, table: str, number: int) -> Path:
        """The file of a part that is shown. Raises ValueError: there is none."""
        name, folder = self.parts(table).get(number), self.dataset.folder(table)
        if name is None:
            raise ValueError(f"{folder}/part-{number:05d}: missing; run sigma build again to have it written")
        return folder / name.file

    def num_parts(self, table: str) -> int:
        """Parts that a table has when it is whole."""
        match cut_of(table):
            case Cut.LISTING | Cut.PROMPTS as cut:
                return len(self.holding(ROOTS[cut]))
            case Cut.SHARD:
                return len(self.shards or ())
            case Cut.SHARDS:
                return max(1, -(-len(self.shards or ()) // SHARDS_PER_PART))
            case Cut.WHOLE:
                return 1

    def is_whole(self, table: str) -> bool:
        """Whether every part of a table holds."""
        num_parts = self.num_parts(table)
        return num_parts > 0 and len(self.holding(table)) == num_parts

    @cached_property
    def shards(self) -> list[str] | None:
        """The digest of the rows of each planned shard; None where nothing was planned."""
        try:
            record = self.record("shard_plan")
        except ValueError:
            return None
        return None if record is None else record.shards

    def extra_captions(self) -> list[str]:
        """The tables `captions_beside/<captioner>` that have a part or a record, by name."""
        beside = BESIDE.rstrip("/")
        records = (name.removesuffix(".json") for name in self._entries(f".records/{beside}") if name.endswith(".json"))
        folders = (name for name in self._entries(beside) if self.listed(BESIDE + name))
        return sorted(BESIDE + name for name in {*folders, *records} if name[0] != ".")

    def tables(self) -> list[str]:
        """Every table: those of the contract, written or not, then those of further captioners."""
        return [*TABLES, *self.extra_captions()]

    def only(self, numbers: Collection[int]) -> Held:
        """The same, but of the tables that are cut as the listing is these parts alone."""
        some = copy(self)
        some._paths, some._shown = {}, {}
        for table in self.tables():
            parts = self.parts(table)
            is_cut = table not in TABLES or cut_of(table) is Cut.LISTING
            some._shown[table] = {number: parts[number] for number in numbers if number in parts} if is_cut else parts
        return some

    def take(self, table: str) -> None:
        """Let every part of a table that is on the disk hold."""
        self._held[table] = self._shown[table] = {name.number: name for name in names_in(self.dataset.folder(table))}

    # ------------------------------------------------------------------------------------ what parts are made from

    def expected(self, table: str, job: str, knobs: Mapping[str, Any], inputs: Sequence[str]) -> list[str | None]:
        """What each part of a table is made from, as its inputs are now; None where a part of them is missing."""
        source = self.source_of(table, job, knobs, inputs)
        return [source(number) for number in range(self.num_parts(table))]

    def source_of(
        self, table: str, job: str, knobs: Mapping[str, Any], inputs: Sequence[str]
    ) -> Callable[[int], str | None]:
        """Give the function that says what a part of a table is made from, see `expected`. It also knows the parts of
        map tables that `add` is given later."""
        digest = made_from(job, knobs)
        if cut_of(table) is Cut.SHARD:
            return lambda number: digest([(self.shards or ())[number]])
        by_part = dict[str, Mapping[int, PartName]]()
        shared: list[str | None] = []
        for name in sorted(inputs):
            if cut_of(table) in ROOTS and cut_of(name) is cut_of(table) and is_map_table(table):
                by_part[name] = self.holding(name)
            else:
                shared.append(self._content(name))
        contents = [content for content in shared if content is not None]
        if not by_part or len(contents) < len(shared):
            whole = digest(contents) if len(contents) == len(shared) else None
            return lambda number: whole

        def source(number: int) -> str | None:
            here = [f"{table} {parts[number].content}" for table, parts in by_part.items() if number in parts]
            return digest([*contents, *here]) if len(here) == len(by_part) else None

        return source

    def expected_on_record(self, table: str) -> list[str | None] | None:
        """The same, by the job, the knobs and the inputs on record; None where there is no record that can be read."""
        try:
            record = self.record(table)
        except ValueError:
            return None
        return None if record is None else self.expected(table, record.job, record.knobs, record.inputs)

    def _content(self, table: str) -> str | None:
        """A table and the contents of all of its parts; None where it is not whole."""
        if not self.is_whole(table):
            return None
        return " ".join([table, *(name.content for name in self.holding(table).values())])

    def _resolve(self, table: str) -> None:
        listed = self.listed(table)
        if table in ROOTS.values():  # made from nothing: what was written later has a higher number there
            ordered = reversed(listed) if self._listing_before else listed
            found = {name.number: name for name in ordered}
            self._held[table] = self._shown[table] = dict(sorted(found.items()))
            return
        expected = self.expected_on_record(table) if listed else []
        unknown = None if expected is None else ""
        held, shown = dict[int, PartName](), dict[int, PartName]()
        for name in listed:
            wanted = expected[name.number] if expected is not None and name.number < len(expected) else unknown
            if wanted == name.made_from:
                held[name.number] = name
            elif wanted is None or (wanted and name.made_from == NOTHING):
                shown[name.number] = name
        self._held[table], self._shown[table] = held, dict(sorted((shown | held).items()))
