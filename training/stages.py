"""A stage's data and its folder: the samples it trains on, and the lock of the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from schemas.commit import file_lock
from schemas.locations import is_remote
from schemas.shard_index import ShardIndex
from schemas.training import Stage, TrainingRecipe
from training.data.cache import bring
from training.data.order import BatchOrder, Shapes
from training.data.selection import Selection, select_rows
from training.data.tars import Copies
from training.data.transform import shapes_of
from training.data.usable import Usable, held_out, without_enlarged, without_repeated


def copies_of(recipe: TrainingRecipe) -> Copies | None:
    """Where copies of a dataset in a store are kept; None for a folder."""
    return Copies.of(recipe.dataset, recipe.dataset_folder) if is_remote(recipe.dataset) else None


@dataclass(frozen=True)
class StageData:
    """What a stage trains on."""

    rows: Selection
    """Of the shard index, in tar order."""
    shapes: Shapes
    """(height, width) in px of each row's training picture."""
    order: BatchOrder
    """The batches."""
    held: Usable | None = None
    """The pictures that are held out for validation; None where none are."""
    notes: tuple[str, ...] = ()
    """Sentences about what is held or left out, enlarged or repeated."""


def pixel_multiple(recipe: TrainingRecipe, stage: Stage) -> int:
    """Px that the sides of a training picture are multiples of: whole patches, and whole groups under compression."""
    return recipe.model.patch_px * (stage.kv_compression.ratio if stage.kv_compression else 1)


def stage_data(recipe: TrainingRecipe, stage: Stage) -> StageData:
    """A stage's rows, their shapes and the order of the batches. A stage without a condition may have fewer samples
    than a batch: it repeats them, each time under other noise. Raises ValueError: there is no index, the condition
    selects less than one batch, or limits leave nothing."""
    if (copies := copies_of(recipe)) is not None:
        bring(copies)
    rows = select_rows(ShardIndex(recipe.dataset_folder / "shards"), stage.where, stage.name)
    knobs = recipe.data_of(stage)
    if knobs.captions == "toss" and rows.tars is not None:
        raise ValueError(
            "data.captions: toss chooses between a raw and a synthetic caption, and tars that sigma index read have "
            "one for each picture; set data.captions=mix, or build a dataset from them"
        )
    rows, held = _split(recipe, stage, rows)
    num_rows, batch = rows.num_rows, knobs.batch
    if stage.where is not None and rows.num_rows < batch:
        raise ValueError(
            f"stage {stage.name}: where: {stage.where!r} selects {rows.num_rows} samples, "
            f"less than one batch of {batch}; widen the condition or lower the batch"
        )
    found = without_enlarged(_shaped(recipe, stage, rows), knobs.max_upscale)
    found = without_repeated(found, knobs)
    rows, shapes, notes = found.rows, found.shapes, found.notes
    if knobs.captions == "toss":
        notes = (
            f"captions are tossed anew in every epoch, {knobs.synthetic_share:.0%} synthetic, not as mixed",
            *notes,
        )
    if held is not None:
        notes = (
            f"{held.rows.num_rows:,} of {held.rows.num_rows + num_rows:,} pictures are held out for validation",
            *notes,
        )
    weights = rows.weights() if recipe.data.balance_concepts else None
    if weights is not None and (weights == 1).all():
        raise ValueError(
            "data.balance_concepts: every sample of the stage weighs 1; build the dataset with balance.most_images, or "
            "set data.balance_concepts=false"
        )
    order = BatchOrder(rows.codes("shard"), shapes, batch, recipe.seed, knobs.window, weights, knobs.lanes)
    if order.num_shards < knobs.lanes:
        notes = (
            *notes,
            f"data.lanes is {knobs.lanes} and the stage reads {order.num_shards} shards, so nodes share them",
        )
    return StageData(rows, shapes, order, held, notes)


def _shaped(recipe: TrainingRecipe, stage: Stage, rows: Selection) -> Usable:
    """Rows with the shapes of their training pictures."""
    return Usable(rows, shapes_of(rows, stage.resolution, pixel_multiple(recipe, stage), stage.multi_aspect))


def _split(recipe: TrainingRecipe, stage: Stage, rows: Selection) -> tuple[Selection, Usable | None]:
    """The rows that are trained on, and those that are held out. Raises ValueError: one of the two would be empty."""
    share = recipe.validation.share
    if not share:
        return rows, None
    held = held_out(rows, share)
    if held.all() or not held.any():
        raise ValueError(
            f"stage {stage.name}: validation.share: {share} holds out {held.sum():,} of {len(held):,} pictures; "
            f"{'lower' if held.all() else 'raise'} it"
        )
    return rows.where(~held), _shaped(recipe, stage, rows.where(held))


@contextmanager
def locked(folder: Path, place: str = "") -> Iterator[None]:
    """Hold a run's folder for this process alone, and its place where that is in a store. Raises ValueError: another
    process has it, or it cannot be written."""

    def busy(holder: str) -> str:
        return f"{folder}: {holder} is training here; wait for it or choose another out"

    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(folder / ".lock", busy))
        except OSError as error:
            raise ValueError(f"{folder}: cannot be written ({error.strerror}); choose another out") from None
        if is_remote(place):
            from engine.place.lease import leased
            from engine.place.store import Store

            store = Store.at(place)
            if store.find("") is not None:
                raise ValueError(f"{place}: is a file; choose another out")
            stack.enter_context(leased(store, busy))
        yield
