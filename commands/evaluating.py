"""The command `evaluate`: draw pictures for prompts, measure them, and show the results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from commands.harmless import harmless
from commands.terminal import Overrides, Redo, complaints, console, found_recipe, refusals, shown

if TYPE_CHECKING:  # imported where they are used: the command starts fast
    from collections.abc import Sequence

    from engine.dataset import Dataset
    from schemas.evaluation import EvaluationRecipe

EvaluationFile = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE",
        callback=found_recipe,
        help="An evaluation recipe: a YAML file, or the name of one that comes with Sigma, such as evaluate_demo.",
    ),
]


def evaluate(
    recipe: EvaluationFile,
    overrides: Overrides = None,
    redo: Redo = None,
    quick: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only N prompts, chosen by their ids; marked as such.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Measure the pictures that are there where some are missing.")
    ] = False,
) -> None:
    """Draw pictures for prompts with some models, and measure them. Run it again after anything; it goes on."""
    from schemas.evaluation import EvaluationRecipe

    with refusals():
        given = [*(overrides or []), *(["metrics.allow_missing=true"] if allow_missing else [])]
        results = run_evaluation(EvaluationRecipe.load(recipe, given), redo, quick)
        if refused := {row["reason"] for row in results if "metrics.allow_missing" in (row["reason"] or "")}:
            complaints.print(f"not measured: {min(refused)}", markup=False, soft_wrap=True)
            raise typer.Exit(1)


def run_evaluation(
    recipe: EvaluationRecipe, redo: Sequence[str] | None = None, quick: int | None = None
) -> list[dict[str, Any]]:
    """Run an evaluation and show its results, which are returned."""
    from commands.console import JobProgress
    from evaluation.folder import evaluate as run

    with JobProgress(console) as progress:
        done = run(recipe, progress, redo or (), quick)
    if not done.has_run:
        console.print(f"{shown(done.dataset.root)}: finished already, nothing to do")
    show_results(done.results)
    root = shown(done.dataset.root)
    console.print(f"results: {root}   look at it: sigma browse {root}", soft_wrap=True)
    return done.results


def show_results(rows: Sequence[dict[str, Any]]) -> None:
    from evaluation.table import blocks

    if not rows:
        console.print("nothing is measured: name a reference, or set metrics.clip_score=true")
    for block in blocks(rows):
        console.print()
        console.print(Text(harmless(block.title), style="bold"), soft_wrap=True)
        if block.lines:
            table = Table(box=None, pad_edge=False)
            for place, name in enumerate(block.names):
                table.add_column(Text(name), justify="right" if place else "left")
            for line in block.lines:
                table.add_row(*(Text(harmless(cell)) for cell in line))
            console.print(table)
        for note in block.notes:
            console.print(f"  {note}", markup=False, style="yellow", soft_wrap=True)


def show_progress(data: Dataset) -> None:
    """Show how far each job of an evaluation is, then the results that there are."""
    from commands.tables import pace_cells, rows_table
    from evaluation.progress import progress_of

    held = data.held()
    rows = [
        (job, table, f"{done:,} of {total:,}", *pace_cells(held, table, total - done))
        for job, table, done, total in progress_of(held)
    ]
    console.print(rows_table(["job", "table", "parts done", "rate", "time left"], rows))
    if rows := data.read_table("results").to_pylist():  # none are there while pictures are drawn
        show_results(rows)
