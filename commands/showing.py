"""The demo: a dataset from real photographs, a model trained on it, and the pictures it draws."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.building import show_built
from commands.learning import train_stages
from commands.looking import write_report_page
from commands.order import pipeline
from commands.terminal import console, local, placed, refusals, shown
from recipes import find
from schemas.files import shown_place

if TYPE_CHECKING:  # imported where they are used: the command starts fast
    from schemas.recipe import DataRecipe
    from schemas.training import TrainingRecipe


def demo(
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where all goes.", callback=local)] = Path("demo"),
    runner: Annotated[str, typer.Option(help="ray or local.")] = "ray",
    dataset: Annotated[
        Path | None,
        typer.Option(metavar="DATASET", help="Where the dataset goes, if not there: s3://bucket/set.", callback=placed),
    ] = None,
) -> None:
    """Build a dataset from real photographs, train on it, and show what the model draws. About four minutes."""
    from commands.console import JobProgress
    from curation.build import build
    from curation.sources.demo_photos import write_demo_photos
    from engine import catalog
    from engine.dataset import Dataset
    from training.sample import sample_grid
    from viewer.sheets.stats import Question, shown_stats

    with refusals():
        data = dataset or (out / "dataset").absolute()
        recipe, trained = demo_recipes(out, data, runner)
        clock = {"start": time.perf_counter()}
        console.print("\n[bold]1. photographs[/]")
        console.print(f"{write_demo_photos(out / 'photos')} files in {shown(out / 'photos')}, some bad on purpose")
        console.print("\n[bold]2. dataset[/]")
        with JobProgress(console) as progress:
            show_built(recipe, build(recipe, pipeline(recipe), progress))
        clock["dataset"] = time.perf_counter()
        console.print("\n[bold]3. training, weak to strong[/]")
        train_stages(trained)
        clock["training"] = time.perf_counter()
        console.print("\n[bold]4. pictures and report[/]")
        drawn = sample_grid(trained, out=out / "samples.png", count=12)
        page = write_report_page(data)
        clock["pictures"] = time.perf_counter()
        console.print("\n[bold]5. evaluation[/]")
        evaluate_demo(out, data)
        clock["evaluation"] = time.perf_counter()
        console.print("\n[bold]done[/]")
        with catalog.connect(Dataset(data)) as connection:
            for part in shown_stats(connection, Question(top=5), valid_above=10):
                console.print(part)
        show_times(clock, progress.seconds)
        for what, text in (
            ("photographs", shown(out / "photos")),
            ("dataset", f"{shown(data)}   (sigma sql {shown(data)} --tables)"),
            ("shards", shown(data / "shards")),
            ("model", shown(out / "model")),
            ("pictures", f"{shown(drawn.path)}   (each photograph above what the model draws from its caption)"),
            ("", f"{drawn.recognised} of {len(drawn.captions)} are closest to their own photograph; "
             f"mean correlation with it at 16 x 16 px {sum(drawn.likeness) / len(drawn.likeness):.2f}"),
            ("report", shown(page)),
        ):  # fmt: skip
            console.print(f"{what:<13} {text}")


def demo_recipes(out: Path, data: Path, runner: str) -> tuple[DataRecipe, TrainingRecipe]:
    """What the demo builds and trains. Raises ValueError: its folder or its dataset's holds something else."""
    from curation.build import refuse_out
    from curation.sources.demo_photos import refuse_other_files
    from engine.dataset import Dataset
    from schemas.recipe import DataRecipe
    from schemas.strict import read_yaml
    from schemas.training import TrainingRecipe

    refuse_other_files(out)
    knobs = read_yaml(find("demo")) | {"images": str(out / "photos"), "out": shown_place(data)}
    recipe = DataRecipe.from_mapping(knobs | {"run": {"runner": runner}})
    refuse_out(Dataset(data), recipe)
    knobs = read_yaml(find("train_demo")) | {"dataset": shown_place(data), "out": str(out / "model")}
    return recipe, TrainingRecipe.from_mapping(knobs)


def show_times(clock: Mapping[str, float], jobs: Mapping[str, float]) -> None:
    """Show what each phase took, and each job. `clock`: phase -> when it ended, the start first. `jobs`: seconds by
    job."""
    from commands.tables import duration

    for (_, before), (phase, after) in pairwise(clock.items()):
        console.print(f"{phase:<10} {duration(after - before):>14}")
    console.print(f"  of which jobs: {', '.join(f'{job} {duration(s)}' for job, s in jobs.items()) or 'none'}")


def evaluate_demo(out: Path, data: Path) -> None:
    """Measure what the demo's model draws against the demo's photographs, where Inception's weights are here."""
    from commands.evaluating import run_evaluation
    from models.fetching import place_of
    from models.weights import FID_INCEPTION
    from schemas.evaluation import EvaluationRecipe
    from schemas.strict import read_yaml

    if place_of(FID_INCEPTION) is None:
        console.print(
            "FID, precision and recall need the published Inception network: sigma weights get "
            f"{FID_INCEPTION.name} fetches it ({FID_INCEPTION.size}); then run this again"
        )
        return
    knobs = read_yaml(find("evaluate_demo")) | {"out": str(out / "evaluation")}
    knobs["prompts"] = {"source": shown_place(data)}
    knobs["reference"] = {"pictures": shown_place(data)}
    knobs["models"]["demo"]["overrides"] = [f"dataset={shown_place(data)}", f"out={out / 'model'}"]
    console.print("a dozen pictures against those that the model has learned by heart: it shows how, and says nothing")
    run_evaluation(EvaluationRecipe.from_mapping(knobs))
