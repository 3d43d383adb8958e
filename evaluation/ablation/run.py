"""Trains and measures the cells of an experiment; what is finished is not done again."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from engine.dataset import commit_table
from evaluation.ablation.cells import Cell, Experiment, check_equal_batches, training_recipe
from evaluation.ablation.operators import remodelling
from evaluation.ruler import Ruler
from schemas.ablation import AblationRecipe
from schemas.seal import read_json, write_json
from schemas.strict import fingerprint
from schemas.training import SCRATCH, Stage, TrainingRecipe, is_path
from schemas.unread import is_unread, why_damaged
from training.checkpoint import load_checkpoint
from training.checkpoint_files import checkpoints, latest_checkpoint
from training.data.chance import Chance
from training.data.loader import Loader
from training.encoders.make import Encoders
from training.features import stage_features
from training.identity import RECIPE_FILE
from training.inputs import model_inputs
from training.metrics import METRICS_FILE, read_metrics
from training.model import PixArt
from training.optim.gradients import accumulate_gradients, fixed_threads
from training.parallel.distributed import world
from training.reading import source_of
from training.stages import locked, stage_data
from training.timing import Work, paired
from training.train import StageProgress, begin_state, train
from training.weak_to_strong import model_config

log = logging.getLogger(__name__)

CELL_FILE, MEASURED_FILE, TIMES_FILE = "cell.json", "measured.json", "times.json"
UNTRAINED = "./weights-that-are-not-yet"
OnProgress = Callable[[StageProgress], None]
Row = dict[str, Any]

COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in ("experiment", "cell")),
        *((name, pa.int64()) for name in ("seed", "step")),
        *((name, pa.float64()) for name in ("loss", "val_loss", "fid", "kid", "precision", "recall", "clip_score")),
        ("num_pictures", pa.int64()),
        *((name, pa.string()) for name in ("network", "protocol", "batches")),
        *((name, pa.float64()) for name in ("seconds_per_step", "seconds_ratio")),
    ]
)
"""A row for each cell, seed and point. `val_loss` is on pictures that were held out, where the training recipe does so.
`batches` is equal for cells that saw equal batches. `seconds_ratio` is over the first cell of the experiment, measured
in turn with it; on a CPU seconds are those of all cores."""


def run_experiment(
    base: TrainingRecipe, recipe: AblationRecipe, experiment: Experiment, on_progress: OnProgress | None = None
) -> tuple[list[Row], dict[str, str]]:
    """Train, measure and time every cell, and write `<experiment>.parquet` into the ablation's folder. Returns rows of
    `COLUMNS`, and why something could not be measured. Raises ValueError: anything the user can mend, in one line."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("sigma ablate is one process; start it without torchrun")
    with locked(recipe.out):
        recipes = recipes_of(
            base, recipe, experiment, UNTRAINED
        )  # what is impossible is refused before anything is trained
        batches = {
            seed: check_equal_batches({cell.name: recipes[cell.name, seed] for cell in experiment.cells})
            for seed in recipe.seeds
        }
        first = recipes[experiment.cells[0].name, recipe.seeds[0]]
        ruler = Ruler(first, first.stages[0], recipe.pictures, recipe.clip)
        recipes = recipes_of(base, recipe, experiment, parent_of(base, experiment.stage, on_progress))
        first = recipes[experiment.cells[0].name, recipe.seeds[0]]
        rows = []
        for seed in recipe.seeds:
            for cell in experiment.cells:
                facts = {"experiment": experiment.name, "cell": cell.name, "seed": seed, "batches": batches[seed]}
                points = trained_cell(recipes[cell.name, seed], cell, ruler, recipe, on_progress)
                rows += [facts | point for point in points]
                log.info(
                    "%s, %s, seed %d: validation loss %.4f", experiment.name, cell.name, seed, points[-1]["val_loss"]
                )
        for cell in experiment.cells:
            times = timed_cell(
                first, experiment.cells[0], recipes[cell.name, recipe.seeds[0]], cell, recipe.timing_rounds
            )
            rows = [row | times if row["cell"] == cell.name else row for row in rows]
        table = pa.Table.from_pylist(rows, COLUMNS)
        commit_table(recipe.out / f"{experiment.name}.parquet", table, COLUMNS, {})
    return table.to_pylist(), ruler.missing


def recipes_of(
    base: TrainingRecipe, recipe: AblationRecipe, experiment: Experiment, parent: str
) -> dict[tuple[str, int], TrainingRecipe]:
    return {
        (cell.name, seed): training_recipe(base, recipe, experiment, cell, seed, parent)
        for seed in recipe.seeds
        for cell in experiment.cells
    }


def parent_of(base: TrainingRecipe, stage: Stage, on_progress: OnProgress | None) -> str:
    """What all cells start from; the stages that lead to it are trained first, where they are not."""
    chain, name = [], base.parent_of(stage)
    while not (name == SCRATCH or is_path(name)):
        chain.append(base.stage_named(name))
        name = base.parent_of(chain[-1])
    for before in reversed(chain):
        train(base, only_stage=before.name, on_progress=on_progress)
    if not chain:
        return name
    last = latest_checkpoint(base.stage_folder(chain[0]))
    assert last is not None
    return str(last[1].absolute())


def trained_cell(
    cell_recipe: TrainingRecipe, cell: Cell, ruler: Ruler, recipe: AblationRecipe, on_progress: OnProgress | None
) -> list[Row]:
    """One cell and seed to its end, and a row for each of its points."""
    stage, seed = cell_recipe.stages[0], cell_recipe.seed
    remodel = remodelling(cell.operator, seed)

    def renamed(at: StageProgress) -> None:
        if on_progress is not None:
            on_progress(replace(at, stage=f"{cell.name}, seed {seed}"))

    folder = cell_recipe.stage_folder(stage)
    check_measured_alike(folder, cell_recipe, cell)
    train(cell_recipe, on_progress=renamed, remodel=remodel)
    losses = {line["step"]: line for line in read_metrics(folder) if "val_loss" in line}
    point = cell_recipe.validation.every
    if lost := [step for step in range(point, stage.steps + 1, point) if step not in losses]:
        raise ValueError(f"{folder / METRICS_FILE}: the line of step {lost[0]} is gone or damaged; {_again(folder)}")
    every = stage.steps // recipe.pictures_at
    wanted = range(every, stage.steps + 1, every)
    made_by = fingerprint({"ruler": ruler.made_by, "stage": _digest(folder / RECIPE_FILE), "steps": list(wanted)})
    measured = _kept(folder / MEASURED_FILE, made_by)
    if measured is None:
        paths = dict(checkpoints(folder))
        if gone := [step for step in wanted if step not in paths]:
            raise ValueError(
                f"{folder}: the checkpoint of step {gone[0]} is gone; {_again(folder)}, or set pictures_at=1"
            )
        measured = {str(step): ruler.measure(model_of(cell_recipe, cell, paths[step]), cell_recipe) for step in wanted}
        write_json(folder / MEASURED_FILE, {"made_by": made_by, "values": measured})
    return [
        {"step": step, "loss": line["loss"], "val_loss": line["val_loss"]} | measured.get(str(step), {})
        for step, line in sorted(losses.items())
    ]


def model_of(recipe: TrainingRecipe, cell: Cell, checkpoint: Path) -> PixArt:
    """The averaged weights of a checkpoint of a cell, ready to draw."""
    model = PixArt(model_config(recipe, recipe.stages[0]))
    if (remodel := remodelling(cell.operator, recipe.seed)) is not None:
        remodel(model)
    load_checkpoint(model, checkpoint)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def check_measured_alike(folder: Path, recipe: TrainingRecipe, cell: Cell) -> None:
    """Write what the losses of a cell are measured on, and what its model is made of, or compare it with what is there:
    to the training run it does not matter. Raises ValueError: it is another."""
    wanted = {"operator": cell.operator, "validation": recipe.validation.resolved(), "steps": recipe.stages[0].steps}
    path = folder / CELL_FILE
    try:
        before = read_json(path)
    except FileNotFoundError:
        before = wanted
        write_json(path, wanted)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: damaged ({why_damaged(error)}); {_again(folder)}") from None
    for knob in wanted:
        if before.get(knob) != wanted[knob]:
            raise ValueError(f"{folder}: was trained with another {knob} ({before.get(knob)}); {_again(folder)}")


def _again(folder: Path) -> str:
    return f"rm -r {folder}, then the same command, trains the cell again"


def timed_cell(
    first_recipe: TrainingRecipe, first: Cell, cell_recipe: TrainingRecipe, cell: Cell, rounds: int
) -> dict[str, float]:
    """Seconds of a step of a cell, and their ratio to those of the first cell, in turn with it."""
    folder = cell_recipe.stage_folder(cell_recipe.stages[0])
    made_by = fingerprint({"rounds": rounds, "stage": _digest(folder / RECIPE_FILE), "first": first.name})
    times = _kept(folder / TIMES_FILE, made_by)
    if times is None:
        one, two = one_step(first_recipe, first), one_step(cell_recipe, cell)
        with world() as here, fixed_threads(cell_recipe, here):
            found = paired(one, two, rounds, here.device)
        times = {"seconds_per_step": found.second_s, "seconds_ratio": found.ratio}
        write_json(folder / TIMES_FILE, {"made_by": made_by, "values": times})
    return dict(times)


def one_step(recipe: TrainingRecipe, cell: Cell) -> Work:
    """The optimizer step of a cell on its first batch, on what its last checkpoint holds; nothing is stored."""
    stage, encoders = recipe.stages[0], Encoders(recipe)
    data, features = stage_data(recipe, stage), stage_features(recipe, stage)
    features.load_others(encoders)
    knobs, optimizer = recipe.data_of(stage), recipe.optimizer_of(stage)
    with world() as here:
        state = begin_state(
            recipe, stage, here, features.null_caption(encoders), remodelling(cell.operator, recipe.seed)
        )
        with closing(source_of(recipe, data, features, range(1), here)) as source:
            loader = Loader(source, data.order, Chance(recipe.seed, stage.name), knobs)
            inputs = model_inputs(next(iter(loader.batches(0, 1))), encoders, here.device)

    def step() -> None:
        accumulate_gradients(state.model, inputs, recipe, knobs, here, state.loss)
        state.take_step(optimizer.lr, optimizer.gradient_clip)

    return step


def _kept(path: Path, made_by: str) -> Mapping[str, Any] | None:
    """The values of a file, where it is whole and was made by the same."""
    try:
        content = read_json(path)
    except (ValueError, OSError) as error:  # a damaged one is made again
        if is_unread(error):
            raise
        return None
    values: Mapping[str, Any] = content.get("values", {})
    return values if content.get("made_by") == made_by else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
