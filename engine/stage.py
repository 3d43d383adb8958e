"""A map job: part n of its inputs becomes part n of its outputs, same rows, same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from engine.dataset import (
    CONTENT_KEY,
    DIGEST_KEY,
    Dataset,
    commit_table,
    content_digest,
    digest_of,
    read_parquet,
    restore_shard,
    schema_of,
)
from engine.journal import Journal
from schemas import tables
from schemas.strict import fingerprint

Progress = Callable[[int], None]
"""Called by a worker with the number of rows it has finished since the last call."""


class Finished(int):
    """A number of rows, and what else a worker has counted over them (images, tokens, seconds by what they went to)."""

    counts: Mapping[str, float]

    def __new__(cls, rows: int, **counts: float) -> Finished:
        """Any names; the sums over all workers end in `runs/`."""
        made = super().__new__(cls, rows)
        made.counts = counts
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return _finished, (int(self), dict(self.counts))


def _finished(rows: int, counts: Mapping[str, float]) -> Finished:
    return Finished(rows, **counts)


def counts_of(rows: int) -> Mapping[str, float]:
    """What was counted over some finished rows; nothing where a worker tells the rows alone."""
    return rows.counts if isinstance(rows, Finished) else {}


class Worker(Protocol):
    """What a stage builds once per process (weights are loaded here) and then calls once per part."""

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:
        """Tables in, tables out, by name. A bad image is a row with a reason, never an exception."""
        ...


class PayingWorker(Protocol):
    """The worker of a stage that `reuses`: what it pays for goes to the journal at once."""

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress, journal: Journal) -> Mapping[str, pa.Table]:
        """As `Worker`; `journal` holds what this part has paid for before it was interrupted."""
        ...


@dataclass(frozen=True)
class Stage:
    """A map job as data: it can be sent to any machine, and compared with what made an existing table."""

    job: str
    """A verb of `schemas.recipe.JOBS`; `headers`, which no build runs, is none of them."""
    outputs: tuple[str, ...]
    """Map tables it writes, one row (or `rows_per_input`) per input row each. The last one committed marks the part
    as done."""
    inputs: tuple[str, ...]
    """Tables it reads. Of a map table a worker gets part n; of a reduce table the rows
    whose row_id lies in that part."""
    build: Callable[[], Worker | PayingWorker]
    """Makes the worker; must be picklable (a `functools.partial` of a class and a recipe section)."""
    knobs: Mapping[str, Any]
    """The part of the recipe it depends on, keyed by dotted path."""
    rows_per_input: int = 1
    parts_by: str = "row_id"
    """How the first input is cut: 'row_id' by the parts of a map table, or the column of a reduce table whose value n
    makes part n ('shard_id')."""
    reuses: bool = False
    """Hand the worker what it computed for this part before as `<table>.previous`, so that it can take rows over that
    cost too much to compute again, and a journal, in which it notes such rows before the part is whole (a
    `PayingWorker`). It has one table; where that has a `reason` column, rows without a reason outlive a rule that
    drops them."""
    max_failed_share: float | None = None
    """Of the rows that were asked about, how many may have a reason in place of a result before the job stops at its
    end (see `engine.failed_rows`); None is all. Changes no row."""
    workers: int | None = None
    """Workers at once; None is as many as the runner has for any stage. Changes no row, as `num_gpus`."""
    num_gpus: float | None = 0
    """GPUs that each worker holds for itself, a part of one where it is under 1; None takes one where there are any
    and none where there are none."""
    drops: tuple[str, ...] = ()
    """Map tables that it writes with other knobs: one that is there belongs to rows which are no longer."""
    needs: tuple[Callable[[], object], ...] = ()
    """See, one each, whether what a worker will load is on the machine: the functions that the worker finds it by, so
    that they say the same. They load nothing and raise `ValueError`; see `engine.preflight`. Picklable, as `build`."""

    def run_part(self, dataset: Dataset, worker: Callable[[], Any], number: int, progress: Progress) -> bool:
        """See `run_part`; this is how a runner calls it."""
        return run_part(dataset, self, worker, number, progress)


@contextmanager
def naming(image: str) -> Iterator[None]:
    """Make an error inside name the image it happened on; the runner shows it."""
    try:
        yield
    except Exception as error:
        error.add_note(f"image: {image}")
        raise


def run_part(dataset: Dataset, stage: Stage, worker: Callable[[], Any], number: int, progress: Progress) -> bool:
    """Compute and commit one part, unless an outdated version of it was computed from the very same inputs.

    Args:
        worker: gives the worker, and is only called when there is something to compute.

    Returns:
        True where it was computed, False where the old part was taken over.
    """
    inputs, digest = read_inputs(dataset, stage, number)
    num_rows = inputs[stage.inputs[0]].num_rows
    if take_over(dataset, stage, number, digest):
        progress(num_rows)
        return False
    if stage.reuses:
        outputs = _compute_on(dataset, stage, worker(), number, inputs, progress)
    else:
        outputs = worker()(inputs, progress)
        check_rows(stage, inputs[stage.inputs[0]], outputs)
    for table in stage.outputs:
        content = content_digest(as_stored(table, outputs[table]))
        commit_table(
            dataset.part(table, number),
            outputs[table],
            schema_of(table),
            {DIGEST_KEY.decode(): digest, CONTENT_KEY.decode(): content},
        )
    if stage.reuses:
        Journal.of(dataset, stage.outputs[0], number).forget()
    return True


def _compute_on(
    dataset: Dataset, stage: Stage, worker: PayingWorker, number: int, inputs: dict[str, pa.Table], progress: Progress
) -> Mapping[str, pa.Table]:
    """Compute a part of which some rows may have been paid for already; none of them is lost."""
    (table,) = stage.outputs
    journal = Journal.of(dataset, table, number)
    paid = read_paid(dataset, table, number)
    if paid is not None:
        inputs[f"{table}.previous"] = paid
    outputs = worker(inputs, progress, journal)
    check_rows(stage, inputs[stage.inputs[0]], outputs)
    if "reason" in schema_of(table).names:
        noted = journal.rows()
        keep_paid(dataset, table, number, noted if paid is None else pa.concat_tables([paid, noted]), outputs[table])
    return outputs


def read_inputs(dataset: Dataset, stage: Stage, number: int) -> tuple[dict[str, pa.Table], str]:
    """The input tables of a part, and the digest that names everything its output depends on."""
    inputs: dict[str, pa.Table] = {}
    names: list[str] = []
    for table in stage.inputs:
        if stage.parts_by != "row_id":
            inputs[table] = dataset.read_range(table, stage.parts_by, number, number)
            names.append(content_digest(inputs[table]))
        elif tables.is_map_table(table):
            inputs[table] = dataset.read_part(table, number)
            names.append(digest_of(dataset.part(table, number), CONTENT_KEY) or "")
        else:
            row_ids = inputs[stage.inputs[0]]["row_id"]
            inputs[table] = dataset.read_range(table, "row_id", row_ids[0].as_py(), row_ids[-1].as_py())
            names.append(content_digest(inputs[table]))
    return inputs, _digest(stage, names)


def input_digest(dataset: Dataset, stage: Stage, number: int) -> str:
    """The digest that `read_inputs` gives, without reading map tables: their footers name what they hold."""
    names = []
    if stage.parts_by == "row_id":
        row_ids = dataset.read_part(stage.inputs[0], number, ["row_id"])["row_id"]
        first, last = row_ids[0].as_py(), row_ids[-1].as_py()
    else:
        first = last = number
    for table in stage.inputs:
        if stage.parts_by == "row_id" and tables.is_map_table(table):
            names.append(digest_of(dataset.part(table, number), CONTENT_KEY) or "")
        else:
            names.append(content_digest(dataset.read_range(table, stage.parts_by, first, last)))
    return _digest(stage, names)


def _digest(stage: Stage, names: list[str]) -> str:
    return fingerprint([stage.job, dict(stage.knobs), dict(zip(stage.inputs, names, strict=True))])


def take_over(dataset: Dataset, stage: Stage, number: int, digest: str) -> bool:
    """Move the outdated part back into place when it was computed from the same inputs."""
    old = [dataset.previous(table) / dataset.part(table, number).name for table in stage.outputs]
    if not all(path.is_file() and digest_of(path) == digest for path in old):
        return False
    if "samples" in stage.outputs:
        shards = set(read_parquet(old[-1], ["shard"])["shard"].drop_null().to_pylist())
        if not all(restore_shard(dataset, shard) for shard in shards):
            return False
    for table, path in zip(stage.outputs, old, strict=True):
        target = dataset.part(table, number)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    return True


def read_paid(dataset: Dataset, table: str, number: int) -> pa.Table | None:
    """What was paid for in earlier versions of a part: its outdated version, and the rows that fell out before."""
    paths = (dataset.previous(table) / dataset.part(table, number).name, dataset.paid(table, number))
    found = [read_parquet(path).replace_schema_metadata(None) for path in paths if path.is_file()]
    # of a table that was written before a column was added, that column is null
    return pa.concat_tables([schema_of(table).empty_table(), *found], promote_options="default") if found else None


def keep_paid(dataset: Dataset, table: str, number: int, paid: pa.Table, output: pa.Table) -> None:
    """Put aside the paid rows that a new version of a part no longer holds, so that they outlive the rule that
    dropped them: loosening it again pays nothing."""
    held = pa.array(output.filter(output["reason"].is_null())["row_id"])
    dropped = paid.filter(pc.and_(paid["reason"].is_null(), pc.invert(pc.is_in(paid["row_id"], value_set=held))))
    if dropped.num_rows:
        commit_table(dataset.paid(table, number), dropped, schema_of(table), {})
    else:
        dataset.paid(table, number).unlink(missing_ok=True)


def check_rows(stage: Stage, rows: pa.Table, outputs: Mapping[str, pa.Table]) -> None:
    """Refuse a stage that adds, drops or reorders a row.

    Raises:
        RuntimeError: it did; this is a defect of the stage, not of the data.
    """
    expected = [row for row in rows["row_id"].to_pylist() for _ in range(stage.rows_per_input)]
    if set(outputs) != set(stage.outputs):
        raise RuntimeError(f"{stage.job}: wrote {sorted(outputs)}, declared {sorted(stage.outputs)}")
    for table, output in outputs.items():
        found = output["row_id"].to_pylist()
        if found != expected:
            raise RuntimeError(
                f"{stage.job}: {table} must hold the rows of {stage.inputs[0]} in their order; "
                f"it has {len(found)} rows where {len(expected)} belong" + _first_difference(found, expected)
            )


def _first_difference(found: list[int], expected: list[int]) -> str:
    for position, (have, want) in enumerate(zip(found, expected, strict=False)):
        if have != want:
            return f", and at position {position} row {have} where row {want} belongs"
    return ""


def as_stored(table: str, rows: pa.Table) -> pa.Table:
    """Rows in the types of the table's contract: a list that was read back names its items otherwise."""
    return rows.select(schema_of(table).names).cast(schema_of(table))
