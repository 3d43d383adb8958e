"""A stage's data and its folder: which samples it trains on, what it was trained with, and whether it is done."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import yaml

from schemas.shard_index import read_index
from schemas.training import Stage, TrainingRecipe
from training.data.order import BatchOrder, Shape
from training.data.transform import shapes_of
from training.weak_to_strong import parent_weights

RECIPE_FILE = "recipe.yaml"
"""What a stage folder was trained with."""
SPEED_KNOBS = ("micro_batch", "threads", "prefetch", "cache_mb", "max_damaged")
"""Of `data`: they change how fast a batch is made and whether it fits, not what is in it."""


def select_rows(index: pa.Table, where: str | None, stage: str) -> pa.Table:
    """The index rows that a stage trains on, in tar order.

    Raises:
        ValueError: the condition is no valid SQL over the index's columns, or selects nothing.
    """
    if where is not None:
        numbered = index.append_column("index_row", pa.array(range(index.num_rows), pa.int64()))
        with duckdb.connect(":memory:", config={"enable_external_access": "false"}) as connection:
            connection.register("samples", numbered)
            try:
                found = connection.execute(
                    f"select index_row from samples where ({where}) order by index_row"
                ).fetchnumpy()
            except duckdb.Error as error:
                reason = str(error).splitlines()[0]
                raise ValueError(f"stage {stage}: where: {where!r} is no condition on the index: {reason}") from None
        index = index.take(pa.array(found["index_row"]))
    if not index.num_rows:
        raise ValueError(f"stage {stage}: where: {where!r} selects no sample of the index")
    return index


@dataclass(frozen=True)
class StageData:
    """What a stage trains on.

    Attributes:
        rows: of the shard index, in tar order.
        shapes: (height, width) in px of each row's training picture.
        order: the batches.
    """

    rows: pa.Table
    shapes: Sequence[Shape]
    order: BatchOrder


def pixel_multiple(recipe: TrainingRecipe, stage: Stage) -> int:
    """What a training picture's sides are multiples of, px: whole patches, and whole groups under compression."""
    return 8 * recipe.model.patch_size * (stage.kv_compression.ratio if stage.kv_compression else 1)


def stage_data(recipe: TrainingRecipe, stage: Stage) -> StageData:
    """A stage's rows, their shapes and the order of the batches.

    Raises:
        ValueError: there is no index, or the condition selects less than one batch.
    """
    rows = select_rows(read_index(recipe.dataset / "shards"), stage.where, stage.name)
    shapes = shapes_of(rows, stage.resolution, pixel_multiple(recipe, stage), stage.multi_aspect)
    batch = recipe.data_of(stage).batch
    if stage.where is not None and rows.num_rows < batch:
        raise ValueError(
            f"stage {stage.name}: where: {stage.where!r} selects {rows.num_rows} samples, "
            f"less than one batch of {batch}; widen the condition or lower the batch"
        )
    order = BatchOrder(rows["shard"].to_pylist(), shapes, batch, recipe.seed, recipe.data.window)
    return StageData(rows, shapes, order)


def identity(recipe: TrainingRecipe, stage: Stage, rows: pa.Table) -> dict[str, Any]:
    """Everything the numbers of a stage depend on, as plain values."""
    whole = recipe.resolved()
    digest = hashlib.sha256()
    for column in ("image_id", "shard"):
        digest.update("\n".join(rows[column].to_pylist()).encode())
    parts = {
        key: whole[key]
        for key in ("seed", "model", "latents", "text", "optimizer", "data", "ema", "precision", "exact_sums")
    }
    for knob in SPEED_KNOBS:
        del parts["data"][knob]
    stage_knobs = stage.model_dump(mode="json")
    del stage_knobs["steps"]  # a stage may be trained longer
    path = parent_weights(recipe, stage)
    return parts | {
        "stage": stage_knobs | {"parent": recipe.parent_of(stage)},
        "parent_weights": path.name if path else None,
        "dataset": {"samples": rows.num_rows, "sha256": digest.hexdigest()[:16]},
    }


def check_identity(folder: Path, expected: dict[str, Any]) -> None:
    """Write what a stage is trained with into its new folder, or compare with what is there.

    Raises:
        ValueError: the folder holds a stage that was trained with something else; the knob is named.
    """
    path = folder / RECIPE_FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".partial")
        aside.write_text(yaml.safe_dump(expected, sort_keys=False, allow_unicode=True), encoding="utf-8")
        aside.replace(path)
        return
    stored = _flat(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    wanted = _flat(expected)
    for key in [*wanted, *(key for key in stored if key not in wanted)]:
        if stored.get(key) != wanted.get(key):
            raise ValueError(
                f"{folder}: was trained with {key} = {stored.get(key)}, the recipe now has {wanted.get(key)}; "
                "set it back, or choose another out, or remove this folder to train the stage anew"
            )


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, dict) and values:
        parts = [_flat(value, f"{prefix}{key}.") for key, value in values.items()]
        return {key: value for part in parts for key, value in part.items()}
    return {prefix.removesuffix("."): values}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process alone.

    Raises:
        ValueError: another process has it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written ({error.strerror}); choose another out") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another process is training here; wait for it or choose another out") from None
        yield
