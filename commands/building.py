"""Commands that build a dataset: all jobs, or up to one of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from commands.order import steps_upto
from commands.terminal import Overrides, RecipeFile, Redo, complaints, console, refusals, shown
from recipes import SHIPPED
from schemas.recipe import DataRecipe
from schemas.strict import StrictModel, documented_yaml

if TYPE_CHECKING:  # imported where they are used: the command starts fast
    from curation.build import Built, Observer


def job_command(job: str, names_next: bool = False) -> Callable[..., None]:
    """The command that builds up to one job.

    Args:
        names_next: the command also prints where the shards are, and the command to look at them.
    """

    def command(recipe: RecipeFile, overrides: Overrides = None, redo: Redo = None) -> None:
        from commands.console import JobProgress
        from curation import build as runs

        with refusals(), JobProgress(console) as progress:
            data = DataRecipe.load(recipe, overrides or [])
            show_built(data, runs.build(data, steps_upto(data, job, redo), progress, frozenset(redo or ())))
            if names_next:
                console.print(
                    f"shards: {shown(data.out_path() / 'shards')}   next: sigma report {shown(data.out_path())}"
                )

    return command


def show_built(recipe: DataRecipe, built: Built) -> None:
    """Show what came of a build."""
    from commands.console import ledger_table

    if not built.results:
        console.print(f"{shown(recipe.out_path())}: finished already, nothing to do")
    console.print(ledger_table(built.counts, built.num_inputs))
    if any(outcome == "error" and stage == "shard" for outcome, stage, *_ in built.counts):
        complaints.print("some originals changed or vanished since they were ingested: see outcome 'error' above")


def survey_dataset(recipe: DataRecipe, progress: Observer, redo: list[str] | None = None) -> None:
    """Read every header that is not read yet, and show what the collection holds.

    Raises:
        ValueError: as `curation.build.build`; or `redo` names a job other than headers.
    """
    from curation import build as runs
    from curation.forecast import survey
    from curation.ingest import headers
    from engine.dataset import Dataset

    if other := [job for job in redo or [] if job != headers.JOB]:
        raise ValueError(
            f"--redo {other[0]}: --probe-only reads headers and nothing else; --redo headers reads all of them anew"
        )
    dataset = Dataset(recipe.out_path())
    force = bool(redo) or headers.other_knobs(dataset, recipe)
    runs.build(recipe, [headers.map_job(recipe)], progress, frozenset({headers.JOB} if force else ()))
    for line in survey.lines(survey.survey(dataset, recipe.select), recipe.select):
        console.print(line, markup=False, soft_wrap=True)


def ingest(
    recipe: RecipeFile,
    overrides: Overrides = None,
    redo: Redo = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Fetch again what timed out, was refused for now or had no connection."),
    ] = False,
    probe_only: Annotated[
        bool,
        typer.Option(
            "--probe-only", help="Read headers only and show what the collection holds; ingest goes on from there."
        ),
    ] = False,
) -> None:
    """List the inputs, read each once: size, sha256, upright sRGB proxy."""
    from commands.console import JobProgress
    from curation import build as runs

    with refusals(), JobProgress(console) as progress:
        if probe_only and retry_failed:
            raise ValueError(
                "--retry-failed fetches again what a full ingest could not read; leave out --probe-only, or read all "
                "headers anew with --redo headers"
            )
        data = DataRecipe.load(recipe, overrides or [])
        if probe_only:
            survey_dataset(data, progress, redo)
            return
        steps = steps_upto(data, "ingest", redo)
        show_built(data, runs.build(data, steps, progress, frozenset(redo or ()), retry_failed))


def recipe(
    name: Annotated[str, typer.Argument(help="data or train: every knob; or a recipe that comes with Sigma.")] = "data",
) -> None:
    """Print every knob of a recipe, its default and its meaning; or a recipe that comes with Sigma, to start from."""
    from schemas.training import TrainingRecipe

    with refusals():
        models: dict[str, type[StrictModel]] = {"data": DataRecipe, "train": TrainingRecipe}
        if name not in {**models, **SHIPPED}:
            raise ValueError(f"{name}: no such recipe; there are {', '.join([*models, *SHIPPED])}")
        text = documented_yaml(models[name]) if name in models else SHIPPED[name].read_text(encoding="utf-8")
        sys.stdout.write(text.rstrip("\n") + "\n")


JOB_COMMANDS = {
    "fingerprint": "Hash every picture: pHash and pixels.",
    "aesthetic": "Score every picture.",
    "dedup": "Group pictures that are the same.",
    "clean": "Clean the raw captions: take out HTML and addresses, refuse junk.",
    "screen": "Look for blur, enlarging, borders, and what classifiers know (off by default).",
    "select": "Apply the rules: what stays, what goes, why.",
    "caption": "Write a synthetic caption for every kept picture.",
    "mix": "Toss the caption coin: synthetic or raw.",
    "nouns": "Find the nouns of every caption.",
    "ground": "Score how well captions fit their pictures (off by default; needs weights).",
    "statistics": "Count them: the paper's Table 1.",
    "balance": "Weigh images by how common their concepts are (off by default).",
    "shard": "Pack WebDataset tars and their index.",
}
"""Job -> what its command does; ingest, which takes more, is a function of its own."""

BUILD = "Build a dataset: every job in order. Run it again after anything; it goes on where it was."
