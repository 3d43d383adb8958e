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
        figure = write_figure(base, wanted)
        console.print(f"figures: {shown(wanted.out / experiment.name)}.parquet, {shown(figure)}", soft_wrap=True)


def title_of(base: TrainingRecipe, recipe: AblationRecipe, what: str, rows: list[Row]) -> str:
    """What figures are of, so that nobody takes them for the paper's."""
    steps = max(row["step"] for row in rows)
    return (
        f"{what}: {base.model.depth} blocks of {base.model.hidden_size}, {steps:,} steps, {len(recipe.seeds)} seeds; "
        "no value of it compares with a published one"
    )


def write_figure(base: TrainingRecipe, recipe: AblationRecipe) -> Path:
    """Draw what of the grid and the claims is finished in the folder of the ablation."""
    import pyarrow.parquet as pq

    from engine.damage import damage
    from evaluation.ablation import cells
    from schemas.seal import check_file
    from viewer.ablation import write_ablation

    found = []
    for name in (cells.GRID, *ClaimName):
        path = recipe.out / f"{name}.parquet"
        if not path.exists():
            continue
        try:
            experiment = cells.grid(base, recipe) if name == cells.GRID else cells.claim(base, recipe, name.value)
        except ValueError:  # a claim that this recipe cannot try any more
            continue
        try:
            check_file(path)
            rows = pq.read_table(path).to_pylist()
        except damage() as error:
            said = f"{path}: damaged ({error}), so it is not drawn; the command that wrote it writes it anew"
            complaints.print(said, markup=False, soft_wrap=True)
            continue
        if {cell.name for cell in experiment.cells} == {row["cell"] for row in rows}:  # else of another recipe
            found.append((experiment, rows))
    figure = recipe.out / "ablation.svg"
    write_ablation(figure, title_of(base, recipe, "Ablation", found[0][1]), found)
    return figure


def show_tables(base: TrainingRecipe, recipe: AblationRecipe, experiment: Experiment, rows: list[Row]) -> None:
    """Print a table per block, and before it what it is of."""
    from evaluation.ablation.cells import GRID
    from evaluation.ablation.table import reached, sheets

    stage = experiment.stage
    what = f"{experiment.name}, stage {stage.name} at {stage.resolution:,} px, n = {recipe.pictures:,}"
    console.print(title_of(base, recipe, what, rows), markup=False, soft_wrap=True)
    for sheet in sheets(experiment, rows):
        table = Table(*sheet.columns, box=None, pad_edge=False)
        for line in sheet.rows:
            table.add_row(*line)
        console.print(table)
    if experiment.name == GRID:
        console.print("The published table agrees with itself to no better than 0.5 FID (docs/evaluation.md).")
    else:
        console.print("\n".join(reached(rows, experiment.blocks[0])), markup=False, soft_wrap=True)
