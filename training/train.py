"""The training loop: every stage of the chain from its parent, resumable at any step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from schemas.training import Data, Stage, TrainingRecipe
from training.chance import Chance
from training.checkpoint import CheckpointWriter, latest_checkpoint
from training.data.loader import Loader
from training.data.reader import ShardReader
from training.diffusion import q_sample, training_loss
from training.distributed import World, world
from training.encoders import codec_for, text_encoder_for
from training.inputs import ModelInputs, model_inputs
from training.memory import fitting
from training.metrics import Metrics, read_metrics, smoothed_ends
from training.sample import draw_prompts
from training.stages import check_identity, identity, locked, stage_data
from training.state import TrainState, learning_rate, set_learning_rate
from training.validation import Validation
from training.weak_to_strong import starting_model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageProgress:
    """Where a stage is; `loss` is the mean since the last report."""

    stage: str
    step: int
    total_steps: int
    loss: float
    images_per_s: float


@dataclass(frozen=True)
class StageSummary:
    """How a stage went; `first_loss` and `last_loss` are means over its first and last tenth."""

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
    """Train the recipe's stages in order; finished ones are skipped, a started one goes on where it was.

    Under torchrun every process calls this; each batch is split over them.

    Raises:
        ValueError: anything the user can mend, in one line.
    """
    wanted = recipe.stages if only_stage is None else (recipe.stage_named(only_stage),)
    with world() as here:
        if here.is_first:
            with locked(recipe.out):
                summaries = [train_stage(recipe, stage, here, on_progress) for stage in wanted]
                here.barrier()
                return summaries
        summaries = [train_stage(recipe, stage, here, None) for stage in wanted]
        here.barrier()
        return summaries


def train_stage(
    recipe: TrainingRecipe, stage: Stage, here: World, on_progress: Callable[[StageProgress], None] | None
) -> StageSummary:
    """Train one stage to its last step. The position in the data is `state.step` and nothing else."""
    started = time.perf_counter()
    folder = recipe.stage_folder(stage)
    data = stage_data(recipe, stage)
    here.split(recipe.data_of(stage).batch, f"stage {stage.name}")
    if here.is_first:
        check_identity(folder, identity(recipe, stage, data.rows))
    last = latest_checkpoint(folder)
    if last is not None and last[0] >= stage.steps:
        return StageSummary(stage.name, last[0], *smoothed_ends(read_metrics(folder)), 0.0, last[1], skipped=True)

    codec, text_encoder = codec_for(recipe.latents), text_encoder_for(recipe.text)
    state = TrainState.begin(starting_model(recipe, stage, text_encoder).to(here.device), recipe, stage)
    if last is not None:
        state.restore(last[1])
    state.model.activation_checkpointing = fitting(recipe, stage, state.model, here.size)
    if recipe.compile:
        state.model.compile_blocks()
    model = state.model if recipe.exact_sums else here.parallel(state.model)
    reader = ShardReader(recipe.dataset / "shards", data.rows)
    chance = Chance(recipe.seed, stage.name)
    knobs = recipe.data_of(stage)
    loader = Loader(reader, data.order, chance, knobs, rank=here.rank, world_size=here.size)
    validation = Validation(recipe, data, reader, codec, text_encoder)
    metrics = Metrics(folder, state.step) if here.is_first else None
    pending: list[tuple[int, list[str], Tensor]] = []  # not looked at yet: a look waits for the device
    window_start, waited_before = time.perf_counter(), 0.0

    with CheckpointWriter(folder, recipe.keep_checkpoints) as writer:
        for batch in loader.batches(state.step, stage.steps):
            warmup = recipe.optimizer.warmup_steps if stage.warmup_steps is None else stage.warmup_steps
            rate = learning_rate(state.step, stage.lr or recipe.optimizer.lr, warmup)
            set_learning_rate(state.optimizer, rate)
            inputs = model_inputs(batch, codec, text_encoder, here.device, one_by_one=recipe.exact_sums)
            terms = accumulate_gradients(model, inputs, recipe, knobs, here)
            grad_norm = nn.utils.clip_grad_norm_(state.model.parameters(), recipe.optimizer.gradient_clip)
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            state.step += 1
            writer.check()
            state.average.update(state.model, state.step)
            pending.append((state.step, batch.image_ids, torch.cat([terms, grad_norm[None].to(terms)])))

            if state.step % recipe.log_every == 0 or state.step == stage.steps:
                values = finite_mean(pending, stage.name, here)
                elapsed, waited = time.perf_counter() - window_start, loader.waited_s - waited_before
                images_per_s = len(pending) * len(batch.image_ids) * here.size / elapsed
                values |= {"lr": rate, "images_per_s": images_per_s, "wait_share": waited / elapsed}
                values |= {"epoch": (state.step - 1) // len(data.order), "num_damaged": loader.num_damaged}
                if recipe.validation.every and state.step % recipe.validation.every == 0:
                    values |= validation.losses(state.average.model, here)
                if metrics is not None:
                    metrics.write(state.step, values)
                if on_progress is not None:
                    on_progress(StageProgress(stage.name, state.step, stage.steps, values["loss"], images_per_s))
                pending.clear()
                window_start, waited_before = time.perf_counter(), loader.waited_s

            if metrics is not None and recipe.sample.every and state.step % recipe.sample.every == 0:
                draw_prompts(state.average.model, recipe, stage, folder / "samples" / f"step-{state.step:08d}.png")
            if metrics is not None and (state.step % recipe.checkpoint_every == 0 or state.step == stage.steps):
                metrics.sync()
                writer.begin(state.step, state.content())

    reader.close()
    here.barrier()  # the next stage reads the checkpoint that the first process has written by now
    if metrics is not None:
        metrics.close()
    path = latest_checkpoint(folder)
    assert path is not None and path[0] == stage.steps
    seconds = time.perf_counter() - started
    return StageSummary(stage.name, stage.steps, *smoothed_ends(read_metrics(folder)), seconds, path[1], skipped=False)


def accumulate_gradients(
    model: nn.Module, inputs: ModelInputs, recipe: TrainingRecipe, knobs: Data, here: World
) -> Tensor:
    """Forward and backward over a batch, in parts that fit; the mean (loss, mse, vb) of the batch, detached, (3,)."""
    exact = ExactSums(model) if recipe.exact_sums else None
    size = (knobs.micro_batch or len(inputs)) * knobs.timesteps_per_image
    parts = inputs.split(min(size, len(inputs)))
    total = torch.zeros(3, device=here.device)
    for number, part in enumerate(parts):
        with here.unsynchronised(model) if number < len(parts) - 1 else nullcontext():
            with torch.autocast(here.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                noised = q_sample(part.latents, part.timestep, part.noise)
                predicted = model(noised, part.timestep, part.caption, part.mask, part.drop)
            terms = training_loss(predicted, part.latents, part.noise, part.timestep)
            (terms.loss.sum() / len(inputs)).backward()
            if exact is not None:
                exact.take()
        total += torch.stack([terms.loss.sum(), terms.mse.sum(), terms.vb.sum()]).detach() / len(inputs)
    if exact is not None:
        exact.give(here)
    return total


class ExactSums:
    """Gradients of micro-batches summed in float64: the order and grouping of the sum vanish in the rounding."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._sums = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in self._parameters]

    def take(self) -> None:
        """Add the gradients of a backward pass and clear them."""
        for parameter, total in zip(self._parameters, self._sums, strict=True):
            if parameter.grad is not None:
                total += parameter.grad
                parameter.grad = None

    def give(self, here: World) -> None:
        """Leave the mean over all processes as the gradients."""
        for parameter, total in zip(self._parameters, self._sums, strict=True):
            parameter.grad = here.mean(total).to(parameter.dtype)


def finite_mean(pending: list[tuple[int, list[str], Tensor]], stage: str, here: World) -> dict[str, float]:
    """The mean of the steps since the last look, over all processes.

    Raises:
        ValueError: a loss or gradient is not finite; names the first such step and its images. No checkpoint
            is written between that step and this look, so the last one on disk is sound.
    """
    values = torch.stack([terms for _, _, terms in pending])
    values = here.mean(values).cpu()
    for (step, image_ids, _), row in zip(pending, values, strict=True):
        if not row.isfinite().all():
            raise ValueError(
                f"stage {stage}, step {step}: loss {row[0]:.4g}, gradient norm {row[3]:.4g} are not finite; images "
                f"{', '.join(image_ids)}; lower lr or gradient_clip, the last checkpoint is intact"
            )
    return dict(zip(("loss", "mse", "vb", "grad_norm"), values.mean(dim=0).tolist(), strict=True))
