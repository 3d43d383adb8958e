"""Take images out of a dataset for good: out of its tables, its shards, and whatever was kept to be used again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curation.ingest.takedown_log import TakedownEntry, finished, log_path, read_log, write_log
from curation.shards import plan as shard_plan
from curation.shards.files import PLACES_FILE, PREVIOUS_SHARDS, ShardFiles
from curation.shards.rewriter import drop_samples, members_of, placed
from curation.shards.writer import update_index
from curation.upkeep.find import Found, Wanted, find
from curation.upkeep.rewrites import emptied, keep_rows, metadata_of, renumbered, without_captions
from engine.ahead import ahead
from engine.dataset import (
    CONTENT_KEY,
    DIGEST_KEY,
    Dataset,
    commit_table,
    content_digest,
    count_rows,
    read_parquet,
    schema_of,
    sweep_folder,
)
from engine.job import Job, State, outdate_dependents
from engine.map_job import MapJob, as_stored
from engine.reduce_job import ReduceJob
from schemas.features import RECORD_FILE
from schemas.recipe import Run
from schemas.tables import REDUCE_TABLES, SAMPLES, SCHEMAS, with_added
from schemas.texts import counted

CAPTION_TABLES = ("mix", "nouns", "grounding")
"""Map tables that repeat the text of a raw caption, in the row of each picture that carries it."""

MOST_SHOWN = 20
"""Matches that are named on the console."""


def show_and_purge(
    dataset: Dataset,
    steps: Sequence[Job],
    wanted: Wanted | None,
    why: str,
    features: Sequence[Path],
    dry_run: bool,
    run: Run,
) -> Iterator[str]:
    """The whole command under the dataset's lock; lines for the user as it goes.

    Args:
        wanted: None only finishes what was interrupted.

    Raises:
        ValueError: as `find` and `purge`.
    """
    with dataset.lock():
        if not dry_run:
            dataset.sweep()
            if any(not entry.finished for entry in read_log(dataset)):
                num_rewritten = finish(dataset, steps, run.threads, run.duckdb_memory)
                yield f"finished the takedown that was interrupted; shards rewritten: {num_rewritten:,}"
            elif wanted is None:
                yield "no takedown was interrupted"
        if wanted is None:
            return
        found = find(dataset, wanted, why, features)
        for entry in found.entries[:MOST_SHOWN]:
            yield f"{entry.name or 'no input of this dataset; refused if it comes'}  {entry.matched_by}"
        if len(found.entries) > MOST_SHOWN:
            yield f"... and {len(found.entries) - MOST_SHOWN:,} more"
        if found.num_gone:
            yield f"{found.num_gone:,} were taken out before"
        if found.num_beside:
            yield (
                f"{found.num_beside:,} near doubles of these were dropped in their favour and stay out until select "
                "runs anew; --duplicates takes them out as well"
            )
        if found.num_inheriting:
            yield (
                f"{found.num_inheriting:,} pictures carry a raw caption of these: it goes, and they are pending until "
                "the next sigma build"
            )
        if dry_run:
            yield f"{counted(found.num_rows, 'input')} would be taken out; nothing was changed"
            return
        num_rewritten = purge(dataset, steps, found, run.threads, run.duckdb_memory)
        yield (
            f"{counted(found.num_rows, 'input')} taken out, {counted(num_rewritten, 'shard')} rewritten; logged in "
            f"{log_path(dataset)}"
        )


def purge(dataset: Dataset, steps: Sequence[Job], found: Found, threads: int = 2, memory: str = "4GB") -> int:
    """Take out what was found: the intent is logged first, so that a run which is killed can be finished.

    Returns:
        Shards that were rewritten or removed.

    Raises:
        ValueError: a table or a shard is damaged; nothing is lost, `sigma doctor --repair` goes on from there.
    """
    if found.entries:
        write_log(dataset, [*read_log(dataset), *found.entries])
    return finish(dataset, steps, threads, memory)


def finish(dataset: Dataset, steps: Sequence[Job], threads: int = 2, memory: str = "4GB") -> int:
    """Carry out every entry of the log that is not finished. May be called again wherever it stopped.

    Call with the lock held, and steps of the dataset's own recipe.
    """
    log = read_log(dataset)
    pending = {entry.row_id: entry for entry in log if not entry.finished and entry.row_id is not None}
    if all(entry.finished for entry in log):
        return 0
    takedown = _Takedown(dataset, steps, pending, threads, memory)
    num_shards_rewritten = takedown.run(_feature_folders(dataset, log)) if pending else 0
    write_log(dataset, finished(log))
    return num_shards_rewritten


def _feature_folders(dataset: Dataset, log: Iterable[TakedownEntry]) -> list[Path]:
    named = {Path(folder) for entry in log if not entry.finished for folder in entry.features}
    return [dataset.root / "features", *sorted(named)]


class _Takedown:
    """One pass over a dataset. Every step of it can be repeated."""

    def __init__(
        self, dataset: Dataset, steps: Sequence[Job], pending: dict[int, TakedownEntry], threads: int, memory: str
    ) -> None:
        self._dataset, self._steps, self._pending = dataset, steps, pending
        # The two kinds are rewritten in different ways: part by part under new digests, or computed again as a whole.
        self._map_jobs = [step for step in steps if isinstance(step, MapJob)]
        self._reduce_jobs = [step for step in steps if isinstance(step, ReduceJob)]
        self._threads, self._memory = threads, memory
        self._row_ids = pa.array(sorted(pending), pa.int64())
        heirs = {row: key for entry in pending.values() for row, key in entry.heirs if row not in pending}
        self._inheriting = pa.array(sorted(heirs), pa.int64())
        self._keys = frozenset(entry.image_id for entry in pending.values() if entry.image_id) | {*heirs.values()}
        self._whys = {row_id: entry.why for row_id, entry in pending.items()}
        self._consistent = frozenset(step.outputs for step in steps if _is_consistent(dataset, step))

    def run(self, feature_folders: Sequence[Path]) -> int:
        dataset = self._dataset
        shards = self._shards()
        if shards or self._unknown_shards():
            ShardFiles().delete_index(dataset)
        dataset.report.unlink(missing_ok=True)  # it shows pictures
        for folder in feature_folders:
            self._drop_features(folder)
        for table, schema in REDUCE_TABLES.items():
            if "row_id" in schema.names and dataset.reduced(table).is_file():
                self._rewrite_reduced(table)
        for number in ahead(self._rewrite_parts, self._parts(), self._threads):
            self._drop_kept_aside(number)
        self._drop_previous_shards()
        for path in self._unknown_shards():
            path.unlink()
        for _ in ahead(self._rewrite_shard, shards, self._threads):
            pass
        for path in dataset.parts("samples")[shard_plan.num_shards(dataset) :]:
            path.unlink()
        self._recount()
        if not self._missing("samples") and dataset.parts("samples"):
            update_index(dataset)
        if len(self._inheriting):
            self._outdate_selection()
        return len(shards)

    def _outdate_selection(self) -> None:
        """Let the next build choose captions anew for the pictures that had one of a purged picture."""
        outdate_dependents(self._dataset, ("selection",))
        record = self._dataset.record("selection")
        if record is not None:
            self._dataset.write_record("selection", replace(record, upstream={}))

    def _parts(self) -> list[int]:
        """Parts of the map tables that hold a purged row, or one that had taken over its caption."""
        numbers, begin, left = [], 0, sorted({*self._pending, *self._inheriting.to_pylist()})
        for number, path in enumerate(self._dataset.parts("listing")):
            begin += count_rows(path)
            inside = [row_id for row_id in left if row_id < begin]
            left = left[len(inside) :]
            numbers += [number] if inside else []
        return numbers

    def _shards(self) -> list[int]:
        """Parts of `samples` that hold a purged row."""
        paths = self._dataset.parts("samples")
        held = ahead(lambda path: self._carries(read_parquet(path, ["row_id"])), paths, self._threads)
        return [int(path.stem.removeprefix("part-")) for path, mask in zip(paths, held, strict=True) if pc.any(mask)]

    def _unknown_shards(self) -> list[Path]:
        """Tars that hold a purged picture and whose rows are not written yet: the build that was killed goes on."""
        known: set[str] = set()
        for path in self._dataset.parts("samples"):
            known.update(read_parquet(path, ["shard"])["shard"].drop_null().unique().to_pylist())
        shards = self._dataset.shards
        unknown = [path for path in shards.glob("*/*.tar") if str(path.relative_to(shards)) not in known]
        return [path for path in unknown if any(member.key in self._keys for member in members_of(path))]

    def _mask(self, table: pa.Table) -> pa.ChunkedArray:
        return pc.is_in(table["row_id"], value_set=self._row_ids)

    def _inherits(self, table: pa.Table) -> pa.ChunkedArray:
        return pc.is_in(table["row_id"], value_set=self._inheriting)

    def _carries(self, table: pa.Table) -> pa.ChunkedArray:
        """The purged rows, and those that carry the caption of one."""
        return pc.or_(self._mask(table), self._inherits(table))

    def _missing(self, table: str) -> list[int]:
        return next((step.missing(self._dataset) for step in self._steps if table in step.outputs), [0])

    # -------------------------------------------------------------------------------------------- tables

    def _rewrite_reduced(self, table: str) -> None:
        path = self._dataset.reduced(table)
        rows = read_parquet(path)
        metadata = metadata_of(rows)
        rows = with_added(table, rows)
        mask = self._carries(rows) if table in ("selection", "shard_plan") else self._mask(rows)
        if not pc.any(mask).as_py():
            return
        if table == "selection":
            rows = without_captions(emptied(rows, self._mask(rows), self._whys), self._inherits(rows))
        else:
            rows = rows.filter(pc.invert(mask))
        if table == "shard_plan":
            commit_table(path, renumbered(rows), SCHEMAS[table], metadata, shard_plan.ROW_GROUP_ROWS)
        else:
            commit_table(path, rows, SCHEMAS[table], metadata)

    def _rewrite_parts(self, number: int) -> int:
        """Empty the purged rows of part `number` of every table, and name anew what each was computed from."""
        made_by = {table: job for job in self._map_jobs for table in job.outputs if table != "samples"}
        for table in dict.fromkeys(("listing", "headers", *made_by, *self._dataset.extra_captions())):
            path = self._dataset.part(table, number)
            if not path.is_file():
                continue
            rows = read_parquet(path)
            metadata = metadata_of(rows)
            rows = as_stored(table, rows)
            inherits = table in CAPTION_TABLES and bool(pc.any(self._inherits(rows)).as_py())
            left = emptied(rows, self._carries(rows) if inherits else self._mask(rows), self._whys)
            fresh = {CONTENT_KEY.decode(): content_digest(left)}
            if table in made_by and not inherits:  # a part with such a row is not what its inputs make: never reused
                fresh |= self._digest(made_by[table], number)
            if metadata != fresh or not left.equals(rows):
                commit_table(path, left, schema_of(table), fresh)
        return number

    def _digest(self, job: MapJob, number: int) -> dict[str, str]:
        """The digest of a part's inputs as they are now, under its key; nothing where the part must not be reused."""
        if job.outputs not in self._consistent:
            return {}
        return {DIGEST_KEY.decode(): job.input_digest(self._dataset, number)}

    def _recount(self) -> None:
        """Compute the reduce tables that only count, such as the statistics, from what is left."""
        for job in self._reduce_jobs:
            if "row_id" in SCHEMAS[job.outputs[0]].names or job.missing(self._dataset):
                continue
            if job.outputs in self._consistent and not any(self._missing(table) for table in job.inputs):
                job.compute(self._dataset, self._memory)
            else:
                job.delete(self._dataset)

    # -------------------------------------------------------------------------------------------- shards

    def _rewrite_shard(self, number: int) -> None:
        """A shard, then its part of `samples`: what says that it is to be rewritten goes last."""
        path = self._dataset.part("samples", number)
        rows = read_parquet(path)
        keep = rows.filter(pc.invert(self._carries(rows))).to_pylist()
        names = set(rows["shard"].drop_null().to_pylist())
        assert len(names) <= 1, "a part of samples is a shard"
        places = {}
        for name in names:
            tar = self._dataset.shards / name
            if not tar.is_file():
                path.unlink()  # it is written again with what is left
                return
            places = drop_samples(tar, self._keys)
        moved = [row if row["shard"] is None else placed(row, places.get(row["key"], [])) for row in keep]
        left = pa.Table.from_pylist(moved, schema=SAMPLES)
        fresh = {CONTENT_KEY.decode(): content_digest(left)}
        for job in self._map_jobs:
            if "samples" in job.outputs:
                fresh |= self._digest(job, number)
        commit_table(path, left, SAMPLES, fresh)

    # -------------------------------------------------------------------------------------------- what lies beside

    def _drop_kept_aside(self, number: int) -> None:
        """Rows of outdated parts, and of what was paid for and dropped: they stay for the other images only."""
        for table in set(self._dataset.map_tables()) - {"samples"}:
            name = self._dataset.part(table, number).name
            paid = self._dataset.paid(table, number)
            noted = paid.with_suffix(".batches").glob("*.parquet")  # by a part that was not finished
            for path in (self._dataset.previous(table) / name, paid, *noted):
                goes = self._carries if table in CAPTION_TABLES else self._mask
                if path.is_file():
                    keep_rows(path, lambda rows, goes=goes: pc.invert(goes(rows)))  # type: ignore[misc]

    def _drop_previous_shards(self) -> None:
        """Take purged pictures out of the outdated shards that wait to be copied from."""
        aside = self._dataset.shards / PREVIOUS_SHARDS
        (aside / PLACES_FILE).unlink(missing_ok=True)
        for path in self._dataset.previous("samples").glob("part-*.parquet"):
            if pc.any(self._carries(read_parquet(path, ["row_id"]))).as_py():
                path.unlink()  # its tar says itself what is left in it
        for tar in aside.glob("*/*.tar"):
            try:
                drop_samples(tar, self._keys)
            except ValueError:
                tar.unlink()  # nobody can say what a damaged one holds

    def _drop_features(self, folder: Path) -> None:
        """Delete the features of each shard that holds a purged key; `sigma encode` makes them again without it."""
        sweep_folder(folder)
        keys = pa.array(sorted(self._keys), pa.string())
        for record in folder.glob(f"*/{RECORD_FILE}"):
            for path in list(record.parent.rglob("*.parquet")):
                if pc.any(pc.is_in(read_parquet(path, ["key"])["key"], value_set=keys)).as_py():
                    path.with_suffix(".tar").unlink(missing_ok=True)
                    path.unlink()


def _is_consistent(dataset: Dataset, step: Job) -> bool:
    """Whether a step's tables were made by the recipe from the tables that are there now. A takedown changes no record,
    so the answer is the same before and after."""
    try:
        return step.state(dataset) in (State.DONE, State.BEGUN)
    except ValueError:
        return False
