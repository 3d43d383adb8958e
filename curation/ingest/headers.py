"""Read the header of each input and no more: its format and upright size, or the reason why it is no picture.

The table serves a survey of a collection before it is ingested. No job of `build` reads it.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any

import pyarrow as pa

from curation.images.header import Header, Unreadable, read_header, refuse_animated
from curation.images.lazy_bytes import LazyBytes
from curation.ingest.ingest import most_bytes
from curation.sources import open_lazily
from curation.sources.storage import check_size, unreadable
from engine.ahead import ahead
from engine.dataset import Dataset
from engine.map_job import MapJob, Worker, naming
from engine.runner import Progress
from schemas.opening import picture_formats
from schemas.recipe import DataRecipe
from schemas.tables import schema_of

JOB = "headers"
"""Its name, and its table's."""

ROWS_PER_TURN, FIRST_TURN = 64, 8
"""Rows that are read in one go: handing them to a thread one by one would cost more than reading a header."""

Listed = tuple[int, str, str, int | None, int | None, str | None, str | None]
Row = tuple[Any, ...]
"""A row of `headers`, in the order of its columns."""

_LISTED = ["row_id", "source", "member", "byte_offset", "num_bytes", "reason", "detail"]


def map_job(recipe: DataRecipe) -> MapJob:
    """The job that turns the listing into `headers`."""
    return MapJob(
        job=JOB,
        inputs=("listing",),
        outputs=(JOB,),
        build=partial(HeaderWorker, int(recipe.ingest.max_megapixels * 1e6), recipe.run.threads),
        knobs={"ingest.max_megapixels": recipe.ingest.max_megapixels},
    )


def other_knobs(dataset: Dataset, recipe: DataRecipe) -> bool:
    """Whether the headers of a dataset were read under other knobs. Such headers are read again without `--redo`,
    since that costs little."""
    made_by = dataset.record(JOB)
    return made_by is not None and made_by.knobs != map_job(recipe).knobs


class HeaderWorker(Worker):
    """Reads headers: on threads, some batches of rows ahead, as soon as reading waits for a disk or a network."""

    def __init__(self, max_pixels: int, threads: int) -> None:
        """Load Pillow's decoders, before several threads need them at once."""
        picture_formats()
        self._max_pixels = max_pixels
        self._threads = threads

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:
        """`listing` in, `headers` out."""
        rows: list[Row] = []
        for done in self._read(_turns(inputs["listing"])):
            rows += done
            progress(len(done))
        columns = zip(*rows, strict=True) if rows else [()] * len(schema_of("headers"))
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema_of("headers"), strict=True)]
        return {JOB: pa.Table.from_arrays(arrays, schema=schema_of("headers"))}

    def _read(self, turns: Iterator[list[Listed]]) -> Iterator[list[Row]]:
        """The rows turn after turn. Where nothing waits, threads would take Python's lock from each other at every
        file that is opened, which costs as much as half of the reading."""
        for turn in turns:
            before = _num_waits()
            done = self._read_some(turn)
            waits = _num_waits() - before > len(turn) // 4
            yield done
            if waits:
                break
        yield from ahead(self._read_some, turns, self._threads)

    def _read_some(self, listed: list[Listed]) -> list[Row]:
        """Rows of files with the same extension are read one after the other, while the processor has what decodes
        them at hand: where formats alternate, a header takes a fifth longer."""
        by_kind, done = sorted(listed, key=_kind), list[Row]()
        try:
            for row in by_kind:
                done.append(header_row(row, self._max_pixels))
        except Exception as error:
            with naming(by_kind[len(done)][2]):
                raise error
        return sorted(done, key=itemgetter(0))


def _kind(listed: Listed) -> str:
    """The extension of a file; members of a container stay in its order, in which they are read faster."""
    _, _, member, byte_offset, *_ = listed
    return member.rpartition(".")[2] if byte_offset is None else ""


def header_row(listed: Listed, max_pixels: int) -> Row:
    """One row of the listing as a row of `headers`."""
    row_id, source, member, byte_offset, num_bytes, reason, detail = listed
    if reason is not None:
        return (row_id, num_bytes, *_NOTHING, reason, detail)
    try:
        data = open_lazily(source, member, byte_offset, num_bytes)
        check_size(len(data), most_bytes(max_pixels))
    except OSError as error:
        return _row(row_id, num_bytes, unreadable(error))
    refused: Unreadable | None = None
    try:
        found = read_header(data, max_pixels)
        refuse_animated(found)
        header: Header | None = found
    except Unreadable as error:
        header, refused = error.header, error
    finally:
        failed = None
        if isinstance(data, LazyBytes):
            failed = data.failed
            data.close()
    if failed is not None:  # half the bytes say nothing about the image
        return _row(row_id, num_bytes, unreadable(failed))
    return _row(row_id, len(data), refused, header)


def _row(row_id: int, num_bytes: int | None, refused: Unreadable | None, header: Header | None = None) -> Row:
    """The row of an input, its header and reason null where it has none."""
    columns = _NOTHING if header is None else header.columns().values()
    return (row_id, num_bytes, *columns, *((refused.reason.value, refused.detail) if refused else (None, None)))


_NOTHING = (None,) * (len(schema_of("headers")) - len(("row_id", "num_bytes", "reason", "detail")))
"""The columns that a header fills."""


def _num_waits() -> int:
    """How often this thread has waited for something so far, which others may have used."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _turns(listing: pa.Table) -> Iterator[list[Listed]]:
    # a part that was listed by an earlier version has no reasons
    names = listing.schema.names
    columns = [listing[name].to_pylist() if name in names else [None] * len(listing) for name in _LISTED]
    rows, size = zip(*columns, strict=True), FIRST_TURN
    while turn := list(islice(rows, size)):
        yield turn
        size = ROWS_PER_TURN
