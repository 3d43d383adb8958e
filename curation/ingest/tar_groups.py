"""List the tars of a source in groups, each by any worker: a group that was listed is not read again after a kill."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import Any

import pyarrow as pa

from curation.sources import Item, SourceListing, list_pieces, pieces_of
from engine.ahead import ahead
from engine.content import content_digest
from engine.dataset import Dataset, commit_table, read_parquet
from engine.names import DIGITS, PartName, made_from, names_in
from engine.runner import Committed, PartJob, Progress, Runner, Task
from schemas.files import kept
from schemas.sources import AnySource
from schemas.tables import schema_of

TARS_PER_GROUP = 32
"""The same on every machine. A source of no more tars is listed where the command is typed."""
ROWS_AT_ONCE = 1024
"""Items that become rows together."""
IGNORED = b"ignored"
"""Key of the counts of what is no input, in the metadata of a group."""


@dataclass(frozen=True, kw_only=True)
class ListTars(PartJob):
    """The job whose part n is the rows of group n, not numbered yet. Its workers load nothing."""

    source: AnySource
    folder: Path
    job: str = "ingest"
    build: Callable[[], Any] = NoneType

    def run_part(self, dataset: Dataset, worker: Callable[[], Any], task: Task, progress: Progress) -> Committed:
        """List the tars that the task names."""
        found, location, label = SourceListing([], {}), self.source.location(), self.source.label()
        items = list_pieces(self.source, list(task.inputs.values()), found)
        rows = pa.concat_tables([schema_of("listing").empty_table(), *rows_of(items, location, label)])
        name = PartName(task.number, task.made_from, content_digest(rows)[:DIGITS])
        commit_table(self.folder / name.file, rows, schema_of("listing"), {IGNORED.decode(): json.dumps(found.ignored)})
        return Committed((name.file,), rows.num_rows)


def rows_of(items: Iterable[Item], location: str, label: str) -> Iterator[pa.Table]:
    """Rows of the listing, not numbered yet, a few at a time."""
    left = iter(items)
    while some := list(islice(left, ROWS_AT_ONCE)):
        columns: dict[str, Sequence[Any]] = dict(zip(Item._fields, zip(*some, strict=True), strict=True))
        columns["row_id"], columns["source_name"] = [0] * len(some), [label] * len(some)
        columns["source"] = [source or location for source in columns["source"]]
        columns["other_captions"] = [others or None for others in columns["other_captions"]]
        yield pa.Table.from_pydict(columns, schema=schema_of("listing"))


def list_groups(
    dataset: Dataset, source: AnySource, folder: Path, found: SourceListing, runner: Callable[[], Runner]
) -> Iterator[pa.Table] | None:
    """The rows of a source, group by group, as `list_source` has its items; None for one that has no groups.

    Args:
        folder: where groups wait until all rows are numbered; the caller deletes it.
        found: counts what is no input.

    Raises:
        ValueError: as `list_source`.
        PartFailed: a tar cannot be read now; other groups stay.
    """
    pieces = pieces_of(source, found)
    if len(pieces) <= TARS_PER_GROUP:
        found.ignored.clear()
        return None
    groups = [pieces[begin : begin + TARS_PER_GROUP] for begin in range(0, len(pieces), TARS_PER_GROUP)]
    digest = made_from("list", {"name": source.label(), "at": source.location(), **source.listing_options()})
    wanted = [digest(group) for group in groups]
    there = {(name.number, name.made_from) for name in names_in(folder)}
    tasks = [
        Task(number, wanted[number], {f"{place:02d}": piece for place, piece in enumerate(group)})
        for number, group in enumerate(groups)
        if (number, wanted[number]) not in there
    ]
    if tasks:
        runner().run(dataset, ListTars(source=source, folder=folder), tasks, lambda *_: None)
    names = [name for name in names_in(folder) if name.number < len(wanted) and wanted[name.number] == name.made_from]
    return _read([folder / name.file for name in {name.number: name for name in names}.values()], found)


def _read(paths: Sequence[Path], found: SourceListing) -> Iterator[pa.Table]:
    threads = 4 if paths and kept(paths[0]) is not None else 1  # a group may be large
    for rows in ahead(read_parquet, paths, threads, threads if threads > 1 else None):
        for kind, num in json.loads(rows.schema.metadata[IGNORED]).items():
            found.count(kind, num)
        yield rows.cast(schema_of("listing")).replace_schema_metadata(None)
