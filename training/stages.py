"""A stage's data and its folder: the samples it trains on, and the lock of the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.commit import file_lock
from schemas.shard_index import INDEX_SCHEMA, ShardIndex
from schemas.training import Stage, TrainingRecipe
from training.data.order import BatchOrder, Shapes
from training.data.selection import Selection
from training.data.transform import shapes_of


def select_rows(index: ShardIndex, where: str | None, stage: str) -> Selection:
    """The index rows that a stage trains on, in tar order.

    Raises:
        ValueError: the condition is no valid SQL over the index's columns, or selects nothing.
    """
    numbers = None
    if where is not None:
        try:
            numbers = _rows_where(index, where)
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"stage {stage}: where: {where!r} is no condition on the index: {reason}") from None
    rows = Selection(index, numbers)
    if not rows.num_rows:
        raise ValueError(f"stage {stage}: where: {where!r} selects no sample of the index")
    return rows


def _rows_where(index: ShardIndex, where: str) -> NDArray[np.int32]:
    """Numbers of the rows that meet the condition, ascending."""
    query = f"select index_row from samples where ({where})"
    with duckdb.connect(":memory:", config={"enable_external_access": "false"}) as connection:
        whole = INDEX_SCHEMA.append(pa.field("index_row", pa.int32()))
        connection.register("samples", whole.empty_table())
        connection.execute(query)  # an error here knows all columns
        text = where.lower()
        # A column is read only if the condition names it; the table's name or COLUMNS(...) may mean any.
        named = [name for name in INDEX_SCHEMA.names if name in text or "columns" in text or "samples" in text]
        schema = pa.schema([INDEX_SCHEMA.field(name) for name in named]).append(whole.field("index_row"))
        unreadable: list[ValueError] = []

        def batches() -> Iterator[pa.RecordBatch]:
            starts = index.part_starts[:-1].tolist()
            try:
                for start, part in zip(starts, index.parts(named or ["width"]), strict=True):
                    numbers = pa.array(np.arange(start, start + part.num_rows, dtype=np.int32))
                    yield from part.select(named).append_column("index_row", numbers).cast(schema).to_batches()
            except ValueError as error:  # DuckDB would pass on its words, but as if the condition were wrong
                unreadable.append(error)
                raise

        samples: Any = pa.RecordBatchReader.from_batches(schema, batches())
        try:
            connection.register("samples", samples.read_all() if "samples" in text else samples)  # it reads once only
            return np.sort(np.asarray(connection.execute(query).fetchnumpy()["index_row"]))
        except (duckdb.Error, pa.ArrowInvalid):
            if unreadable:
                raise unreadable[0] from None
            raise


@dataclass(frozen=True)
class StageData:
    """What a stage trains on.

    Attributes:
        rows: of the shard index, in tar order.
        shapes: (height, width) in px of each row's training picture.
        order: the batches.
    """

    rows: Selection
    shapes: Shapes
    order: BatchOrder


def pixel_multiple(recipe: TrainingRecipe, stage: Stage) -> int:
    """Px that the sides of a training picture are multiples of: whole patches, and whole groups under compression."""
    return recipe.model.patch_px * (stage.kv_compression.ratio if stage.kv_compression else 1)


def stage_data(recipe: TrainingRecipe, stage: Stage) -> StageData:
    """A stage's rows, their shapes and the order of the batches.

    A stage without a condition may have fewer samples than a batch: it repeats them, each time under other noise.

    Raises:
        ValueError: there is no index, or the condition selects less than one batch.
    """
    rows = select_rows(ShardIndex(recipe.dataset / "shards"), stage.where, stage.name)
    batch = recipe.data_of(stage).batch
    if stage.where is not None and rows.num_rows < batch:
        raise ValueError(
            f"stage {stage.name}: where: {stage.where!r} selects {rows.num_rows} samples, "
            f"less than one batch of {batch}; widen the condition or lower the batch"
        )
    shapes = shapes_of(rows, stage.resolution, pixel_multiple(recipe, stage), stage.multi_aspect)
    weights = rows.weights() if recipe.data.balance_concepts else None
    if weights is not None and (weights == 1).all():
        raise ValueError(
            "data.balance_concepts: every sample of the stage weighs 1; build the dataset with balance.most_images, or "
            "set data.balance_concepts=false"
        )
    order = BatchOrder(rows.codes("shard"), shapes, batch, recipe.seed, recipe.data.window, weights)
    return StageData(rows, shapes, order)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process alone.

    Raises:
        ValueError: another process has it, or it cannot be written.
    """

    def busy(holder: str) -> str:
        return f"{folder}: {holder} is training here; wait for it or choose another out"

    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(folder / ".lock", busy))
        except OSError as error:
            raise ValueError(f"{folder}: cannot be written ({error.strerror}); choose another out") from None
        yield
