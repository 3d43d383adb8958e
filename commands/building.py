"""Commands that build a dataset: all jobs, or up to one of them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.order import opened, steps_upto
from commands.terminal import DatasetFolder, Overrides, RecipeFile, Redo, complaints, console, refusals, shown
from recipes import SHIPPED

if TYPE_CHECKING:  # imported where they are used: the command starts fast
    from curation.build import Built, Observer
    from schemas.recipe import DataRecipe
    from schemas.strict import StrictModel


def job_command(job: str) -> Callable[..., None]:
    """The command that builds up to one job."""

    def command(recipe: RecipeFile, overrides: Overrides = None, redo: Redo = None) -> None:
        build(recipe, overrides, redo, until=job)

    return command


def build(
    recipe: RecipeFile,
    overrides: Overrides = None,
    redo: Redo = None,
    until: Annotated[str | None, typer.Option(metavar="JOB", help="Stop after this job.")] = None,
    only: Annotated[str | None, typer.Option(metavar="JOB", help="Run this job alone; those before are done.")] = None,
) -> None:
    """Build a dataset: every job in order. Run it again after anything; it goes on where it was."""
    from commands.console import JobProgress
    from curation import build as runs
    from curation.work import steps_of
    from engine.dataset import Dataset
    from schemas.recipe import JOBS, DataRecipe

    with refusals(), JobProgress(console) as progress:
        if until and only:
            raise ValueError(f"--until {until} --only {only}: give one of them")
        data, job = DataRecipe.load(recipe, overrides or []), only or until or JOBS[-1]
        steps = steps_upto(data, job, redo)
        if only:
            steps = steps_of(Dataset(data.out_path()), steps, job, f"--only {job}")
            if other := [each for each in redo or () if each != job]:
                raise ValueError(f"--redo {other[0]}: is not run with --only {job}")
        show_built(data, runs.build(data, steps, progress, frozenset(redo or ())))
        if job == JOBS[-1]:
            console.print(f"shards: {shown(data.out_path() / 'shards')}   next: sigma report {shown(data.out_path())}")


def work(
    dataset: DatasetFolder,
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job that is computed part by part, such as caption.")],
    share: Annotated[str, typer.Option(metavar="I/N", help="The share of its parts, from 0/N to N-1/N.")],
) -> None:
    """Compute a share of a job's parts in this process, as one task of a job array; sigma build does the rest."""
    from commands.console import JobProgress
    from curation import work as works
    from schemas.texts import counted

    with refusals(), JobProgress(console) as progress:
        wanted = works.Share.parse(share)
        data, _, steps = opened(dataset)
        with data.lock(shared=True):
            num_parts = works.work(data, steps, job, wanted, progress)
        console.print(f"{shown(data.root)}: {counted(num_parts, 'part')} of {job} computed")


def show_built(recipe: DataRecipe, built: Built) -> None:
    from commands.tables import ledger_table

    if not built.results:
        console.print(f"{shown(recipe.out_path())}: finished already, nothing to do")
    console.print(ledger_table(built.counts, built.num_inputs))
    if any(outcome == "error" and stage == "shard" for outcome, stage, *_ in built.counts):
        complaints.print(
            "some originals changed or vanished since they were ingested: see outcome 'error' above; --redo shard "
            "packs those that are there again"
        )


def survey_dataset(recipe: DataRecipe, progress: Observer, redo: list[str] | None = None) -> None:
    """Read every header that is not read yet, and show what the collection holds. Raises ValueError: as
    `curation.build.build`; or `redo` names a job other than headers."""
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
    from schemas.recipe import DataRecipe

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

    from schemas.recipe import DataRecipe
    from schemas.strict import apply_override

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


def caption(
    recipe: RecipeFile,
    overrides: Overrides = None,
    redo: Redo = None,
    judge_again: Annotated[
        bool, typer.Option("--judge-again", help="Judge the stored answers by the gate of today, and ask no captioner.")
    ] = False,
) -> None:
    """Write a synthetic caption for every kept picture; with --judge-again, judge again what was written."""
    if not judge_again:
        job_command("caption")(recipe, overrides, redo)
        return
    from captioning import judging
    from commands.console import JobProgress
    from schemas.recipe import DataRecipe

    with refusals(), JobProgress(console) as progress:
        if redo:
            raise ValueError(f"--redo {redo[0]}: --judge-again computes nothing anew; leave one of them out")
        data = DataRecipe.load(recipe, overrides or [])
        steps = [step for step in steps_upto(data, "caption") if step.job == "caption"]
        begin, advance = partial(progress.begin, "caption"), partial(progress.advance, "caption")
        for line in judging.judge_again(data, steps, begin, advance):
            console.print(line, markup=False, soft_wrap=True)
        if _waits_for_a_build(data):
            console.print("next: sigma build, which computes what is not up to date")


def _waits_for_a_build(data: DataRecipe) -> bool:
    """Whether something of a dataset is not as its inputs and the recipe are now."""
    from engine.dataset import Dataset
    from engine.job import State

    held = Dataset(data.out_path()).held()
    try:
        return not {step.state(held) for step in steps_upto(data)} <= {State.DONE, State.NEW}
    except ValueError:  # a knob was changed, which sigma build explains
        return True


def recipe(
    name: Annotated[
        str,
        typer.Argument(
            help="data, train, ablation, evaluation, evaluation-set or judge: every knob; or one that comes with Sigma."
        ),
    ] = "data",
) -> None:
    """Print every knob of a recipe, its default and its meaning; or a recipe that comes with Sigma, to start from."""
    from schemas.ablation import AblationRecipe
    from schemas.evaluation import EvaluationRecipe
    from schemas.evaluation_set import EvaluationSet
    from schemas.judging import JudgeRecipe
    from schemas.recipe import DataRecipe
    from schemas.strict import documented_yaml
    from schemas.training import TrainingRecipe

    with refusals():
        models: dict[str, type[StrictModel]] = {
            "data": DataRecipe,
            "train": TrainingRecipe,
            "ablation": AblationRecipe,
            "evaluation": EvaluationRecipe,
            "evaluation-set": EvaluationSet,
            "judge": JudgeRecipe,
        }
        if name not in {**models, **SHIPPED}:
            raise ValueError(f"{name}: no such recipe; there are {', '.join([*models, *SHIPPED])}")
        text = documented_yaml(models[name]) if name in models else SHIPPED[name].read_text(encoding="utf-8")
        sys.stdout.write(text.rstrip("\n") + "\n")


JOB_COMMANDS = {
    "fingerprint": "Hash every picture: pHash and pixels.",
    "aesthetic": "Score every picture.",
    "dedup": "Group pictures that are the same.",
    "clean": "Clean the raw captions: take out HTML and addresses, refuse junk.",
    "screen": "Look for blur, enlarging, borders, writing, faces, and what classifiers know (off by default).",
    "select": "Apply the rules: what stays, what goes, why.",
    "mix": "Toss the caption coin: synthetic or raw.",
    "ground": "Score how well captions fit their pictures (off by default; needs weights).",
    "statistics": "Count them: the paper's Table 1.",
    "balance": "Weigh images by how common their concepts are (off by default).",
    "shard": "Pack WebDataset tars and their index.",
}
"""Job -> what its command does; ingest, nouns and caption, which take more, are functions of their own."""
