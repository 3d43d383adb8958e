"""The cells of an ablation: what each changes of a stage, and the training recipe that it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.ablation import AblationRecipe, Claim
from schemas.training import SCRATCH, Stage, TrainingRecipe, is_path
from training.identity import rows_sha256
from training.stages import pixel_multiple, stage_data

GRID = "grid"


@dataclass(frozen=True)
class Cell:
    """One thing to train."""

    name: str
    """Says what is changed, and names the folder."""
    stage: Mapping[str, Any] = field(default_factory=dict)
    """Knobs of the stage with other values."""
    latents: Mapping[str, Any] = field(default_factory=dict)
    """The same of the section `latents`."""
    operator: str = "conv"
    """As of `remodelling`."""


@dataclass(frozen=True)
class Block:
    """Cells that differ in one thing; the others are compared with the first. `labels`: their names in a table."""

    title: str
    labels: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Experiment:
    """What is trained together: the grid, or a claim, whose one block has two cells."""

    name: str
    stage: Stage
    blocks: tuple[Block, ...]

    @property
    def cells(self) -> list[Cell]:
        """Each once, the reference of the first block first."""
        return list({cell.name: cell for block in self.blocks for cell in block.cells}.values())


def half_of(position: str, depth: int) -> list[int]:
    """Numbers of the blocks, from 0, that are the first, middle or last half; the deep ones of 28 are 14 to 27."""
    half = max(1, depth // 2)
    start = {"shallow": 0, "middle": (depth - half) // 2, "deep": depth - half}[position]
    return list(range(start, start + half))


def compressed(depth: int, position: str, ratio: int, operator: str = "conv") -> Cell:
    if position == "none" or ratio == 1:
        return Cell("none", {"kv_compression": None})
    knobs = {"layers": half_of(position, depth), "ratio": ratio}
    return Cell(f"{position}-{ratio}x{ratio}-{operator}", {"kv_compression": knobs}, operator=operator)


def grid(base: TrainingRecipe, recipe: AblationRecipe) -> Experiment:
    """A block for each thing that varies while the others are as in Table 3. Raises ValueError: there is no such
    stage."""
    depth, ratio = base.model.depth, min(ratio for ratio in recipe.ratio if ratio > 1)
    blocks = (
        Block("layers", recipe.layers, tuple(compressed(depth, position, ratio) for position in recipe.layers)),
        Block(
            "ratio",
            tuple(f"{each} x {each}" for each in recipe.ratio),
            tuple(compressed(depth, "deep", each) for each in recipe.ratio),
        ),
        Block("operator", recipe.operator, tuple(compressed(depth, "deep", ratio, each) for each in recipe.operator)),
    )
    return Experiment(GRID, base.stage_named(recipe.stage), tuple(block for block in blocks if len(block.cells) > 1))


def claim(base: TrainingRecipe, recipe: AblationRecipe, name: Claim) -> Experiment:
    """One of the weak-to-strong claims: the first cell is without what is claimed, the second with it. Raises
    ValueError: the training recipe has no stage on which it can be tried."""
    if name == "conv-avg-init":
        stage = base.stage_named(recipe.stage)
        ratio = min(ratio for ratio in recipe.ratio if ratio > 1)
        with_it = compressed(base.model.depth, "deep", ratio)
        cells = (Cell("random", with_it.stage, operator="random"), Cell("average", with_it.stage))
        parent = _parent_stage(base, stage)
        if parent is not None and parent.kv_compression is not None:
            raise ValueError(f"stage {stage.name}: its parent compresses already; set stage to the first that does")
        return Experiment(name, stage, (Block("the convolution begins", ("at random", "as an average"), cells),))
    if name == "positions":
        stage, parent = _child(base, recipe.positions_stage, name, other_resolution=True)
        cells = (Cell("as-before", {"pe_interpolation": parent.interpolation}), Cell("interpolated"))
        return Experiment(name, stage, (Block("positions", ("as before", "interpolated"), cells),))
    if base.latents.codec != "dct":
        raise ValueError("latents.codec must be dct: the claim goes from it to mixed_dct, which stands for another VAE")
    stage, _ = _child(base, recipe.vae_stage, name)
    latents = {"codec": "mixed_dct"}
    cells = (Cell("scratch", {"parent": SCRATCH, "weights": "ema"}, latents), Cell("warm", latents=latents))
    return Experiment(name, stage, (Block("new latents", ("from scratch", "warm"), cells),))


def _parent_stage(base: TrainingRecipe, stage: Stage) -> Stage | None:
    parent = base.parent_of(stage)
    return None if parent == SCRATCH or is_path(parent) else base.stage_named(parent)


def _child(
    base: TrainingRecipe, named: str | None, claim: str, *, other_resolution: bool = False
) -> tuple[Stage, Stage]:
    """The stage on which a claim is tried, and its parent."""
    for stage in base.stages if named is None else (base.stage_named(named),):
        parent = _parent_stage(base, stage)
        if parent is not None and not (other_resolution and parent.interpolation == stage.interpolation):
            return stage, parent
    what = "a parent of another resolution" if other_resolution else "a parent in the recipe"
    raise ValueError(f"{claim}: no stage{f' {named!r}' if named else ''} has {what}; add one to the training recipe")


def training_recipe(
    base: TrainingRecipe, recipe: AblationRecipe, experiment: Experiment, cell: Cell, seed: int, parent: str
) -> TrainingRecipe:
    """The recipe of one cell and seed, whose one stage has the name of the stage that is varied: chance depends on it.
    `parent`: a path to weights, or `scratch`. Raises ValueError: the cell is impossible, or points do not divide
    steps."""
    steps = recipe.steps or experiment.stage.steps
    every = steps // recipe.points
    if steps % recipe.points:
        raise ValueError(
            f"points {recipe.points} do not divide the {steps} steps; set steps={(every + 1) * recipe.points}"
        )
    kept = recipe.points - recipe.points // recipe.pictures_at + 1 if recipe.pictures_at > 1 else 1
    values = base.resolved()
    stage = experiment.stage.model_dump(mode="json") | {"parent": parent, "steps": steps} | dict(cell.stage)
    return TrainingRecipe.from_mapping(
        values
        | {
            "out": str(folder_of(recipe, experiment, cell, seed)),
            "seed": seed,
            "stages": [stage],
            "latents": values["latents"] | dict(cell.latents),
            "validation": values["validation"] | {"every": every},
            "sample": values["sample"] | {"every": 0, "prompts": []},
            "wandb": {"mode": "off"},
            "log_every": every,
            "checkpoint_every": every,
            "keep_checkpoints": max(kept, base.keep_checkpoints),
        },
        origin=f"cell {cell.name}",
    )


def folder_of(recipe: AblationRecipe, experiment: Experiment, cell: Cell, seed: int) -> Path:
    return recipe.out.absolute() / experiment.name / cell.name / f"seed-{seed}"


def check_equal_batches(recipes: Mapping[str, TrainingRecipe]) -> str:
    """The digest of the batches of all cells of a seed: which pictures, in which shape, in which step. Timesteps, noise
    and the toss of captions are functions of the seed, the stage's name, the picture and how often it came, so they are
    equal with it. Raises ValueError: two cells see other batches, because each crops to multiples of its own ratio."""
    found: dict[int, tuple[str, str]] = {}
    for name, recipe in recipes.items():
        stage = recipe.stages[0]
        multiple = pixel_multiple(recipe, stage)
        if multiple not in found:  # of one experiment nothing else decides
            found[multiple] = (name, batches_sha256(recipe, stage))
    (first, digest), *others = found.values()
    for name, other in others:
        if other != digest:
            raise ValueError(
                f"cells {first} and {name} would see other batches: their pictures are cropped to multiples of other "
                "numbers of px; set multi_aspect: false for the stage, and a resolution that every ratio divides"
            )
    return digest


def batches_sha256(recipe: TrainingRecipe, stage: Stage) -> str:
    """16 hex digits that name the order and shapes of the pictures of all steps of a stage."""
    data = stage_data(recipe, stage)
    digest = hashlib.sha256(rows_sha256(data.rows, ("image_id",)).encode())
    for step in range(stage.steps):
        batch = data.order.batch(step)
        digest.update(repr((batch.shape, batch.epoch)).encode() + batch.rows.tobytes() + batch.occurrences.tobytes())
    return digest.hexdigest()[:16]
