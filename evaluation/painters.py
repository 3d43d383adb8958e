"""What draws: a checkpoint of ours or an export of it, or a pipeline of diffusers. Each gives the same picture for a
prompt and a seed. torch is imported where a painter is loaded: a finished evaluation is planned without it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import recipes
from evaluation.picture_files import Pixels, folder_stamp, pictures_in
from models.device import choose_device
from models.digest import weights_digest
from models.weights import UNREADABLE, one_line, quiet, read_json
from schemas.evaluation import Model
from schemas.reasons import PictureReason
from schemas.strict import fingerprint
from schemas.training import Sampling, TrainingRecipe, few_timesteps
from training.encoders.weights import weights_digests
from training.model.seal import file_digest
from training.runtimes.kinds import require_installed
from training.runtimes.manifest import Manifest
from training.stored_run import trained_checkpoints

Painter = Callable[[Sequence[str], Sequence[int]], list[Pixels | PictureReason]]
"""Draws some prompts at once: a picture for each, from noise of its own seed; or why there is none."""


@dataclass(frozen=True)
class Plan:
    """What will draw, known before anything is loaded."""

    name: str
    """In the table of results; of one checkpoint of several `<model>@<step>`."""
    step: int | None
    """Of the checkpoint."""
    how: dict[str, Any]
    """All that a picture depends on besides its prompt and its seed."""
    load: Callable[[str], Painter] | None = None
    """Loads it on a device; picklable. None where the pictures are there."""
    folder: str | None = None
    """Of pictures that are there."""
    trained_on: TrainingRecipe | None = None
    """The recipe that made it, where it is one of ours."""
    is_export: bool = False


def plans(name: str, model: Model) -> list[Plan]:
    """What a model of a recipe draws with: one plan, or one for each of its checkpoints. Raises ValueError: there is no
    such checkpoint or pipeline, or it is refused: weights that are pickled, code in the folder."""
    if model.pictures is not None:
        stamp = folder_stamp(pictures_in(Path(model.pictures)))
        return [Plan(name, None, {"pictures": stamp}, folder=model.pictures)]
    if model.runtime is not None:
        return [_of_export(name, model, Path(model.runtime))]
    return _of_pipeline(name, model) if model.diffusers is not None else _of_training(name, model)


def _of_training(name: str, model: Model) -> list[Plan]:
    assert model.recipe is not None
    recipe = TrainingRecipe.load(recipes.find(model.recipe), model.overrides)
    stage, kept = trained_checkpoints(recipe, model.stage, every=model.checkpoints != "last")
    wanted = {"last": [max(kept)], "all": sorted(kept)}.get(str(model.checkpoints)) or [*model.checkpoints]
    if lost := [step for step in wanted if step not in kept]:
        there = ", ".join(map(str, kept))
        raise ValueError(f"models.{name}.checkpoints: {stage.name} has no checkpoint of step {lost[0]}; it has {there}")
    recipe = _with_knobs(recipe, model)
    try:
        sampling = recipe.sampling_of(stage)
    except ValueError as error:
        raise ValueError(f"models.{name}: {error}") from None
    if sampling.guidance is None and model.guidance is not None:
        raise ValueError(f"models.{name}.guidance: a few-step model has its guidance in its weights; remove it")
    side = model.resolution or stage.resolution
    if side % recipe.model.patch_px:
        raise ValueError(f"models.{name}.resolution: {side} is no multiple of {recipe.model.patch_px} px")
    how = {"resolution": side, "precision": recipe.precision, "encoders": fingerprinted(recipe)} | _sampled(sampling)
    return [
        Plan(
            name if isinstance(model.checkpoints, str) and model.checkpoints == "last" else f"{name}@{step}",
            step,
            how | {"weights": file_digest(kept[step])[:16]},
            partial(CheckpointPainter, recipe, stage.name, step, side),
            trained_on=recipe,
        )
        for step in wanted
    ]


def _of_export(name: str, model: Model, folder: Path) -> Plan:
    assert model.recipe is not None
    manifest = Manifest.read(folder)
    require_installed(manifest.runtime)
    recipe = TrainingRecipe.load(recipes.find(model.recipe), model.overrides)
    recipe = _with_knobs(recipe, model)
    try:
        sampling = recipe.sample.sampling(str(folder), few_steps=manifest.guidance is not None)
        side = model.resolution or next(iter(manifest.sizes.fixed), (manifest.architecture["image_size"],))[0]
        manifest.sizes.refuse(side, side)
    except ValueError as error:
        raise ValueError(f"models.{name}: {error}") from None
    how = {
        "resolution": side,
        "precision": f"{manifest.runtime} {manifest.recipe}",
        "encoders": fingerprinted(recipe),
        "weights": fingerprint(manifest.resolved()),
    } | _sampled(sampling)
    trained_on = None if manifest.origin.stage is None else recipe
    return Plan(name, None, how, partial(ExportPainter, recipe, folder, side), trained_on=trained_on, is_export=True)


def _with_knobs(recipe: TrainingRecipe, model: Model) -> TrainingRecipe:
    """A training recipe whose `sample` has what the evaluation says of drawing."""
    given = {"steps": model.steps, "guidance": model.guidance, "timestep": model.timestep}
    drawing = recipe.sample.model_copy(update={knob: value for knob, value in given.items() if value is not None})
    return recipe.model_copy(update={"sample": drawing})


def _sampled(sampling: Sampling) -> dict[str, Any]:
    """How a model is sampled, as a plan records it; only a few-step model has a timestep."""
    found = {"sampler": sampling.sampler, "steps": sampling.steps, "guidance": sampling.guidance}
    return found | ({} if sampling.timestep is None else {"timestep": sampling.timestep})


class ExportPainter:
    """Draws with an exported model, from the noise that its checkpoint draws from."""

    def __init__(self, recipe: TrainingRecipe, folder: Path, side: int, device: str) -> None:
        """Load it; it runs on the CPU, whatever the device. Raises ValueError: the folder was changed, or the recipe's
        encoders are not those of the model."""
        from training.encoders.make import codec_for, text_encoder_for
        from training.runtimes.denoiser import load_runtime
        from training.runtimes.drawing import drawn_latents, refuse_strangers
        from training.sample import decoded

        denoiser = load_runtime(folder)
        assert denoiser.manifest is not None
        refuse_strangers(recipe, denoiser.manifest, folder)
        sampling = recipe.sample.sampling(str(folder), few_steps=denoiser.manifest.guidance is not None)
        self._encode = text_encoder_for(recipe.text).encode
        self._decode = partial(decoded, codec_for(recipe.latents))
        self._draw = partial(drawn_latents, denoiser, recipe, sampling, shape=(side, side))

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Pixels | PictureReason]:
        latents = [
            self._draw(vectors=self._encode(prompt), seed=seed) for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return [np.ascontiguousarray(picture.transpose(1, 2, 0)) for picture in self._decode(latents)]


def fingerprinted(recipe: TrainingRecipe) -> dict[str, Any]:
    """The knobs of the encoders, and the digests of their weights."""
    text, latents = recipe.text.resolved(), recipe.latents.resolved()
    for knobs in (text, latents):
        knobs.pop("weights", None)  # a folder, which may move; what it holds is named by its digest
    return {"text": text, "latents": latents} | weights_digests(recipe.latents, recipe.text)


class CheckpointPainter:
    """Draws with the averaged weights of a checkpoint of ours."""

    def __init__(self, recipe: TrainingRecipe, stage: str, step: int, side: int, device: str) -> None:
        """Load it. `recipe`: whose `sample` says the steps and the guidance. `side`: of the square, px."""
        from training.sample import draw, load_trained

        model, trained = load_trained(recipe, stage, step)
        self._draw = partial(draw, model.to(choose_device(device, "run.device")), recipe, trained)
        self._shape = (side, side)

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Pixels | PictureReason]:
        drawn = self._draw(prompts, [self._shape] * len(prompts), seeds)
        return [np.ascontiguousarray(picture.transpose(1, 2, 0)) for picture in drawn]


def _of_pipeline(name: str, model: Model) -> list[Plan]:
    assert model.diffusers is not None
    folder = Path(model.diffusers)
    where = f"models.{name}.diffusers: {folder}"
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"{where}: holds no model_index.json; name the folder of a pipeline of diffusers")
    index = read_json(folder / "model_index.json")
    pipeline = index.get("_class_name")
    if code := sorted(path.name for path in folder.rglob("*.py")) or isinstance(pipeline, list):
        shown = code[0] if isinstance(code, list) else str(pipeline)
        raise ValueError(f"{where}: brings code of its own ({shown}), which is never run; name a pipeline without")
    weights = sorted(folder.rglob("*.safetensors"))
    parts = [part for part, what in index.items() if isinstance(what, list) and len(what) == 2 and what[0]]
    for part in parts:
        pickled = sorted(
            [*(folder / part).glob("*.bin"), *(folder / part).glob("*.pt"), *(folder / part).glob("*.ckpt")]
        )
        if pickled and not any((folder / part).glob("*.safetensors")):
            raise ValueError(
                f"{where}: {part}/{pickled[0].name} is pickled, which can run code; get the pipeline's safetensors"
            )
    if not weights:
        raise ValueError(f"{where}: holds no safetensors; get the pipeline's weights")
    configs = sorted(path for path in folder.rglob("*.json"))
    scheduler = index.get("scheduler")
    how = {
        "pipeline": pipeline,
        "resolution": model.resolution,
        "sampler": scheduler[1] if isinstance(scheduler, list) else None,
        "steps": model.steps,
        "guidance": model.guidance,
        "precision": model.precision,
        "weights": weights_digest([*weights, *configs]),
        "diffusers": importlib.metadata.version("diffusers"),
    } | ({} if model.timestep is None else {"timestep": model.timestep})
    return [Plan(name, None, how, partial(PipelinePainter, folder, model))]


class PipelinePainter:
    """Draws with a pipeline of diffusers. Each picture has a generator of its own, on the CPU, so that its noise is the
    same on every device and in every batch."""

    def __init__(self, folder: Path, model: Model, device: str) -> None:
        """Load it; nothing of the folder is run, and only safetensors are read. Raises ValueError: it cannot be
        loaded."""
        import torch
        from diffusers import DiffusionPipeline

        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[model.precision]
        try:
            with quiet():
                self._pipeline = DiffusionPipeline.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, torch_dtype=dtype
                )
        except UNREADABLE as error:
            raise ValueError(f"{folder}: the pipeline cannot be loaded ({one_line(error)})") from None
        self._pipeline.to(choose_device(device, "run.device"))
        self._pipeline.set_progress_bar_config(disable=True)
        given = {
            "num_inference_steps": model.steps,
            "timesteps": None if model.timestep is None else few_timesteps(model.steps or 1, model.timestep),
            "guidance_scale": model.guidance,
            "height": model.resolution,
            "width": model.resolution,
        }
        self._knobs = {knob: value for knob, value in given.items() if value is not None}

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Pixels | PictureReason]:
        import torch

        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        with torch.inference_mode():
            found = self._pipeline(prompt=list(prompts), generator=generators, output_type="np", **self._knobs)
        flagged = getattr(found, "nsfw_content_detected", None) or [False] * len(prompts)
        pictures = np.clip(np.asarray(found.images, dtype=np.float32) * 255, 0, 255).round().astype(np.uint8)
        return [
            PictureReason.NSFW_BLACKED_OUT if is_flagged else picture
            for picture, is_flagged in zip(pictures, flagged, strict=True)
        ]
