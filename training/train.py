"""The training loop: every stage of the chain from its parent, resumable at any step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from schemas.training import Stage, TrainingRecipe
from training.checkpoint import CheckpointWriter, latest_checkpoint
from training.data.captions import cut_of
from training.data.chance import Chance
from training.data.loader import Loader
from training.data.reader import ShardReader
from training.data.source import Source
from training.encoders.make import Encoders
from training.features import StageFeatures, keep_features, stage_features
from training.identity import check_identity, identity
from training.inputs import model_inputs
from training.memory import fitting
from training.metrics import Metrics, read_metrics, smoothed_ends
from training.optim.gradients import accumulate_gradients, check_micro_batch, fixed_threads
from training.parallel.distributed import World, world
from training.parallel.lost_process import full_memory_named
from training.sample import draw_prompts
from training.speed import Speed
from training.stages import StageData, locked, stage_data
from training.state import TrainState, learning_rate
from training.validation import Validation
from training.weak_to_strong import starting_model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageProgress:
    """The progress of a stage; `loss` is the mean since the last report."""

    stage: str
    step: int
    total_steps: int
    loss: float
    images_per_s: float


@dataclass(frozen=True)
class StageSummary:
    """The result of a stage; `first_loss` and `last_loss` are means over its first and last tenth."""

    name: str
    steps: int
    first_loss: float
    last_loss: float
    seconds: float
    checkpoint: Path
    skipped: bool


def train(
    recipe: TrainingRecipe,
    *,
    only_stage: str | None = None,
    on_progress: Callable[[StageProgress], None] | None = None,
) -> list[StageSummary]:
    """Train the recipe's stages in order; finished ones are skipped, a started one continues from its last checkpoint.

    Under torchrun every process calls this; each batch is split over them.

    Raises:
        ValueError: anything the user can mend, in one line.
    """
    wanted = recipe.stages if only_stage is None else (recipe.stage_named(only_stage),)
    with world(recipe.process_timeout_s) as here, locked(recipe.out) if here.is_first else nullcontext():
        summaries = []
        for stage in wanted:
            with full_memory_named(stage.name, recipe.data_of(stage), here.size):
                summaries.append(train_stage(recipe, stage, here, on_progress if here.is_first else None))
        return summaries


def train_stage(
    recipe: TrainingRecipe, stage: Stage, here: World, on_progress: Callable[[StageProgress], None] | None
) -> StageSummary:
    """Train one stage to its last step. The position in the data is `state.step` and nothing else."""
    started = time.perf_counter()
    folder, data, encoders = recipe.stage_folder(stage), stage_data(recipe, stage), Encoders(recipe)
    features = checked_features(recipe, stage, here, data, encoders)
    if features is None:
        return summary_of(folder, stage, seconds=0.0, skipped=True)
    knobs, optimizer = recipe.data_of(stage), recipe.optimizer_of(stage)
    state = begin_state(recipe, stage, here, features.null_caption(encoders))
    model = state.model if recipe.exact_sums else here.parallel(state.model)
    source = Source(ShardReader(recipe.dataset / "shards", data.rows, cut_of(recipe)), *features.arrays())
    chance, pin = Chance(recipe.seed, stage.name), here.device.type == "cuda"
    loader = Loader(source, data.order, chance, knobs, rank=here.rank, world_size=here.size, pin=pin)
    validation = Validation(recipe, data, source, encoders)
    speed = Speed(state.model.config, loader, here)
    pending: list[tuple[int, list[str], Tensor]] = []  # not read yet: reading waits for the device

    with (
        fixed_threads(recipe, here),
        CheckpointWriter(folder, recipe.keep_checkpoints) as writer,
        closing(Metrics(folder, state.step)) if here.is_first else nullcontext() as metrics,
        closing(source),
    ):
        for batch in loader.batches(state.step, stage.steps):
            inputs = model_inputs(batch, encoders, here.device)
            terms = accumulate_gradients(model, inputs, recipe, knobs, here)
            rate = learning_rate(state.step, optimizer.lr, optimizer.warmup_steps)
            grad_norm = state.take_step(rate, optimizer.gradient_clip)
            speed.count(len(batch.image_ids), inputs)
            pending.append(
                (state.step, batch.image_ids, torch.cat([terms, grad_norm[None].to(terms), batch.shares.to(terms)]))
            )
            writer.check()

            if state.step % recipe.log_every == 0 or state.step == stage.steps:
                values = finite_mean(pending, stage.name, here) | {"lr": rate} | speed.read()
                values |= {"epoch": (state.step - 1) // len(data.order), "num_damaged": loader.num_damaged}
                if recipe.validation.every and state.step % recipe.validation.every == 0:
                    values |= validation.losses(state.average.whole(), here)
                if metrics is not None:
                    metrics.write(state.step, values)
                if on_progress is not None:
                    on_progress(
                        StageProgress(stage.name, state.step, stage.steps, values["loss"], values["images_per_s"])
                    )
                pending.clear()
                speed.restart()
            if recipe.sample.every and state.step % recipe.sample.every == 0:
                average = state.average.whole()
                if here.is_first:
                    draw_prompts(average, recipe, stage, folder / "samples" / f"step-{state.step:08d}.png")
            if state.step % recipe.checkpoint_every == 0 or state.step == stage.steps:
                content = state.content(keep=here.is_first)
                if metrics is not None:
                    metrics.sync()
                    writer.begin(state.step, content)
    here.barrier()  # the next stage reads the checkpoint that the first process has written by now
    return summary_of(folder, stage, seconds=time.perf_counter() - started, skipped=False)


def checked_features(
    recipe: TrainingRecipe, stage: Stage, here: World, data: StageData, encoders: Encoders
) -> StageFeatures | None:
    """The features that a stage trains on, with the encoders loaded that they do not replace; None if it is finished.

    Raises:
        ValueError: the stage cannot be trained as the recipe says, or its folder holds another one.
    """
    check_micro_batch(recipe, recipe.data_of(stage), here, stage.name)
    folder = recipe.stage_folder(stage)
    last = latest_checkpoint(folder)
    finished = last is not None and last[0] >= stage.steps
    features = None if finished else stage_features(recipe, stage)  # refused before the folder remembers a recipe
    if here.is_first:
        check_identity(folder, identity(recipe, stage, data.rows))
    if features is None:
        return None
    features.load_others(encoders)
    if here.is_first:
        keep_features(folder, features, begun=last is not None)
        for said in (features.description, *data.notes):
            log.info("stage %s: %s", stage.name, said)
    return features


def begin_state(recipe: TrainingRecipe, stage: Stage, here: World, null_caption: Tensor) -> TrainState:
    """The state that a stage continues from: its newest checkpoint, or the weights of its parent."""
    model = starting_model(recipe, stage, null_caption)
    if recipe.compile:
        model.compile_blocks()
    state = TrainState.begin(model.to(here.device), recipe, stage, here.size)
    last = latest_checkpoint(recipe.stage_folder(stage))
    if last is not None:
        state.restore(last[1])
    state.model.activation_checkpointing = fitting(recipe, stage, state.model, here.size)
    return state


def summary_of(folder: Path, stage: Stage, seconds: float, skipped: bool) -> StageSummary:
    """The summary of a finished stage, read from its folder."""
    last = latest_checkpoint(folder)
    assert last is not None and last[0] >= stage.steps
    return StageSummary(stage.name, last[0], *smoothed_ends(read_metrics(folder)), seconds, last[1], skipped)


def finite_mean(pending: list[tuple[int, list[str], Tensor]], stage: str, here: World) -> dict[str, float]:
    """The mean of the steps since the last report, over all processes.

    Raises:
        ValueError: a loss or gradient is not finite; names the first such step and its images. No checkpoint
            is written between that step and this report, so the last one on disk is sound.
    """
    values = torch.stack([terms for _, _, terms in pending])
    values = here.mean(values).cpu()
    for (step, image_ids, _), row in zip(pending, values, strict=True):
        if not row.isfinite().all():
            raise ValueError(
                f"stage {stage}, step {step}: loss {row[0]:.4g}, gradient norm {row[3]:.4g} are not finite; images "
                f"{', '.join(image_ids)}; lower lr or gradient_clip, the last checkpoint is intact"
            )
    names = ("loss", "mse", "vb", "grad_norm", "synthetic_share", "cut_share")
    return dict(zip(names, values.mean(dim=0).tolist(), strict=False))  # shares may be left out
