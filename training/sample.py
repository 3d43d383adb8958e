"""Pictures from a trained stage: of training captions under their own pictures, or of any prompts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from schemas.buckets import LABELS, sizes
from schemas.ids import counter
from schemas.training import LATENT_DOWNSAMPLING, Sampling, Stage, TrainingRecipe
from training.checkpoint import load_checkpoint
from training.data.chance import derived_seed, noise
from training.data.loader import PaddedText
from training.data.order import Shape
from training.data.reader import Sample, ShardReader
from training.data.transform import from_unit_range
from training.diffusion import guided, sample
from training.diffusion.consistency import sample_few
from training.diffusion.sampler import NoiseModel
from training.encoders.alone import alone, encoded_alone
from training.encoders.base import Codec
from training.encoders.make import codec_for, text_encoder_for
from training.model import PixArt
from training.picture_grid import write_grid, write_pictures
from training.stages import copies_of, pixel_multiple, stage_data
from training.stored_run import trained_checkpoints
from training.weak_to_strong import model_config, starting_model

log = logging.getLogger(__name__)

THUMBNAIL_PX = 16
"""Side at which a sampled picture's likeness to its training picture is measured."""


@dataclass(frozen=True)
class SampleReport:
    """The pictures that were drawn, one per caption. `likeness`: correlation of each with its training picture, at 16 x
    16 px; none for prompts. `recognised`: those that are more like their own training picture than like any other."""

    path: Path
    stage: str
    captions: list[str]
    likeness: list[float]
    recognised: int
    seconds: float


def sample_grid(
    recipe: TrainingRecipe,
    *,
    stage: str | None = None,
    out: Path,
    count: int = 12,
    seed: int = 0,
    weights: Path | None = None,
) -> SampleReport:
    """Draw training captions and write a PNG: each training picture with the sampled one below it.

    Args:
        stage: the stage to sample from; None is the last one that has a checkpoint.
        count: pictures, spread evenly over the stage's samples; fewer where there are fewer.
        seed: of the starting noise.
        weights: on disk, in place of a checkpoint of the stage.

    Raises:
        ValueError: nothing is trained yet, or there is no such stage.
    """
    started = time.perf_counter()
    model, trained = load_trained(recipe, stage, weights=weights)
    data = stage_data(recipe, trained)
    num_rows = data.rows.num_rows
    chosen = sorted({int(i) for i in np.linspace(0, num_rows - 1, min(count, num_rows))})
    reader = ShardReader(recipe.dataset_folder / "shards", data.rows, copies=copies_of(recipe))
    samples = [reader.read(row, data.shapes[row]) for row in chosen]
    reader.close()
    drawn = draw(
        model,
        recipe,
        trained,
        [item.mixed for item in samples],
        [data.shapes[row] for row in chosen],
        [counter(item.image_id, f"sample/{seed}") for item in samples],
    )
    pairs = [(item.pixels, picture) for item, picture in zip(samples, drawn, strict=True)]
    write_grid([list(pair) for pair in pairs], out)
    likeness, recognised = likenesses(samples, drawn)
    seconds = time.perf_counter() - started
    return SampleReport(out, trained.name, [item.mixed for item in samples], likeness, recognised, seconds)


def sample_prompts(
    recipe: TrainingRecipe,
    prompts: Sequence[str],
    out: Path,
    *,
    stage: str | None = None,
    aspect: str = "1.0",
    seed: int = 0,
    weights: Path | None = None,
) -> SampleReport:
    """Draw any prompts: one is written as the picture itself; several side by side, and each also by itself.

    A prompt that is cut and an aspect that no stage was trained on are logged.

    Args:
        aspect: label of the aspect bucket, height / width.
        weights: on disk, in place of a checkpoint of the stage.

    Raises:
        ValueError: no prompt, no such bucket, nothing trained yet, or no such stage.
    """
    started = time.perf_counter()
    if not prompts:
        raise ValueError("no prompt to sample; give at least one")
    if aspect not in LABELS:
        raise ValueError(f"no aspect bucket {aspect!r}; there are {', '.join(LABELS)}")
    trained = stage_to_draw(recipe, stage, weights)
    recipe.sampling_of(trained)
    shape = sizes(trained.resolution, pixel_multiple(recipe, trained))[aspect]
    warn_of(aspect, recipe, trained)
    text = encoded_alone(recipe.text, prompts)
    model, _ = load_trained(recipe, trained.name, weights=weights)
    latents = denoised(model, recipe, trained, text, [shape] * len(prompts), seeds_of(prompts, seed))
    del model
    write_pictures(decoded(codec_for(recipe.latents), latents), out)
    return SampleReport(out, trained.name, list(prompts), [], 0, time.perf_counter() - started)


def seeds_of(prompts: Sequence[str], seed: int) -> list[int]:
    """The seed of each prompt's noise: another one where a prompt comes twice."""
    return [counter(prompt, f"sample/{seed}/{number}") for number, prompt in enumerate(prompts)]


def warn_of(aspect: str, recipe: TrainingRecipe, trained: Stage) -> None:
    """Log that a model never saw the shape it is to draw."""
    try:
        stages = recipe.stages[: recipe.stages.index(trained) + 1]
        seen = [aspect in aspects_of(recipe, stage) for stage in reversed(stages)]
    except ValueError as error:
        log.warning("no aspect is compared with those of training: %s", error)
        return
    if not any(seen):
        log.warning("no stage up to %s was trained on pictures of aspect %s: it was never seen", trained.name, aspect)
    elif not seen[0]:
        log.warning("stage %s was not trained on pictures of aspect %s, an earlier one was", trained.name, aspect)


def aspects_of(recipe: TrainingRecipe, stage: Stage) -> set[str]:
    """Labels of the aspect buckets whose shape some picture of a stage has."""
    shapes = stage_data(recipe, stage).shapes
    seen = {shapes.table[code] for code in np.unique(shapes.codes)}
    return {label for label, size in sizes(stage.resolution, pixel_multiple(recipe, stage)).items() if size in seen}


def draw_prompts(model: PixArt, recipe: TrainingRecipe, stage: Stage, out: Path) -> None:
    """Draw the recipe's own prompts with a model that is being trained."""
    if recipe.sample.prompts:
        shape = (stage.resolution, stage.resolution)
        prompts = list(recipe.sample.prompts)
        seeds = [counter(prompt, f"sample/{recipe.seed}") for prompt in prompts]
        drawn = draw(model, recipe, stage, prompts, [shape] * len(prompts), seeds)
        write_grid([[picture] for picture in drawn], out)


def stage_to_draw(recipe: TrainingRecipe, stage: str | None, weights: Path | None) -> Stage:
    """The stage of that name; None is the last with a checkpoint, or the last of all for weights on disk. Raises
    ValueError: there is no such checkpoint, or no such stage."""
    if weights is None:
        return trained_checkpoints(recipe, stage)[0]
    return recipe.stages[-1] if stage is None else recipe.stage_named(stage)


def load_trained(
    recipe: TrainingRecipe, stage: str | None, step: int | None = None, weights: Path | None = None
) -> tuple[PixArt, Stage]:
    """The averaged model of a stage, or of the last stage that has a checkpoint.

    Args:
        step: of the checkpoint; None is the newest.
        weights: on disk, in place of a checkpoint: what a stage may name as its parent. The stage says the architecture
            and how it is drawn; None is the last one.

    Raises:
        ValueError: there is no such checkpoint, or the weights are of another architecture.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if weights is not None:
        trained = stage_to_draw(recipe, stage, weights)
        drawn = trained.model_copy(update={"parent": str(weights.absolute())})
        with alone(recipe.text) as encoder:
            null = encoder.null()
        return starting_model(recipe, drawn, null).eval().to(device), trained
    trained, found = trained_checkpoints(recipe, stage, every=step is not None)
    step = max(found) if step is None else step
    if step not in found:
        kept = ", ".join(f"{each:,}" for each in found)
        raise ValueError(f"{recipe.out}: stage {trained.name} has no checkpoint of step {step:,} here; it has {kept}")
    model = PixArt(model_config(recipe, trained))
    load_checkpoint(model, found[step])
    return model.eval().to(device), trained


@torch.no_grad()
def draw(
    model: PixArt,
    recipe: TrainingRecipe,
    stage: Stage,
    captions: Sequence[str],
    shapes: Sequence[Shape],
    seeds: Sequence[int],
) -> list[np.ndarray]:
    """One picture per caption, (3, height, width) uint8; those of one shape are drawn together. Raises ValueError: the
    stage cannot be drawn in as many steps as the recipe says."""
    encoder = text_encoder_for(recipe.text)
    latents = denoised(model, recipe, stage, [encoder.encode(caption) for caption in captions], shapes, seeds)
    return decoded(codec_for(recipe.latents), latents)


@torch.no_grad()
def denoised(
    model: PixArt,
    recipe: TrainingRecipe,
    stage: Stage,
    text: Sequence[Tensor],
    shapes: Sequence[Shape],
    seeds: Sequence[int],
) -> list[Tensor]:
    """Latents for each caption's vectors, (channels, h, w); those of one shape are drawn together. Raises ValueError:
    the stage cannot be drawn in as many steps as the recipe says."""
    sampling = recipe.sampling_of(stage)
    device = next(model.parameters()).device
    found: dict[int, Tensor] = {}
    for shape in dict.fromkeys(shapes):
        members = [i for i, other in enumerate(shapes) if other == shape]
        padded = PaddedText.of([text[i] for i in members])
        caption, mask = padded.tokens.to(device), padded.mask.to(device)
        own = [seeds[i] for i in members]
        start = pure_noise(recipe, shape, own).to(device)
        latents = sampled(sampling, partial(noise_model, model, caption, mask, recipe), start, own)
        found |= zip(members, latents, strict=True)
    return [found[i] for i in range(len(text))]


def pure_noise(recipe: TrainingRecipe, shape: Shape, seeds: Sequence[int]) -> Tensor:
    """What pictures of one shape begin as, (B, channels, h, w), each a function of its seed."""
    height, width = (side // LATENT_DOWNSAMPLING for side in shape)
    return noise(seeds, (recipe.latents.channels, height, width))


def decoded(codec: Codec, latents: Sequence[Tensor]) -> list[np.ndarray]:
    """The picture of each latent, (3, height, width) uint8."""
    pictures: dict[int, np.ndarray] = {}
    for shape in dict.fromkeys(each.shape for each in latents):
        members = [i for i, other in enumerate(latents) if other.shape == shape]
        pixels = from_unit_range(codec.decode(torch.stack([latents[i] for i in members]))).cpu().numpy()
        pictures |= zip(members, pixels, strict=True)
    return [pictures[i] for i in range(len(latents))]


def sampled(sampling: Sampling, model: Callable[..., NoiseModel], start: Tensor, seeds: Sequence[int]) -> Tensor:
    """Latents as a stage draws them, from the pure noise `start` of the seeds. `model`: gives what predicts the noise,
    `dropped=False` for the captions and `dropped=True` for the null caption. `seeds`: of each picture; the noise that a
    few-step sampler adds on its way is a function of them."""
    if sampling.guidance == 1:
        return sample(model(dropped=False), start, sampling.steps)  # what guidance comes to, in half of the passes
    if sampling.guidance is not None:
        return sample(guided(model(dropped=False), model(dropped=True), sampling.guidance), start, sampling.steps)

    def renoise(step: int) -> Tensor:
        return noise([derived_seed(seed, f"step/{step}") for seed in seeds], tuple(start.shape[1:])).to(start.device)

    return sample_few(model(dropped=False), start, sampling.timesteps, renoise)


def noise_model(
    model: nn.Module, caption: Tensor, mask: Tensor, recipe: TrainingRecipe, *, dropped: bool
) -> NoiseModel:
    """The model's noise for fixed captions; where `dropped`, for the null caption under the captions' own masks."""

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        drop = torch.full((len(latents),), dropped, device=latents.device)
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            output = model(latents, timestep, caption, mask, drop)
        return output.float().chunk(2, dim=1)[0]  # the variance half is not sampled with

    return predict


def likenesses(samples: Sequence[Sample], drawn: Sequence[np.ndarray]) -> tuple[list[float], int]:
    """Correlation of each drawn picture with its own training picture, and how many are most like their own."""
    known = np.stack([_thumbnail(item.pixels) for item in samples])
    made = np.stack([_thumbnail(picture) for picture in drawn])
    correlation = made @ known.T
    recognised = int((correlation.argmax(axis=1) == np.arange(len(samples))).sum())
    return [float(value) for value in correlation.diagonal()], recognised


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    small = np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).resize(size, Image.Resampling.BOX), dtype=np.float64)
    centred = small.ravel() - small.mean()
    return centred / max(float(np.linalg.norm(centred)), 1e-9)
