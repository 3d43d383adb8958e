"""The command `ablate`: one stage trained many times, each time with one thing changed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from commands.terminal import Overrides, complaints, console, found_recipe, refusals, shown

if TYPE_CHECKING:  # imported where they are used: the command starts fast
    from evaluation.ablation.cells import Experiment
    from evaluation.ablation.run import Row
    from schemas.ablation import AblationRecipe
    from schemas.training import TrainingRecipe


class ClaimName(StrEnum):
    """The weak-to-strong claims."""

    positions = "positions"
    conv_avg_init = "conv-avg-init"
    vae = "vae"


def ablate(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", callback=found_recipe, help="An ablation recipe, such as ablate_demo.")
    ],
    overrides: Overrides = None,
    claim: Annotated[
        ClaimName | None,
        typer.Option(help="In place of the grid a claim: interpolated positions, the average as a start, a new VAE."),
    ] = None,
) -> None:
    """Train one stage with other KV compression: which layers, ratio and operator. Run it again to continue."""
    from commands.console import logging_to, stage_bars
    from evaluation.ablation import cells
    from evaluation.ablation.run import run_experiment
    from schemas.ablation import AblationRecipe
    from schemas.training import TrainingRecipe

    with refusals():
        wanted = AblationRecipe.load(recipe, overrides or [])
        base = TrainingRecipe.load(found_recipe(Path(wanted.train)), wanted.overrides)
        experiment = cells.grid(base, wanted) if claim is None else cells.claim(base, wanted, claim.value)
        with stage_bars(console) as show, logging_to(console, "evaluation.ablation"):
            rows, missing = run_experiment(base, wanted, experiment, show)
        show_tables(base, wanted, experiment, rows)
        for what, why in missing.items():
            complaints.print(f"no {what}: {why}", markup=False, soft_wrap=True)
        console.print(f"figures: {shown(wanted.out / experiment.name)}.parquet", soft_wrap=True)


def show_tables(base: TrainingRecipe, recipe: AblationRecipe, experiment: Experiment, rows: list[Row]) -> None:
    """Print a table per block, and before it what it is of."""
    from evaluation.ablation.cells import GRID
    from evaluation.ablation.table import reached, sheets

    steps = max(row["step"] for row in rows)
    console.print(
        f"[bold]{experiment.name}[/]: stage {experiment.stage.name}, {base.model.depth} blocks of "
        f"{base.model.hidden_size} at {experiment.stage.resolution} px, {steps:,} steps, {len(recipe.seeds)} seeds, "
        f"n = {recipe.pictures:,} pictures; compare nothing of it with published rows but the signs",
        soft_wrap=True,
    )
    for sheet in sheets(experiment, rows):
        table = Table(*sheet.columns, box=None, pad_edge=False)
        for line in sheet.rows:
            table.add_row(*line)
        console.print(table)
    if experiment.name == GRID:
        console.print("The published table agrees with itself to no better than 0.5 FID (docs/evaluation.md).")
    else:
        console.print(reached(rows, experiment.blocks[0]))
