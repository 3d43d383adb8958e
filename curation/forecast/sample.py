"""Draw a sample of a recipe's inputs into a dataset of its own, and run the recipe's jobs on it with a clock."""

from __future__ import annotations

import heapq
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation import build as pipeline
from curation.ingest import listing
from curation.ingest.takedown_log import read_log, write_log
from curation.shards.plan import NothingLeft
from engine.dataset import Dataset, JobRecord, read_parquet
from engine.job import Job
from engine.map_job import MapJob
from engine.names import NOTHING, Held
from engine.runner import Committed, Progress, Task
from schemas.ids import counter
from schemas.recipe import DataRecipe
from schemas.tables import schema_of

LEAST_PART_ROWS = 32
"""A part of the sample has at least so many inputs: committing one costs as much as some pictures."""


NO_START_S = 0.001
"""A worker that is there in less was there already, or has nothing to load."""


@dataclass(frozen=True)
class Sample:
    """A dataset that lists some of the inputs of a recipe."""

    recipe: DataRecipe
    """The recipe, its `out` the sample's dataset."""
    num_inputs: int
    num_sampled: int
    num_parts: int
    """that the whole listing has"""
    by_source: dict[str, tuple[int, int]]
    """name of a source -> its inputs, and how many of them are sampled"""
    listing_s: float
    """of the wall clock, to list the whole; 0 where it was listed already"""

    @property
    def dataset(self) -> Dataset:
        return Dataset(self.recipe.out_path())


@contextmanager
def sampled(recipe: DataRecipe, size: int, keep: Path | None = None) -> Iterator[Sample]:
    """A sample of the inputs, in a temporary folder that is gone at the end, or in `keep`. The listing of `out` is read
    where every source is in it; else one is taken besides the sample. Nothing is ever written into `out`. Raises
    ValueError: the size is no number of inputs, `keep` or `out` cannot be used, or there are no inputs."""
    if size < 1:
        raise ValueError(f"--sample {size}: look at one input at least")
    out = Dataset(recipe.out_path())
    pipeline.refuse_out(out, recipe)
    if keep is not None:
        _refuse_kept(keep.absolute(), out)
    is_listed = listing.is_listed(out.held(), recipe)
    if not is_listed:
        _refuse_unfetched(recipe, out)
    with tempfile.TemporaryDirectory(prefix="sigma-plan-", ignore_cleanup_errors=True) as folder:
        whole = out if is_listed else Dataset(Path(folder) / "listing")
        begun = time.perf_counter()
        if not is_listed:
            listing.update_listing(whole.held(), recipe)
        listing_s = 0.0 if is_listed else time.perf_counter() - begun
        root = Path(folder) / "dataset" if keep is None else keep.absolute()
        yield replace(_write_sample(whole, recipe, size, root), listing_s=listing_s)


def build_sample(sample: Sample, steps: Sequence[Job], observer: pipeline.Observer) -> None:
    """Run the jobs, each part timed; what they took is in the dataset's `runs/`. That nothing is kept is no error.
    Raises ValueError, PartFailed, OSError: as `curation.build.build`."""
    try:
        pipeline.build(sample.recipe, [timed(step) for step in steps], observer)
    except NothingLeft:
        return


class TimedMapJob(MapJob):
    """A map job that also counts what its parts took, and what its worker took to start."""

    def run_part(self, dataset: Dataset, worker: Callable[[], Any], task: Task, progress: Progress) -> Committed:
        """See `MapJob.run_part`. Counts: start_s and how many starts, busy_s, cpu_s, busy_gpu_s, timed_parts, and over
        these parts visible_gpus: a worker that is given GPUs for itself sees no others."""
        begun = time.perf_counter()
        worker()
        loaded, cpu = time.perf_counter(), time.process_time()
        part = super().run_part(dataset, worker, task, progress)
        busy_s, cpu_s = time.perf_counter() - loaded, time.process_time() - cpu
        torch = sys.modules.get("torch")
        on_gpu = self.num_gpus != 0 and torch is not None and bool(torch.cuda.is_initialized())
        gpu_s = busy_s * (1.0 if self.num_gpus is None else self.num_gpus) if on_gpu else 0.0
        start_s = loaded - begun
        started = int(start_s > NO_START_S)
        counts = {"start_s": start_s, "starts": started, "busy_s": busy_s, "cpu_s": cpu_s, "busy_gpu_s": gpu_s}
        visible_gpus = torch.cuda.device_count() if on_gpu and torch is not None else 0
        progress(0, counts | {"timed_parts": 1, "visible_gpus": visible_gpus})
        return part


def timed(step: Job) -> Job:
    """The same step with a clock. Only a map job gets one: a reduce job has nothing that runs part by part."""
    return TimedMapJob(**vars(step)) if isinstance(step, MapJob) else step


def shares(counts: Sequence[int], size: int) -> list[int]:
    """`size` dealt out in proportion to `counts`, the largest remainders rounded up; never more than there are."""
    total = sum(counts)
    size = min(size, total)
    exact = [size * count / total for count in counts] if total else [0.0] * len(counts)
    dealt = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(counts)), key=lambda place: (dealt[place] - exact[place], place))
    for place in by_remainder[: size - sum(dealt)]:
        dealt[place] += 1
    return dealt


def drawn(whole: Held, parts: range, size: int, seed: int) -> list[int]:
    """The row_ids, ascending, of the `size` inputs of a source whose names hash lowest: the same whatever their order.
    `parts`: of the listing, all of one source."""

    def hashes() -> Iterator[tuple[int, int]]:
        for number in parts:
            rows = read_parquet(whole.path("listing", number), ["row_id", "source_name", "member"])
            for row_id, name, member in zip(*(column.to_pylist() for column in rows.columns), strict=True):
                yield counter(f"{name}/{member}", f"plan {seed}"), row_id

    return sorted(row_id for _, row_id in heapq.nsmallest(size, hashes()))


def _write_sample(whole: Dataset, recipe: DataRecipe, size: int, root: Path) -> Sample:
    record = whole.record("listing")
    entries, held = list(record.knobs["sources"]) if record else [], whole.held()
    counts = [entry["rows"] for entry in entries]
    if not sum(counts):
        raise ValueError("the sources hold no input: there is nothing to forecast")
    num_sampled = min(size, sum(counts))
    part_rows = recipe.part_rows
    if num_sampled < sum(counts):  # enough parts for all workers, as the whole will have
        workers = recipe.run.workers or os.cpu_count() or 1
        part_rows = min(part_rows, max(LEAST_PART_ROWS, math.ceil(num_sampled / workers)))
    sample = Dataset(root)
    written: list[dict[str, Any]] = []
    chosen: dict[int, int] = {}
    first_part = next_part = 0
    for entry, count in zip(entries, shares(counts, size), strict=True):
        parts = range(first_part, first_part + entry["parts"])
        first_part += entry["parts"]
        row_ids = drawn(held, parts, count, recipe.seed)
        rows = _rows_of(held, parts, set(row_ids)) if row_ids else schema_of("listing").empty_table()
        size = listing.part_size(rows.num_rows, part_rows) if num_sampled == sum(counts) else part_rows
        for begin in range(0, rows.num_rows, size):
            _commit_part(sample, next_part + begin // size, rows.slice(begin, size), len(chosen) + begin)
        num_parts = math.ceil(rows.num_rows / size)
        chosen |= {row_id: len(chosen) + place for place, row_id in enumerate(row_ids)}
        written.append(entry | {"rows": rows.num_rows, "parts": num_parts})
        next_part += num_parts
    knobs = {"part_rows": part_rows, "sources": written}
    sample.write_record("listing", JobRecord("ingest", knobs, []))
    _take_over_takedowns(Dataset(recipe.out_path()), sample, chosen)
    by_source = {entry["name"]: (entry["rows"], taken["rows"]) for entry, taken in zip(entries, written, strict=True)}
    made = recipe.model_copy(update={"out": str(root), "part_rows": part_rows})
    return Sample(made, sum(counts), num_sampled, first_part, by_source, 0.0)


def _rows_of(whole: Held, parts: range, row_ids: set[int]) -> pa.Table:
    found = []
    for number in parts:
        rows = read_parquet(whole.path("listing", number))
        mask = pa.array([row_id in row_ids for row_id in rows["row_id"].to_pylist()])
        found.append(rows.filter(mask).replace_schema_metadata(None))
    return pa.concat_tables(found)


def _commit_part(sample: Dataset, number: int, rows: pa.Table, first_row: int) -> None:
    row_ids = pa.array(range(first_row, first_row + rows.num_rows), pa.int64())
    rows = rows.set_column(rows.column_names.index("row_id"), schema_of("listing").field("row_id"), row_ids).cast(
        schema_of("listing")
    )
    sample.commit_part("listing", number, NOTHING, rows)


def _take_over_takedowns(out: Dataset, sample: Dataset, chosen: dict[int, int]) -> None:
    """What was taken out of `out` is not let into the sample either."""
    entries = [
        replace(entry, row_id=None if entry.row_id is None else chosen.get(entry.row_id), finished=True)
        for entry in read_log(out)
    ]
    if entries:
        write_log(sample, entries)


def _refuse_kept(keep: Path, out: Dataset) -> None:
    if keep.resolve().is_relative_to(out.root.resolve()):
        raise ValueError(f"--keep {keep}: lies in the dataset itself, which a forecast leaves alone; name another")
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise ValueError(f"--keep {keep}: there is something already; name a new or empty folder")


def _refuse_unfetched(recipe: DataRecipe, out: Dataset) -> None:
    """A URL list is known only once it was fetched, which would be the whole of it."""
    for source in recipe.all_sources():
        if source.kind == "urls":
            raise ValueError(
                f"{source.location()}: what a URL list holds is known once it is fetched; run sigma ingest first "
                f"(it stops where you stop it, and the listing of {out.root} is used), or plan on a shorter list"
            )
