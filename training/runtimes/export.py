"""Exports a model for a runtime: read, converted, compared with torch, and committed as one folder."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from models.memory import GIB, require_memory
from schemas.late import installed
from training.export.weights import StoredModel, read_model, refuse_existing, written_aside
from training.model import PixArt
from training.model.architecture import Hints
from training.model.convert import weights_files, weights_sha256
from training.model.layouts import NULL_CAPTION
from training.model.pixart import LATENT_DOWNSAMPLING, PixArtConfig
from training.model.seal import digested
from training.runtimes.denoiser import Denoiser, eager, opened
from training.runtimes.graph import sizes_of
from training.runtimes.kinds import KINDS, require_installed, require_recipe
from training.runtimes.manifest import NULL_CAPTION_FILE, Layer, Manifest, Origin, Parity, Recipe, Runtime, Sizes
from training.runtimes.rounding import worst_layers

TIMESTEPS = (1.0, 250.0, 500.0, 750.0, 999.0)
"""At which an export is compared with torch."""
LONG_CAPTION = 120
BOUNDS: dict[Recipe, float] = {"fp32": 2e-5, "bf16": 1e-2}
"""Relative error that a recipe should keep to; fp32 must."""
BROKEN = 0.9
"""Relative error above which no recipe is written: the graph is wrong, not rounded."""
NO_NULL_CAPTION = "the source holds no null caption, so that its export draws without guidance alone"
LIBRARIES = int(0.8 * GIB)
"""Memory of torch and a runtime before any weights."""
ELSEWHERE = "export on a larger machine: the folder runs on this one"

Step = Callable[[str], None]
STEPS = ("read", "compare", "convert", "check")


class Case(NamedTuple):
    """An input of a comparison, and torch's answer to it."""

    latents: Tensor
    timestep: float
    caption: Tensor
    noise: Tensor


class Exported(NamedTuple):
    """An export that was committed."""

    manifest: Manifest
    notes: tuple[str, ...]


def export_model(
    source: Path,
    target: Path,
    runtime: Runtime,
    recipe: Recipe,
    *,
    ema: bool = True,
    hints: Hints | None = None,
    size: tuple[int, int] | None = None,
    step: Step = lambda name: None,
) -> Exported:
    """Export the weights at `source`, of any layout that `sigma convert` reads, into the new folder `target`.

    Args:
        ema: of our checkpoints take the average.
        hints: knobs that the source does not say.
        size: (height, width) px of a graph for this size alone; None is for any.
        step: is called with the name of each of `STEPS` as it begins.

    Raises:
        ValueError: one line on what cannot be: the recipe, the runtime, the source, the size, the memory, the target;
            or the exported graph answers otherwise than torch, in which case nothing is written.
    """
    require_recipe(runtime, recipe)
    require_installed(runtime, to_export=True)
    refuse_existing(target)
    step("read")
    stored = read_within_memory(source, ema, hints)
    sizes = sizes_for(runtime, stored.config, size)
    step("compare")
    model = assembled(stored)
    cases, worst = reference(model, recipe, sizes)
    manifest = described(source, stored, runtime, recipe, ema=ema, sizes=sizes, worst=worst)
    null = stored.weights.get(NULL_CAPTION)
    notes = stored.notes + (() if null is not None else (NO_NULL_CAPTION,))
    del stored
    with written_aside(target) as aside:
        aside.mkdir()
        if null is not None:
            save_file({NULL_CAPTION: null.float().contiguous()}, aside / NULL_CAPTION_FILE)
        step("convert")
        with quietly(), converting(manifest, source):
            writer(runtime)(model, sizes.fixed[0] if sizes.fixed else None, aside, recipe)
        del model
        files = {path.name: digested(path, path.stat().st_size).hexdigest() for path in sorted(aside.iterdir())}
        manifest = manifest.model_copy(update={"files": files})
        step("check")
        parity = compared(opened(aside, manifest), cases)
        notes += judged(parity, manifest, target)
        manifest = manifest.model_copy(update={"parity": parity})
        manifest.write(aside)
    return Exported(manifest, notes)


def writer(runtime: Runtime) -> Callable[[PixArt, tuple[int, int] | None, Path, Recipe], None]:
    """What writes the graph of a model, of one size or of any, for a runtime into a folder."""
    return import_module(f"training.runtimes.{runtime}_runtime").write


@contextmanager
def converting(manifest: Manifest, source: Path) -> Iterator[None]:
    """Name the runtime and its version where it cannot take a graph."""
    try:
        yield
    except (RuntimeError, NotImplementedError, TypeError, LookupError, AttributeError) as error:
        why = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ValueError(
            f"{source}: {manifest.runtime} {manifest.runtime_version} cannot take this model in {manifest.recipe} "
            f"({type(error).__name__}: {why.strip()}); try another --runtime or --recipe"
        ) from error


@contextmanager
def quietly() -> Iterator[None]:
    """Hold back what converters print, warn of and log, and leave no handler of theirs behind."""
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)


def read_within_memory(source: Path, ema: bool, hints: Hints | None) -> StoredModel:
    """Read the weights, if this machine has the memory to read and to export them; else raise a ValueError."""
    files = weights_files(source, ema=ema)[0] if source.exists() else []
    held = sum(file.stat().st_size for file in files if file.is_file())
    require_memory(held + LIBRARIES, f"reading {source}", ELSEWHERE)
    stored = read_model(source, ema=ema, hints=hints)
    require_memory(export_bytes(stored.config), f"exporting {source}", ELSEWHERE)
    return stored


def export_bytes(config: PixArtConfig) -> int:
    """Memory of an export: the weights in fp32 twice, torch's and the runtime's."""
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in PixArt(config).parameters())
    return 2 * 4 * count + LIBRARIES


def assembled(stored: StoredModel) -> PixArt:
    """The stored weights as a model in fp32; the weights are moved into it."""
    with torch.device("meta"):
        model = PixArt(stored.config)
    weights = {key: value.float() for key, value in stored.weights.items()}
    config = stored.config
    weights.setdefault(NULL_CAPTION, torch.zeros(config.max_caption_tokens, config.caption_channels))
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


def described(
    source: Path,
    stored: StoredModel,
    runtime: Runtime,
    recipe: Recipe,
    *,
    ema: bool,
    sizes: Sizes,
    worst: tuple[Layer, ...],
) -> Manifest:
    """The manifest of an export, before its files are written and compared."""
    return Manifest(
        runtime=runtime,
        runtime_version=str(installed(KINDS[runtime].runs[0])),
        recipe=recipe,
        origin=origin_of(source, ema),
        architecture=asdict(stored.config),
        guidance=guidance_of(source),
        sizes=sizes,
        worst_layers=worst,
        files={},
    )


def origin_of(source: Path, ema: bool) -> Origin:
    """What the manifest says of the exported weights."""
    stage = _stage_of(source)
    return Origin(
        name=source.name,
        stage=str(stage["name"]) if "name" in stage else None,
        weights=weights_sha256(source, ema=ema),
        averaged=ema,
    )


def guidance_of(source: Path) -> float | None:
    """The guidance that a checkpoint of a distilled stage has folded in, as its recipe says; None for any other."""
    distil = _stage_of(source).get("distil")
    return float(distil["guidance"]) if isinstance(distil, dict) and "guidance" in distil else None


def _stage_of(source: Path) -> dict:
    recipe = source.parent / "recipe.yaml"
    if source.suffix != ".pt" or not recipe.is_file():
        return {}
    stage = yaml.safe_load(recipe.read_text(encoding="utf-8")).get("stage")  # read_model has read it before
    return stage if isinstance(stage, dict) else {}


def sizes_for(runtime: Runtime, config: PixArtConfig, size: tuple[int, int] | None) -> Sizes:
    """The pictures that an export will draw. Raises ValueError: no size where the runtime needs one, or one that the
    model cannot draw."""
    if (why := KINDS[runtime].one_size) and size is None:
        side = config.image_size
        raise ValueError(f"{runtime} draws one size alone, because {why}; give it: --size {side}x{side}")
    sizes = sizes_of(config)
    if size is not None:
        sizes.refuse(*size)
    return sizes_of(config, (size,) if size is not None else ())


@torch.no_grad()
def reference(model: PixArt, recipe: Recipe, sizes: Sizes) -> tuple[list[Case], tuple[Layer, ...]]:
    """Inputs of two sizes and two caption lengths at each of `TIMESTEPS`, torch's answers, and the worst layers."""
    config, chance = model.config, torch.Generator().manual_seed(0)
    unit, most = sizes.minimum_px, config.max_caption_tokens
    shapes = [*sizes.fixed, *sizes.fixed] or [(2 * unit, 3 * unit), (4 * unit, 2 * unit)]
    lengths = [min(7, most), min(LONG_CAPTION, most)]
    denoise, cases = eager(model, sizes), []
    for timestep in TIMESTEPS:
        for (height, width), tokens in zip(shapes, lengths, strict=True):
            cells = (height // LATENT_DOWNSAMPLING, width // LATENT_DOWNSAMPLING)
            latents = torch.randn(1, config.in_channels, *cells, generator=chance)
            caption = torch.randn(1, tokens, config.caption_channels, generator=chance)
            noise = denoise(latents, torch.tensor([timestep]), caption)
            cases.append(Case(latents, timestep, caption, noise))
    middle = cases[len(cases) // 2]
    worst = worst_layers(
        model, recipe, lambda: denoise(middle.latents, torch.tensor([middle.timestep]), middle.caption)
    )
    return cases, worst


def compared(denoise: Denoiser, cases: list[Case]) -> tuple[Parity, ...]:
    """The errors of a runtime against torch's answers."""
    found = []
    for case in cases:
        noise = denoise(case.latents, torch.tensor([case.timestep]), case.caption)
        error = float((noise - case.noise).norm() / case.noise.norm().clamp(min=1e-12))
        height, width = (side * LATENT_DOWNSAMPLING for side in case.latents.shape[2:])
        found.append(
            Parity(
                timestep=case.timestep,
                height_px=height,
                width_px=width,
                tokens=case.caption.shape[1],
                relative_error=error if math.isfinite(error) else 1e9,
            )
        )
    return tuple(found)


def judged(parity: tuple[Parity, ...], manifest: Manifest, target: Path) -> tuple[str, ...]:
    """Notes on an export that is less exact than its recipe should be. Raises ValueError: the graph is wrong: in fp32
    beyond rounding, in any recipe beyond recognition."""
    worst = max(parity, key=lambda each: each.relative_error)
    said = f"relative error {worst.relative_error:.1e} against torch in fp32, at timestep {worst.timestep:g}"
    bound = BOUNDS.get(manifest.recipe, BROKEN)
    if worst.relative_error > (bound if manifest.recipe == "fp32" else BROKEN):
        raise ValueError(
            f"{target}: is not written, {manifest.runtime} {manifest.runtime_version} computes something else "
            f"({said}, the bound is {bound:.0e}); try another --runtime or --recipe"
        )
    if worst.relative_error > bound:
        return (f"{said}; {manifest.recipe} is usually within {bound:.0e}, so look at pictures of it",)
    return ()
