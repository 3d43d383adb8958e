"""Commands that build a dataset: all jobs, or up to one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from commands.order import pipeline
from commands.terminal import Overrides, RecipeFile, Redo, complaints, console, refusals, shown
from schemas.recipe import JOBS, DataRecipe
from schemas.strict import documented_yaml


def build_dataset(
    recipe: DataRecipe, upto: str = JOBS[-1], redo: list[str] | None = None, retry_failed: bool = False
) -> dict[str, float]:
    """Run the jobs up to one of them and show what came of it; seconds by job."""
    from commands.console import JobProgress, ledger_table
    from curation import build as runs
    from curation.selection import select

    unknown = [job for job in redo or [] if job not in JOBS]
    if unknown:
        raise ValueError(f"--redo {unknown[0]}: no such job; there are {', '.join(JOBS)}")
    if upto == "ground" and not recipe.ground.enabled:
        raise ValueError("ground.enabled is false; set ground.enabled=true, the job needs the weights of ground.clip")
    if upto == "screen" and not recipe.screen.columns():
        raise ValueError("no screen is on; set one, such as screen.sharpness=true")
    if upto == "balance" and recipe.balance.most_images is None:
        raise ValueError("balance.most_images is null; set one, such as balance.most_images=20000")
    select.check_subsets(recipe.select)
    wanted = JOBS[: JOBS.index(upto) + 1]
    steps = [step for step in pipeline(recipe) if step.job in wanted]
    with JobProgress(console) as progress:
        built = runs.build(recipe, steps, progress, frozenset(redo or []), retry_failed)
    if not built.results:
        console.print(f"{shown(recipe.out_path())}: finished already, nothing to do")
    console.print(ledger_table(built.counts, built.num_inputs))
    if any(outcome == "error" and stage == "shard" for outcome, stage, *_ in built.counts):
        complaints.print("some originals changed or vanished since they were ingested: see outcome 'error' above")
    return progress.seconds


def build(recipe: RecipeFile, overrides: Overrides = None, redo: Redo = None) -> None:
    """Build a dataset: every job in order. Run it again after anything; it goes on where it was."""
    with refusals():
        data = DataRecipe.load(recipe, overrides or [])
        build_dataset(data, redo=redo)
        console.print(f"shards: {shown(data.out_path() / 'shards')}   next: sigma report {shown(data.out_path())}")


def survey_dataset(recipe: DataRecipe, redo: list[str] | None = None) -> None:
    """Read every header that is not read yet, and show what the collection holds.

    Raises:
        ValueError: as `pipeline.build`; or `redo` names a job other than headers.
    """
    from commands.console import JobProgress
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
    with JobProgress(console) as progress:
        runs.build(recipe, [headers.stage(recipe)], progress, frozenset({headers.JOB} if force else ()))
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
    with refusals():
        if probe_only and retry_failed:
            raise ValueError(
                "--retry-failed fetches again what a full ingest could not read; leave out --probe-only, or read all "
                "headers anew with --redo headers"
            )
        if probe_only:
            survey_dataset(DataRecipe.load(recipe, overrides or []), redo)
            return
        build_dataset(DataRecipe.load(recipe, overrides or []), upto="ingest", redo=redo, retry_failed=retry_failed)


def job_command(job: str) -> Callable[..., None]:
    """The command that builds up to one job."""

    def command(recipe: RecipeFile, overrides: Overrides = None, redo: Redo = None) -> None:
        with refusals():
            build_dataset(DataRecipe.load(recipe, overrides or []), upto=job, redo=redo)

    return command


def recipe() -> None:
    """Print every knob of a data recipe with its default and what it means."""
    console.print(documented_yaml(DataRecipe), markup=False, soft_wrap=True)


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
