"""Mend a damaged dataset: take away what is broken and make it again, and touch nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation import build as pipeline
from curation.shards import writer as shard_writer
from curation.shards.files import ShardFiles
from curation.sources import read_original
from curation.upkeep.doctor import Finding, check_dataset
from curation.upkeep.purge import finish
from engine import catalog
from engine.dataset import Dataset, read_parquet
from engine.job import Job
from engine.ledger import COUNTS
from engine.names import PartName, names_in
from engine.paid import paid_folder, take_back
from schemas.files import delete_files, is_file
from schemas.recipe import DataRecipe
from schemas.texts import counted

MOST_NAMED = 5
"""Inputs that a line names."""


def repair(recipe: DataRecipe, steps: Sequence[Job], observer: pipeline.Observer) -> Iterator[str]:
    """Mend what `sigma doctor` finds, with the dataset's own recipe; a line for each thing done or not to be done.
    Damaged parts are deleted and computed again from what is whole. A damaged shard is written again from the
    originals; of samples whose original is gone, from what the damaged shard still holds. A part of ingest whose
    originals are gone is left as it is: computing it again would lose more. Raises ValueError, PartFailed, OSError: as
    `pipeline.build`."""
    dataset = Dataset(recipe.out_path())
    begun = [step for step in steps if any(_is_there(dataset, table) for table in step.outputs)]
    bad = [finding for finding in check_dataset(dataset.root, recipe.run.threads) if not finding.fine]
    if not bad:
        yield "nothing is damaged"
        return
    numbers = set()
    with dataset.lock():
        dataset.sweep()
        delete_files(dataset.root / COUNTS)  # so that the ledger is read again
        for finding in bad:
            removed, kept = _remove(dataset, finding)
            yield from kept
            if finding.shard is not None:
                numbers.add(finding.shard)
            if removed:
                yield f"{finding.subject}: took away {', '.join(removed[:MOST_NAMED])}" + _more(len(removed))
        numbers |= _missing_samples(dataset, recipe, begun)
        yield from _mend_shards(dataset, recipe, begun, numbers)
        finish(dataset, steps, recipe.run.threads, recipe.run.duckdb_memory)
    before_shards = [step for step in begun if "samples" not in step.outputs]
    if before_shards:
        yield from _build(recipe, before_shards, observer)
    with dataset.lock():
        yield from _mend_shards(dataset, recipe, begun, _missing_samples(dataset, recipe, begun))
    if len(before_shards) < len(begun):
        yield from _build(recipe, begun, observer)
    catalog.write_catalog(dataset)


def _is_there(dataset: Dataset, table: str) -> bool:
    return is_file(dataset.record_path(table)) or bool(names_in(dataset.folder(table)))


def _more(count: int) -> str:
    return f" and {count - MOST_NAMED:,} more" if count > MOST_NAMED else ""


def _build(recipe: DataRecipe, steps: Sequence[Job], observer: pipeline.Observer) -> Iterator[str]:
    for result in pipeline.build(recipe, steps, observer).results:
        yield f"{result.job}: made {result.computed:,} of {result.parts:,} parts again"


def _remove(dataset: Dataset, finding: Finding) -> tuple[list[str], list[str]]:
    """Delete the damaged files that can be made again: (those deleted, lines about those that stay)."""
    if finding.lost:
        return [], [f"{finding.subject}: cannot be mended: {finding.text}"]
    removed, lines = [], []
    for path in finding.remove:
        gone = _lost_inputs(dataset, path)
        if gone:
            lines.append(
                f"{path}: cannot be made again, {len(gone):,} originals are gone: {', '.join(gone[:MOST_NAMED])}"
                + _more(len(gone))
            )
            continue
        delete_files(path)
        if finding.subject == "paid":
            take_back(dataset, str(path.parent.relative_to(paid_folder(dataset, ""))), path)
        removed.append(str(path.relative_to(dataset.root)))
    return removed, lines


def _lost_inputs(dataset: Dataset, path: Path) -> list[str]:
    """Inputs that a damaged part of ingest was made from and that are no more as they were."""
    if path.parent not in (dataset.tables / "proxies", dataset.tables / "images"):
        return []
    name = PartName.parse(path.name)
    if name is None:
        return []
    number = name.number
    known: dict[int, Any] = {}
    with suppress(ValueError):  # where images is the damaged one, every input is asked for
        known = {row["row_id"]: row for row in dataset.read_part("images", number).to_pylist()}
    gone = []
    for row in dataset.read_part("listing", number).to_pylist():
        image = known.get(row["row_id"])
        if image is not None and image["reason"] is not None:
            continue
        try:
            data = read_original(row["source"], row["member"], row["byte_offset"], row["num_bytes"])
        except OSError:
            gone.append(f"{row['source_name']}/{row['member']}")
            continue
        if image is not None and hashlib.sha256(data).hexdigest() != image["sha256"]:
            gone.append(f"{row['source_name']}/{row['member']} (changed)")
    return gone


# ------------------------------------------------------------------------------------------------ shards


def _missing_samples(dataset: Dataset, recipe: DataRecipe, steps: Sequence[Job]) -> set[int]:
    """Shards of the plan that have no part of `samples`, in a dataset whose shards were begun."""
    return set(shard_writer.map_job(recipe, dataset).missing(dataset.held())) if _is_planned(dataset, steps) else set()


def _is_planned(dataset: Dataset, steps: Sequence[Job]) -> bool:
    held = dataset.held()
    is_there = len(held.parts("shard_plan")) == held.num_parts("shard_plan")
    return is_there and any("samples" in step.outputs for step in steps)


def _mend_shards(dataset: Dataset, recipe: DataRecipe, steps: Sequence[Job], numbers: set[int]) -> Iterator[str]:
    """Write shards again where the plan is there; the index is written by the build that follows."""
    if not numbers or not _is_planned(dataset, steps):
        return
    telling = recipe.model_copy(update={"shard": recipe.shard.model_copy(update={"drop_lost": True})})
    mending = shard_writer.map_job(telling, dataset)
    held = dataset.held()
    ShardFiles().release(dataset, held, [name for name in held.listed("samples") if name.number in numbers])
    for task in mending.tasks(dataset.held(), numbers):
        number = task.number
        mending.run_part(dataset, mending.build, task, lambda *_: None)
        rows = dataset.read_part("samples", number)
        lost = [row for row in rows.to_pylist() if row["reason"] is not None]
        names = _names(dataset, [row["row_id"] for row in lost])
        yield f"shard {number}: written again, {counted(rows.num_rows - len(lost), 'sample')}"
        if lost:
            yield (
                f"shard {number}: lost {counted(len(lost), 'sample')}, of which neither the original is left nor "
                f"a whole copy in the shard: {', '.join(names[:MOST_NAMED])}" + _more(len(names))
            )
    if (held := dataset.held()).is_whole("samples"):
        ShardFiles().delete_outdated(held)


def _names(dataset: Dataset, row_ids: list[int]) -> list[str]:
    wanted, names = pa.array(row_ids, pa.int64()), []
    for path in dataset.parts("listing") if row_ids else ():
        rows = read_parquet(path, ["row_id", "source_name", "member"])
        for row in rows.filter(pc.is_in(rows["row_id"], value_set=wanted)).to_pylist():
            names.append(f"{row['source_name']}/{row['member']}")
    return names
