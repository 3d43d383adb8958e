"""The command `evaluate-set`: pictures and prompts of a dataset for evaluating a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.order import pipeline
from commands.terminal import DatasetFolder, console, local, placed, refusals, shown


def evaluate_set(
    dataset: DatasetFolder,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Knobs to set: per_category=100 salt=second")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="SET", help="The folder of the set.", callback=local)] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DATASET", help="A training dataset that the set shares nothing with. Repeatable.", callback=placed
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its knobs as YAML: sigma recipe evaluation-set.", callback=local),
    ] = None,
) -> None:
    """Choose pictures and prompts for evaluation, by category, away from training data, as a dataset of their own."""
    from commands.console import JobProgress
    from engine.dataset import Dataset
    from evaluation.build_set import build_set
    from schemas.evaluation_set import EvaluationSet
    from schemas.files import shown_place
    from schemas.strict import apply_override, read_yaml

    with refusals("stopped; the same command goes on"), JobProgress(console) as progress:
        if out is None:
            raise ValueError("--out: name the folder of the set")
        values = {} if recipe is None else read_yaml(recipe)
        for override in overrides or []:
            apply_override(values, override)
        values["against"] = [*(values.get("against") or ()), *(shown_place(path) for path in against or ())]
        knobs = EvaluationSet.from_mapping(values, origin="recipe" if recipe is None else str(recipe))
        made = build_set(Dataset(dataset.absolute()), out.expanduser().absolute(), knobs, pipeline, progress)
        sources = ", ".join(f"{number:,} {name}" for name, number in sorted(made.num_from.items()))
        console.print(
            f"[green]✓[/] {made.num_prompts:,} prompts with their pictures ({sources}): {shown(made.folder)}",
            soft_wrap=True,
        )
        left_out = ", ".join(f"{number:,} by {evidence}" for evidence, number in made.excluded.items())
        console.print(f"left out, for a training dataset has them too: {left_out}", soft_wrap=True)
        if made.counter != "clip":
            console.print("CLIP tokens were counted by letters, which is more: `sigma weights get clip-tokenizer`")
        console.print(
            f"digest: {made.digest}   next: dedup.against=[{made.folder}] keeps them out of training",
            markup=False,
            soft_wrap=True,
        )
