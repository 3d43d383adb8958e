"""Commands that build a dataset: all jobs, or up to one of them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.order import steps_upto
from commands.terminal import Overrides, RecipeFile, Redo, complaints, console, refusals, shown
from recipes import SHIPPED
from schemas.recipe import DataRecipe
from schemas.strict import StrictModel, apply_override, documented_yaml

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


def nouns(
    recipe: RecipeFile,
    overrides: Overrides = None,
    redo: Redo = None,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="RECIPE is a table (.parquet, .csv, .jsonl): show Table 1 of the captions in this column.",
        ),
    ] = None,
) -> None:
    """Find the nouns of every caption; with --column, count the captions of a table without pictures."""
    if column is None:
        job_command("nouns")(recipe, overrides, redo)
        return
    from captioning.figures.statistics import table_1_of
    from curation.sources.records import read_rows
    from viewer.sheets.stats import table_1_sheet

    def has_column(names: Iterable[str]) -> None:
        if column not in names:
            raise ValueError(f"{recipe}: has no column {column!r}; --column takes one of {', '.join(names)}")

    with refusals():
        values: dict[str, Any] = {"images": ".", "out": "."}
        for override in overrides or []:
            apply_override(values, override)
        left_out = Counter[str]()

        def captions() -> Iterator[str]:
            for row in read_rows(str(recipe.absolute()), has_column, [column], [column]):
                caption = row.cells.get(column)
                if isinstance(caption, str) and caption.strip():
                    yield caption
                else:
                    left_out["rows that cannot be read" if row.broken else "rows without a caption"] += 1

        counted = table_1_of(captions(), column, DataRecipe.from_mapping(values))
        console.print(table_1_sheet(counted).text())
        for why, number in left_out.items():
            console.print(f"left out: {number:,} {why}")


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
    "ground": "Score how well captions fit their pictures (off by default; needs weights).",
    "statistics": "Count them: the paper's Table 1.",
    "balance": "Weigh images by how common their concepts are (off by default).",
    "shard": "Pack WebDataset tars and their index.",
}
"""Job -> what its command does; ingest and nouns, which take more, are functions of their own."""

BUILD = "Build a dataset: every job in order. Run it again after anything; it goes on where it was."
