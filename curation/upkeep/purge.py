"""Take images out of a dataset for good: out of its tables, its shards, and whatever was kept to be used again."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curation.ingest.takedown_log import TakedownEntry, finished, log_path, read_log, write_log
from curation.shards.files import PICTURES_FILE, PREVIOUS_SHARDS, ShardFiles
from curation.shards.rewriter import drop_samples, placed
from curation.shards.writer import update_index
from curation.upkeep.find import Found, Wanted, find
from curation.upkeep.rewrites import emptied, keep_rows, renumbered, without_captions
from engine import catalog
from engine.ahead import ahead
from engine.counts import read_counts
from engine.dataset import Dataset, as_stored, read_parquet
from engine.job import Job
from engine.names import DIGITS, NOTHING, Held, PartName, made_from, names_in
from engine.paid import paid_files
from engine.part_file import shard_digests
from engine.reduce_job import ReduceJob
from schemas.columns import SHARDS_PER_PART, Cut, cut_of, is_map_table
from schemas.features import RECORD_FILE
from schemas.files import address_of, delete_files, find_files, is_file, remove_folder, sha256_of, sweep_folder
from schemas.recipe import Run
from schemas.strict import DUCKDB_MEMORY
from schemas.tables import schema_of
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
    """The whole command under the dataset's lock; lines for the user as it goes. `wanted`: None only finishes what was
    interrupted. Raises ValueError: as `find` and `purge`."""
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


def purge(dataset: Dataset, steps: Sequence[Job], found: Found, threads: int = 2, memory: str = DUCKDB_MEMORY) -> int:
    """Take out what was found: the intent is logged first, so that a run which is killed can be finished. Returns
    Shards that were rewritten or removed. Raises ValueError: the store keeps what is deleted. Or a table or a shard is
    damaged; `sigma doctor --repair` goes on."""
    if found.entries:
        if dataset.store is not None:
            dataset.store.refuse_versions()
        write_log(dataset, [*read_log(dataset), *found.entries])
    return finish(dataset, steps, threads, memory)


def finish(dataset: Dataset, steps: Sequence[Job], threads: int, memory: str) -> int:
    """Carry out every entry of the log that is not finished, with the lock held and steps of the dataset's own recipe.
    May be called again wherever it stopped."""
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
    """One pass over a dataset. Every step of it can be repeated. New parts are written next to the old ones, each named
    by what it will be made from, and the old ones go last, those of the listing after all others: while one is there,
    `before` says what held before the takedown."""

    def __init__(
        self, dataset: Dataset, steps: Sequence[Job], pending: dict[int, TakedownEntry], threads: int, memory: str
    ) -> None:
        self._dataset, self._steps, self._pending = dataset, steps, pending
        self._threads, self._memory = threads, memory
        self._row_ids = pa.array(sorted(pending), pa.int64())
        heirs = {row: key for entry in pending.values() for row, key in entry.heirs if row not in pending}
        self._inheriting = pa.array(sorted(heirs), pa.int64())
        self._keys = frozenset(entry.image_id for entry in pending.values() if entry.image_id) | {*heirs.values()}
        self._whys = {row_id: entry.why for row_id, entry in pending.items()}
        self._before = Held(dataset, listing_before=True)
        self._written: dict[str, set[PartName]] = {}

    def run(self, feature_folders: Sequence[Path]) -> int:
        dataset = self._dataset
        shards = self._shards()
        if shards or self._waiting_shards():
            ShardFiles().delete_index(dataset)
        delete_files(dataset.report)  # it shows pictures
        for folder in feature_folders:
            self._drop_features(folder)
        order = dict.fromkeys(("listing", "headers", *(table for step in self._steps for table in step.outputs)))
        tables = [table for table in dict.fromkeys([*order, *self._before.tables()]) if self._before.listed(table)]
        numbers = self._parts()
        for table in tables:
            if table not in ("samples", "shard_plan"):
                self._rewrite(table, numbers)
        for table, path in paid_files(dataset, numbers):
            keep_rows(path, table, lambda rows: pc.invert(self._mask(rows)))
        self._rewrite_waiting_shards()
        self._rewrite_shards(shards)
        held = dataset.held()
        for table in reversed(tables):
            stay = {*held.holding(table).values(), *self._written.get(table, ())}
            old = [name.file for name in held.listed(table) if name not in stay and table != "samples"]
            delete_files(*(dataset.folder(table) / file for file in old))
        if (now := dataset.held()).is_whole("samples"):
            update_index(now)
        if dataset.store is None and dataset.catalog.is_file():
            catalog.write_catalog(dataset)  # which names the old files
        return len(shards)

    def _parts(self) -> set[int]:
        """Parts of the listing that hold a purged row, or one that had taken over its caption."""
        numbers, begin, left = set(), 0, sorted({*self._pending, *self._inheriting.to_pylist()})
        counts = read_counts("listing", self._before.paths("listing"))
        for number, part in zip(self._before.parts("listing"), counts, strict=True):
            begin += part.rows
            inside = [row_id for row_id in left if row_id < begin]
            left = left[len(inside) :]
            numbers |= {number} if inside else set()
        return numbers

    def _shards(self) -> list[PartName]:
        """Parts of `samples` that hold a purged row."""
        names, folder = names_in(self._dataset.folder("samples")), self._dataset.folder("samples")
        held = ahead(lambda name: self._carries(read_parquet(folder / name.file, ["row_id"])), names, self._threads)
        return [name for name, mask in zip(names, held, strict=True) if pc.any(mask)]

    def _waiting_shards(self) -> list[Path]:
        """Tars that no part of `samples` names: of a build that was killed, and those that it copies from."""
        known, folder = set[str](), self._dataset.folder("samples")
        for name in names_in(folder):
            known.update(read_parquet(folder / name.file, ["shard"])["shard"].drop_null().unique().to_pylist())
        shards = self._dataset.shards
        return [path for path in find_files(shards, "**/*.tar") if str(path.relative_to(shards)) not in known]

    def _mask(self, table: pa.Table) -> pa.ChunkedArray:
        return pc.is_in(table["row_id"], value_set=self._row_ids)

    def _inherits(self, table: pa.Table) -> pa.ChunkedArray:
        return pc.is_in(table["row_id"], value_set=self._inheriting)

    def _carries(self, table: pa.Table) -> pa.ChunkedArray:
        """The purged rows, and those that carry the caption of one."""
        return pc.or_(self._mask(table), self._inherits(table))

    # -------------------------------------------------------------------------------------------- tables

    def _rewrite(self, table: str, numbers: Container[int]) -> None:
        """Write the parts of a table anew that hold a purged row, or that are made from something else now."""
        dataset, before = self._dataset, self._before
        if cut_of(table) is Cut.WHOLE:
            self._recount(table)
            return
        expected = dataset.held().expected_on_record(table) or []
        reselect = table == "selection" and len(self._inheriting) > 0  # the next build chooses captions anew
        for number, name in before.parts(table).items():
            source = expected[number] if number < len(expected) and before.holding(table).get(number) == name else None
            if table == "listing":
                source = f"{int(name.made_from, 16) + 1:0{DIGITS}x}"
            if number in numbers or not is_map_table(table):
                rows = as_stored(table, read_parquet(dataset.folder(table) / name.file))
                left = self._left(table, rows)
                if reselect or (table in CAPTION_TABLES and pc.any(self._inherits(rows)).as_py()):
                    source = NOTHING  # such a part is not what its inputs make
                if not left.equals(rows):
                    name = PartName.of(dataset.commit_part(table, number, source or name.made_from, left))
                elif source not in (None, name.made_from) and table != "listing":
                    name = PartName.of(dataset.commit_part(table, number, source or "", rows, name.content))
            self._written.setdefault(table, set()).add(name)

    def _left(self, table: str, rows: pa.Table) -> pa.Table:
        """The rows of a part without what is taken out."""
        if table == "selection":
            return without_captions(emptied(rows, self._mask(rows), self._whys), self._inherits(rows))
        if not is_map_table(table):
            return rows.filter(pc.invert(self._mask(rows)))
        return emptied(rows, self._carries(rows) if table in CAPTION_TABLES else self._mask(rows), self._whys)

    def _recount(self, table: str) -> None:
        """Compute a table that only counts, such as the statistics, from what is left; delete it where that cannot
        be."""
        job = next((step for step in self._steps if isinstance(step, ReduceJob) and table in step.outputs), None)
        held = self._dataset.held()
        if job is not None and self._before.is_whole(table) and all(held.is_whole(each) for each in job.inputs):
            job.compute(held, self._memory)
            self._written[table] = set(held.holding(table).values())
        elif not held.is_whole(table):
            remove_folder(self._dataset.folder(table))

    # -------------------------------------------------------------------------------------------- shards

    def _rewrite_shards(self, names: Sequence[PartName]) -> None:
        """Take the rows out of the plan, the tars and `samples`; then put on record what the shards are made from."""
        dataset, table = self._dataset, "shard_plan"
        folder, record = dataset.folder(table), dataset.record(table)
        shards = list((record.shards if record is not None else None) or ())
        expected = dataset.held().expected_on_record(table) or [None]
        for name in self._before.listed(table):
            rows = as_stored(table, read_parquet(folder / name.file))
            left = renumbered(rows.filter(pc.invert(self._carries(rows))))
            inside = range(name.number * SHARDS_PER_PART, min(len(shards), (name.number + 1) * SHARDS_PER_PART))
            if shards[inside.start : inside.stop] == shard_digests(rows, inside):
                shards[inside.start : inside.stop] = shard_digests(left, inside)
            holds = name in self._before.holding(table).values()
            source = expected[0] if holds and expected[0] is not None else name.made_from
            if name in self._before.parts(table).values():
                written = dataset.commit_part(table, name.number, source, left)
                self._written.setdefault(table, set()).add(PartName.of(written))
        samples = dataset.record("samples")
        digest = made_from(samples.job, samples.knobs) if samples is not None else None
        made = {number: digest([shard]) for number, shard in enumerate(shards)} if digest is not None else {}
        held = self._before.holding("samples").values()

        def rewrite(name: PartName) -> None:
            self._rewrite_shard(name, made.get(name.number, name.made_from) if name in held else name.made_from)

        for _ in ahead(rewrite, names, self._threads):
            pass
        if record is not None and shards != record.shards:
            dataset.write_record(table, replace(record, shards=shards))

    def _rewrite_shard(self, name: PartName, source: str) -> None:
        """A shard, then its part of `samples`: what says that it is to be rewritten goes last."""
        path = self._dataset.folder("samples") / name.file
        rows = read_parquet(path)
        keep = rows.filter(pc.invert(self._carries(rows))).to_pylist()
        names = set(rows["shard"].drop_null().to_pylist())
        assert len(names) <= 1, "a part of samples is a shard"
        places, digest = {}, {}
        for tar_name in names:
            tar = self._dataset.shards / tar_name
            if not is_file(tar):
                delete_files(path)  # it is written again with what is left
                return
            places = drop_samples(tar, self._keys)
            if places:
                digest = {"shard_sha256": sha256_of(tar)}
        moved = [row if row["shard"] is None else placed(row, places.get(row["key"], [])) | digest for row in keep]
        left = pa.Table.from_pylist(moved, schema=schema_of("samples"))
        self._dataset.commit_part("samples", name.number, source, left)
        delete_files(path)

    # -------------------------------------------------------------------------------------------- what lies beside

    def _rewrite_waiting_shards(self) -> None:
        """Take purged pictures out of them; what was noted of their places holds no longer."""
        delete_files(self._dataset.shards / PREVIOUS_SHARDS / PICTURES_FILE)
        for tar in self._waiting_shards():
            try:
                drop_samples(tar, self._keys)
            except ValueError:
                delete_files(tar)  # nobody can say what a damaged one holds

    def _drop_features(self, folder: Path) -> None:
        """Delete the features of each shard that holds a purged key; `sigma encode` makes them again without it."""
        if not address_of(folder):
            sweep_folder(folder)
        keys = pa.array(sorted(self._keys), pa.string())
        for record in find_files(folder, f"*/{RECORD_FILE}"):
            for path in find_files(record.parent, "**/*.parquet"):
                if pc.any(pc.is_in(read_parquet(path, ["key"])["key"], value_set=keys)).as_py():
                    delete_files(path.with_suffix(".tar"))
                    delete_files(path)
