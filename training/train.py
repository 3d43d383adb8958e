"""The training loop: every stage of the chain from its parent, resumable at any step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from schemas.training import Stage, TrainingRecipe
from training.checkpoint import CheckpointWriter
from training.checkpoint_files import checkpoints, last_good, latest_checkpoint, set_aside
from training.data.chance import Chance
from training.data.loader import Loader
from training.distil import loss_of
from training.encoders.make import Encoders
from training.features import StageFeatures, keep_features, stage_features
from training.identity import check_identity, identity
from training.inputs import caption_shares, model_inputs
from training.memory import fitting
from training.metrics import Metrics, read_metrics, smoothed_ends
from training.model import PixArt
from training.optim.gradients import accumulate_gradients, check_micro_batch, fixed_threads
from training.parallel.distributed import World, world
from training.parallel.lost_process import torch_errors_named
from training.reading import source_of
from training.sample import draw_prompts
from training.speed import Speed
from training.stages import StageData, locked, stage_data
from training.state import TrainState, learning_rate
from training.stored_run import bring_stage, places_named, sender
from training.tracking import require_wandb, wandb_run
from training.validation import Evaluate, Validation, measured_at
from training.weak_to_strong import starting_model

log = logging.getLogger(__name__)


Pending = list[tuple[int, list[str], Tensor]]
"""(step, image ids, (loss, mse, vb, gradient norm, shares of captions)) of steps without a line of metrics."""
Remodel = Callable[[PixArt], None]


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
    from_last_good: bool = False,
    on_progress: Callable[[StageProgress], None] | None = None,
    remodel: Remodel | None = None,
    evaluate: Evaluate | None = None,
) -> list[StageSummary]:
    """Train the recipe's stages in order; finished ones are skipped, a started one continues from its last checkpoint.
    Under torchrun every process calls this and takes its share of each batch. `from_last_good`: continue from the last
    whole checkpoint, with other knobs where they steer training; the folder records from which step on. `remodel`:
    changes the model that a stage begins with, for an ablation. `evaluate`: measures a stage's averaged weights at the
    steps of `recipe.evaluation`, in the first process. Returns a summary per stage, in the first process. Raises
    ValueError: anything the user can mend, in one line. Raises KeyboardInterrupt: Ctrl-C, or SIGTERM where it means the
    same; its text says what was stored."""
    require_wandb(recipe)
    wanted = recipe.stages if only_stage is None else (recipe.stage_named(only_stage),)
    for stage in wanted if recipe.sample.every or recipe.evaluation.every else ():
        recipe.sampling_of(stage)  # refused now, and not at the first picture
    with (
        places_named(recipe),
        world(recipe.process_timeout_s) as here,
        locked(recipe.out_folder, recipe.out) if here.is_first else nullcontext(),
    ):
        if not here.is_first:
            logging.getLogger("training").setLevel(logging.WARNING)  # what is said once is said by the first process
        summaries = []
        for stage in wanted:
            for before in recipe.stages:
                if before.name == recipe.parent_of(stage):
                    bring_stage(recipe, before)
            bring_stage(recipe, stage, every_checkpoint=from_last_good)
            if from_last_good and here.is_first:
                last_good(recipe.stage_folder(stage))
                sender(recipe, stage)()
            here.barrier()
            bring_stage(recipe, stage)  # without what was set aside
            with torch_errors_named(stage.name, recipe.data_of(stage), here.size):
                on_stage = on_progress if here.is_first else None
                summaries.append(
                    train_stage(recipe, stage, here, on_stage, remodel, evaluate, may_change=from_last_good)
                )
            if stage != wanted[-1] and here.stopping():
                raise stopped(here, f"stage {stage.name} is finished; run the same command to go on with the next one")
        return summaries if here.is_first else []


def train_stage(
    recipe: TrainingRecipe,
    stage: Stage,
    here: World,
    on_progress: Callable[[StageProgress], None] | None,
    remodel: Remodel | None = None,
    evaluate: Evaluate | None = None,
    *,
    may_change: bool = False,
) -> StageSummary:
    """Train one stage to its last step. The position in the data is `state.step` and nothing else."""
    started = time.perf_counter()
    folder, data, encoders = recipe.stage_folder(stage), stage_data(recipe, stage), Encoders(recipe)
    features = checked_features(recipe, stage, here, data, encoders, may_change=may_change)
    if features is None:
        return summary_of(folder, stage, seconds=0.0, skipped=True)
    knobs, optimizer, chance = recipe.data_of(stage), recipe.optimizer_of(stage), Chance(recipe.seed, stage.name)
    state = begin_state(recipe, stage, here, features.null_caption(encoders), remodel)
    model, pin = state.model if recipe.exact_sums else here.parallel(state.model), here.device.type == "cuda"
    source = source_of(recipe, data, features, range(state.step, stage.steps), here)
    loader = Loader(source, data.order, chance, knobs, rank=here.rank, world_size=here.size, pin=pin)
    validation, speed = Validation(recipe, data, source, encoders, state.loss), Speed(state.model.config, loader, here)
    if not state.step:  # all that refuses a stage leaves no folder of it
        keep_origin(recipe, stage, here, data, features)
    with (
        here.stop.deferred(),  # until the last checkpoint is on disk
        fixed_threads(recipe, here),
        CheckpointWriter(folder, recipe.keep_checkpoints, sender(recipe, stage)) as writer,
        closing(Metrics(folder, state.step, wandb_run(recipe, stage))) if here.is_first else nullcontext() as metrics,
        closing(source),
    ):
        way_out = partial(after_a_loss_that_is_not_finite, recipe, stage, here, writer)
        for batch in loader.batches(state.step, stage.steps):
            inputs = model_inputs(batch, encoders, here.device)
            terms = accumulate_gradients(model, inputs, recipe, knobs, here, state.loss)
            rate = learning_rate(state.step, optimizer.lr, optimizer.warmup_steps)
            grad_norm = state.take_step(rate, optimizer.gradient_clip)
            speed.count(len(batch.image_ids), inputs)
            measured = torch.cat([terms, grad_norm[None].to(terms), caption_shares(batch, inputs, recipe).to(terms)])
            state.unreported.append((state.step, batch.image_ids, measured))  # not read: reading waits for the device
            writer.check()
            if state.step % recipe.log_every == 0 or state.step == stage.steps:
                values = finite_mean(state.unreported, stage.name, here, way_out) | {"lr": rate} | speed.read()
                values |= {"epoch": (state.step - 1) // len(data.order), "num_damaged": loader.num_damaged}
                values |= measured_at(state.step, state.average, recipe, stage, validation, evaluate, here)
                report(values, state, stage, metrics, on_progress)
                speed.restart()
            if recipe.sample.every and state.step % recipe.sample.every == 0:
                draw(state, recipe, stage, here)
            if state.step % recipe.checkpoint_every == 0 or state.step == stage.steps:
                store(state, here, writer, metrics)
            if state.step < stage.steps and here.stopping():
                state.unreported = finite_rows(state.unreported, stage.name, here, way_out)
                store(state, here, writer, metrics)
                break
        writer.wait()
        here.barrier()  # the next stage reads the checkpoint that is written now; torchrun ends all once one ends
    if state.step < stage.steps:
        raise stopped(here, stored_at(stage, state.step))
    return summary_of(folder, stage, seconds=time.perf_counter() - started, skipped=False)


def report(
    values: dict[str, float],
    state: TrainState,
    stage: Stage,
    metrics: Metrics | None,
    on_progress: Callable[[StageProgress], None] | None,
) -> None:
    """Write a line of metrics and show it; its steps are reported then."""
    if metrics is not None:
        metrics.write(state.step, values)
    if on_progress is not None:
        on_progress(StageProgress(stage.name, state.step, stage.steps, values["loss"], values["images_per_s"]))
    state.unreported.clear()


def store(state: TrainState, here: World, writer: CheckpointWriter, metrics: Metrics | None) -> None:
    """Begin to write a checkpoint, which the first process does; all help to gather it."""
    content = state.content(keep=here.is_first)
    if metrics is not None:
        metrics.sync()
        writer.begin(state.step, content)


def draw(state: TrainState, recipe: TrainingRecipe, stage: Stage, here: World) -> None:
    """Draw the prompts of the recipe, which the first process does; all help to gather the average."""
    average = state.average.whole()
    if here.is_first:
        path = recipe.stage_folder(stage) / "samples" / f"step-{state.step:08d}.png"
        draw_prompts(average, recipe, stage, path)


def stored_at(stage: Stage, step: int) -> str:
    """The place that a stage is stored at, and how to go on from it."""
    return (
        f"stage {stage.name} is stored at step {step} of {stage.steps}, in step-{step:08d}.pt; run the same command to "
        "continue from there"
    )


def stopped(here: World, stored: str) -> BaseException:
    """The error that ends a run after a signal, once what it says is on disk."""
    received = here.stop.received.name if here.stop.received else "a signal in another process"
    return here.stop.passed_on(f"{here.stop.process}: received {received}; {stored}")


def checked_features(
    recipe: TrainingRecipe, stage: Stage, here: World, data: StageData, encoders: Encoders, *, may_change: bool = False
) -> StageFeatures | None:
    """The features that a stage trains on, with the encoders loaded that they do not replace; None if it is finished.
    Raises ValueError: the stage cannot be trained as the recipe says, or its folder holds another one."""
    check_micro_batch(recipe, recipe.data_of(stage), here, stage.name)
    last = latest_checkpoint(recipe.stage_folder(stage))
    finished = last is not None and last[0] >= stage.steps
    features = None if finished else stage_features(recipe, stage)
    if last is not None:
        keep_origin(recipe, stage, here, data, features, begun_at=last[0], may_change=may_change)
    if features is not None:
        features.load_others(encoders)
    return features


def keep_origin(
    recipe: TrainingRecipe,
    stage: Stage,
    here: World,
    data: StageData,
    features: StageFeatures | None,
    *,
    begun_at: int = 0,
    may_change: bool = False,
) -> None:
    """Write what a stage learns from into its folder, which is the first of it there, or compare it with what the
    folder says. Raises ValueError: the folder holds another stage."""
    if not here.is_first:
        return
    folder, begun = recipe.stage_folder(stage), begun_at > 0
    found, change_at = identity(recipe, stage, data.rows), begun_at if begun and may_change else None
    check_identity(folder, found, begun=begun, change_at=change_at, finished=features is None)
    if features is not None:
        keep_features(folder, features, begun=begun)
        for said in (features.description, *data.notes, *recipe.said_of(stage)):
            log.info("stage %s: %s", stage.name, said)


def begin_state(
    recipe: TrainingRecipe, stage: Stage, here: World, null_caption: Tensor, remodel: Remodel | None = None
) -> TrainState:
    """The state that a stage continues from: its newest checkpoint, or the weights of its parent. Raises ValueError: as
    `TrainState.restore`, or the checkpoint has the name of another step."""
    model = starting_model(recipe, stage, null_caption)
    if remodel is not None:
        remodel(model)
    if recipe.compile:
        model.compile_blocks()
    state = TrainState.begin(model.to(here.device), recipe, stage, here.size)
    last = latest_checkpoint(recipe.stage_folder(stage))
    if last is not None:
        state.restore(last[1])
        if state.step != last[0]:
            raise ValueError(f"{last[1]}: holds step {state.step}; give it back its place and name, or remove it")
    state.loss = loss_of(recipe, stage, here, null_caption, state.average)
    state.model.activation_checkpointing = fitting(recipe, stage, state.model, here.size)
    return state


def summary_of(folder: Path, stage: Stage, seconds: float, skipped: bool) -> StageSummary:
    """The summary of a finished stage, read from its folder."""
    last = latest_checkpoint(folder)
    assert last is not None and last[0] >= stage.steps
    return StageSummary(stage.name, last[0], *smoothed_ends(read_metrics(folder)), seconds, last[1], skipped)


def finite_mean(
    pending: Pending, stage: str, here: World, way_out: Callable[[int], str] | None = None
) -> dict[str, float]:
    """The mean of the steps since the last report, over all processes. Raises ValueError: as `finite_rows`. No
    checkpoint is written between that step and this report."""
    rows = torch.stack([row for _, _, row in finite_rows(pending, stage, here, way_out)])
    names = ("loss", "mse", "vb", "grad_norm", "synthetic_share", "cut_share", "at_limit_share")
    return dict(zip(names, rows.mean(dim=0).tolist(), strict=False))  # shares may be left out


def finite_rows(pending: Pending, stage: str, here: World, way_out: Callable[[int], str] | None = None) -> Pending:
    """The same steps, each with its means over all processes, on the CPU. `way_out`: says for the first bad step what
    to do. Raises ValueError: a loss or gradient is not finite; names the first such step and its images."""
    if not pending:
        return []
    values = torch.stack([terms.to(here.device) for _, _, terms in pending])
    values = here.mean(values).cpu()
    for (step, image_ids, _), row in zip(pending, values, strict=True):
        if not row.isfinite().all():
            raise ValueError(
                f"stage {stage}, step {step}: loss {row[0]:.4g}, gradient norm {row[3]:.4g} are not finite; images "
                f"{', '.join(image_ids)}; {way_out(step) if way_out else 'lower lr or gradient_clip'}"
            )
    return [(step, image_ids, row) for (step, image_ids, _), row in zip(pending, values, strict=True)]


def after_a_loss_that_is_not_finite(
    recipe: TrainingRecipe, stage: Stage, here: World, writer: CheckpointWriter, step: int
) -> str:
    """What to do, in words. A checkpoint of the step right before is set aside: its weights gave this loss."""
    writer.wait()
    folder, aside = recipe.stage_folder(stage), ""
    before = [found for found in checkpoints(folder) if found[0] < step - 1]
    if here.is_first:
        for number, path in checkpoints(folder):
            if number == step - 1:
                aside = f"; {path.name} gave this loss and is set aside as {set_aside(path, 'not-finite').name}"
                writer.send()
    knobs = recipe.optimizer_of(stage)
    command = f"sigma train RECIPE --from-last-good stages.{recipe.stages.index(stage)}.lr=LOWER (it is {knobs.lr:g})"
    if before:
        return f"lower lr or gradient_clip and go on from {before[-1][1].name}: {command}{aside}"
    return (
        f"lower lr or gradient_clip; no checkpoint from before it is left, so the stage starts anew: {command}{aside}"
    )
