"""The front door: the `sigma` command, and the order of the jobs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from schemas.recipe import JOBS, DataRecipe
from schemas.strict import documented_yaml, read_yaml

if TYPE_CHECKING:  # imported where they are used: the command starts fast
    from curation.dataset import Dataset
    from curation.job import Step
    from schemas.training import TrainingRecipe
    from training.train import StageSummary

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Raw photos to a PixArt-Σ-style dataset, and the trainer that learns from it.\n\n"
    "Start with [bold]sigma demo[/], or with your own folder:\n\n"
    "  sigma build recipes/folder.yaml images=~/Pictures out=my-dataset",
)
console = Console(highlight=False)
complaints = Console(stderr=True, highlight=False)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A data recipe (YAML); see recipes/folder.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE...", help="Knobs to set: out=my-dataset mix.synthetic_share=0.5"),
]
DatasetFolder = Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset folder.")]
Redo = Annotated[
    list[str] | None,
    typer.Option("--redo", metavar="JOB", help="Compute this job and what depends on it anew. May be repeated."),
]
TrainingFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A training recipe; see recipes/train_demo.yaml.")]
StageName = Annotated[str | None, typer.Option("--stage", help="This stage only; the last trained one for sample.")]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ["SIGMA_DEBUG"] = "1"


def shown(text: str | Path) -> str:
    """A path or text for the console: never read as markup."""
    return escape(str(text))


# ------------------------------------------------------------------------------------------------ the order of the jobs


def pipeline(recipe: DataRecipe) -> list[Step]:
    """Every step from raw images to shards, in order."""
    from captioning import clean, ground, mix, nouns, recaption, statistics
    from curation import aesthetic, dedup, fingerprint, ingest, screen, select, shard_plan, shard_writer
    from curation.dataset import Dataset
    from curation.job import Step

    return [
        Step(ingest.stage(recipe)),
        Step(fingerprint.stage(recipe)),
        Step(aesthetic.stage(recipe)),
        Step(dedup.reduce(recipe)),
        Step(clean.stage(recipe)),
        *([Step(screen.stage(recipe))] if recipe.screen.columns() else []),
        Step(select.reduce(recipe)),
        *map(Step, recaption.stages(recipe)),
        Step(mix.stage(recipe)),
        Step(nouns.stage(recipe)),
        *([Step(ground.stage(recipe))] if recipe.ground.enabled else []),
        Step(statistics.reduce(recipe)),
        Step(shard_plan.reduce(recipe)),
        Step(shard_writer.stage(recipe, Dataset(recipe.out_path()))),
    ]


def build_dataset(
    recipe: DataRecipe, upto: str = JOBS[-1], redo: list[str] | None = None, retry_failed: bool = False
) -> dict[str, float]:
    """Run the jobs up to one of them and show what came of it; seconds by job."""
    from curation import pipeline as runs
    from curation import select
    from curation.console import JobProgress, ledger_table

    unknown = [job for job in redo or [] if job not in JOBS]
    if unknown:
        raise ValueError(f"--redo {unknown[0]}: no such job; there are {', '.join(JOBS)}")
    if upto == "ground" and not recipe.ground.enabled:
        raise ValueError("ground.enabled is false; set ground.enabled=true, the job needs the weights of ground.clip")
    if upto == "screen" and not recipe.screen.columns():
        raise ValueError("no screen is on; set one, such as screen.sharpness=true")
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


@app.command()
def build(recipe: RecipeFile, overrides: Overrides = None, redo: Redo = None) -> None:
    """Build a dataset: every job in order. Run it again after anything; it goes on where it was."""
    with refusals():
        data = DataRecipe.load(recipe, overrides or [])
        build_dataset(data, redo=redo)
        console.print(f"shards: {shown(data.out_path() / 'shards')}   next: sigma report {shown(data.out_path())}")


_SINGLE = "Single jobs (each brings what it needs up to date first)"


@app.command(rich_help_panel=_SINGLE)
def ingest(
    recipe: RecipeFile,
    overrides: Overrides = None,
    redo: Redo = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Fetch again what timed out, was refused for now or had no connection."),
    ] = False,
) -> None:
    """List the inputs, read each once: size, sha256, upright sRGB proxy."""
    with refusals():
        build_dataset(DataRecipe.load(recipe, overrides or []), upto="ingest", redo=redo, retry_failed=retry_failed)


def _add_job_command(job: str, what: str) -> None:
    def command(recipe: RecipeFile, overrides: Overrides = None, redo: Redo = None) -> None:
        with refusals():
            build_dataset(DataRecipe.load(recipe, overrides or []), upto=job, redo=redo)

    app.command(job, rich_help_panel=_SINGLE, help=what)(command)


for _job, _what in {
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
    "shard": "Pack WebDataset tars and their index.",
}.items():
    _add_job_command(_job, _what)


# ------------------------------------------------------------------------------------------------- looking at a dataset


@app.command()
def status(dataset: DatasetFolder) -> None:
    """Show parts done per job, and the ledger."""
    from curation import catalog
    from curation.console import ledger_table, rows_table
    from curation.dataset import Dataset

    with refusals():
        data = Dataset(dataset.absolute())
        catalog.require_dataset(data)
        recipe = DataRecipe.load(data.recipe, [f"out={data.root}"])
        rows = []
        for step in pipeline(recipe):
            total, missing = step.num_parts(data), len(step.missing(data))
            rows.append((step.job, step.outputs[-1], f"{total - missing:,} of {total:,}"))
        console.print(rows_table(["job", "table", "parts done"], rows))
        with catalog.connect(data) as connection:
            counts = catalog.ledger_counts(connection)
        console.print(ledger_table(counts, sum(count for *_, count in counts)))


@app.command()
def stats(
    dataset: DatasetFolder,
    top: Annotated[int, typer.Option(help="How many nouns to list.")] = 15,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B", help="Two caption sources side by side: raw, synthetic, mix, or a captioner's name."
        ),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="Nouns gained and lost since another dataset.")
    ] = None,
    nouns: Annotated[bool, typer.Option("--nouns", help="Nouns with the share of captions that have them.")] = False,
    growth: Annotated[bool, typer.Option("--growth", help="Distinct nouns against the number of captions.")] = False,
    pairs: Annotated[bool, typer.Option("--pairs", help="Nouns that stand together in a caption.")] = False,
    source: Annotated[str, typer.Option(help="Whose captions the last four ask about.")] = "mix",
    form: Annotated[str, typer.Option("--format", help="text, or one table as json, csv, markdown or latex.")] = "text",
) -> None:
    """Show the caption statistics: Table 1 beside the paper's, the realised mix, and the commonest nouns."""
    from captioning.stats import Question, shown_stats
    from curation import catalog
    from curation.dataset import Dataset

    with refusals(), ExitStack() as open_until_then:
        data = Dataset(dataset.absolute())
        connection = open_until_then.enter_context(catalog.connect(data))
        other = open_until_then.enter_context(catalog.connect(Dataset(against.absolute()))) if against else None
        valid_above = DataRecipe.load(data.recipe, [f"out={data.root}"]).statistics.valid_above
        question = Question(top, form, compare, source, nouns, growth, pairs)
        for part in shown_stats(connection, question, valid_above, other):
            if isinstance(part, str):
                sys.stdout.write(part)  # as it is: a console would wrap it
            else:
                console.print(part)


@app.command()
def sql(
    dataset: DatasetFolder,
    query: Annotated[str | None, typer.Argument(help="One SELECT.")] = None,
    tables: Annotated[bool, typer.Option("--tables", help="Print the views and their columns.")] = False,
    limit: Annotated[int, typer.Option(help="Most rows to print.")] = 1000,
) -> None:
    """Query a dataset with SQL, read-only. Views: every table, and `ledger` with one row per input."""
    from curation import catalog
    from curation.console import rows_table
    from curation.dataset import Dataset

    with refusals():
        if query is None and not tables:
            raise ValueError("give a query, or --tables to see what there is to query")
        with catalog.connect_read_only(Dataset(dataset.absolute())) as connection:
            text = query if query is not None else "SELECT table_name, column_name, data_type FROM duckdb_columns()"
            result = catalog.query(connection, text)
            names = [column[0] for column in result.description or []]
            rows = result.fetchmany(limit + 1)
            console.print(rows_table(names, rows[:limit]))
            if len(rows) > limit:
                complaints.print(f"more than {limit} rows: the rest is not shown (--limit)")


@app.command()
def report(dataset: DatasetFolder, out: Annotated[Path | None, typer.Option(help="Where to write it.")] = None) -> None:
    """Write report.html: the funnel, the statistics, and pictures with their captions, in one file."""
    with refusals():
        console.print(f"report: {shown(write_report_page(dataset.absolute(), out))}")


def write_report_page(dataset: Path, out: Path | None = None) -> Path:
    """Write the page of a dataset; where it lies."""
    from curation import catalog
    from curation.dataset import Dataset
    from curation.report import write_report

    data = Dataset(dataset)
    path = out or data.report
    with catalog.connect(data) as connection:
        write_report(connection, data.root, path)
    return path


@app.command()
def browse(
    dataset: DatasetFolder,
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on; only this machine reaches the default.")] = (
        "127.0.0.1"
    ),
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name that browsers may ask for. May be repeated."),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
) -> None:
    """Look at a dataset in a browser: search, filter, nouns, thresholds, every row. Read-only; Ctrl-C ends it."""
    import webbrowser

    from curation import browse as pages
    from curation.dataset import Dataset

    def ready(url: str) -> None:
        console.print(f"browse: {shown(url)}   (Ctrl-C ends it)")
        if not no_open:
            webbrowser.open(url)

    with refusals():
        if not pages.is_loopback(host):
            complaints.print(
                f"warning: {shown(host)} can be reached from other machines, and nobody is asked who they are"
            )
        pages.serve(Dataset(dataset.absolute()), host, port, allow_host or [], ready)


@app.command()
def doctor(
    dataset: Annotated[Path | None, typer.Argument(metavar="DATASET")] = None,
    mend: Annotated[bool, typer.Option("--repair", help="Make again what is broken, and nothing else.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Files that are looked at at once.")] = os.cpu_count() or 1,
) -> None:
    """Check this machine, or every file of a dataset."""
    from curation import doctor as checks
    from curation.console import JobProgress
    from curation.repair import repair

    with refusals():
        if mend and dataset is None:
            raise ValueError("--repair mends a dataset: name its folder")
        with JobProgress(console) as bar:
            if mend and dataset is not None:
                _, made_by, steps = opened(dataset)
                for line in repair(made_by, steps, bar):
                    console.print(line, markup=False, soft_wrap=True)
            if dataset is not None:
                root = dataset.absolute()
                bar.begin("doctor", checks.num_to_check(root))
                findings = checks.check_dataset(root, threads, bar.advance)
                bar.end("doctor", None)
            else:
                findings = checks.check_machine()
        for finding in findings:
            mark = "[green]ok[/] " if finding.fine else "[red]bad[/]"
            console.print(f"{mark} {shown(finding.subject)}: {shown(finding.text)}")
        if not all(finding.fine for finding in findings):
            raise typer.Exit(1)


@app.command()
def cuts(
    dataset: DatasetFolder,
    overrides: Annotated[list[str], typer.Argument(metavar="select.KEY=VALUE...", help="Thresholds to move.")],
    pictures: Annotated[int, typer.Option(min=0, help="To name on each side of a moved threshold.")] = 10,
    page: Annotated[Path | None, typer.Option("--html", help="Write a page that shows them.")] = None,
) -> None:
    """Show what other thresholds would keep, from the tables alone; nothing is computed or changed."""
    from curation import cuts as comparison

    with refusals():
        data, made_by, _ = opened(dataset)
        found = comparison.what_if(data, made_by, comparison.changed_recipe(made_by, overrides), pictures)
        for line in comparison.lines(found):
            console.print(line, markup=False, soft_wrap=True)
        if page is not None:
            comparison.write_page(data, found, page)
            console.print(f"page: {shown(page)}")


@app.command()
def purge(
    dataset: DatasetFolder,
    why: Annotated[str | None, typer.Option(help="Goes into the log and the ledger; needed.")] = None,
    image_id: Annotated[list[str] | None, typer.Option(help="May be repeated, as every selector.")] = None,
    sha256: Annotated[list[str] | None, typer.Option(help="Of the original bytes.")] = None,
    url: Annotated[list[str] | None, typer.Option(help="Exactly.")] = None,
    domain: Annotated[list[str] | None, typer.Option(help="Of the URL, and all its subdomains.")] = None,
    phash: Annotated[list[str] | None, typer.Option(help="16 hex digits; pictures within --distance bits.")] = None,
    distance: Annotated[int, typer.Option(help="Of --phash, in bits.")] = 0,
    duplicates: Annotated[bool, typer.Option("--duplicates", help="Near doubles of a match go too.")] = False,
    features: Annotated[list[Path] | None, typer.Option(help="Stored features that lie outside the dataset.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; change nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Only finish a takedown that was interrupted.")] = False,
) -> None:
    """Take images out for good: of tables, captions, shards and features. They are never ingested again."""
    from curation import purge as takedowns
    from curation.takedown import Wanted

    with refusals():
        hashes = (tuple(image_id or ()), tuple(sha256 or ()), tuple(url or ()), tuple(domain or ()), tuple(phash or ()))
        wanted = None if resume else Wanted(*hashes, distance=distance, duplicates=duplicates)
        data, made_by, steps = opened(dataset)
        if wanted is not None and not dry_run and not (why and why.strip()):
            raise ValueError("--why is missing: the log says why an image was taken out")
        told = takedowns.show_and_purge(data, steps, wanted, why or "", features or [], dry_run, made_by.run)
        for line in told:
            console.print(line, markup=False, soft_wrap=True)


def opened(dataset: Path) -> tuple[Dataset, DataRecipe, list[Step]]:
    """A dataset, the recipe that made it, and the steps of that recipe."""
    from curation import catalog
    from curation.dataset import Dataset

    data = Dataset(dataset.absolute())
    catalog.require_dataset(data)
    made_by = DataRecipe.load(data.recipe, [f"out={data.root}"])
    return data, made_by, pipeline(made_by)


@app.command()
def recipe() -> None:
    """Print every knob of a data recipe with its default and what it means."""
    console.print(documented_yaml(DataRecipe), markup=False, soft_wrap=True)


captioners = typer.Typer(no_args_is_help=True, help="Check a captioner's weights.")
app.add_typer(captioners, name="captioner")


@captioners.callback()
def captioner_commands() -> None:
    """Keeps `validate` a command of its own while it is the only one."""


@captioners.command()
def validate(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Share-Captioner's weights: a folder or hub id.")],
    images: Annotated[Path, typer.Option(help="Captions it has written: folder with .txt, .tsv, or ShareGPT4V .json.")],
    root: Annotated[Path | None, typer.Option(help="Where the pictures of a .tsv or .json lie.")] = None,
    limit: Annotated[int, typer.Option(help="Most pairs to read.")] = 200,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
) -> None:
    """Tell which reading of the weights' resampler makes published captions likeliest."""
    with refusals():
        from captioning.share_captioner.validate import validate_weights

        validate_weights(folder, images, root, limit, device, console)


# ----------------------------------------------------------------------------------------------------- training


class Kind(StrEnum):
    """The kinds of features."""

    text = "text"
    latents = "latents"


@app.command()
def encode(
    recipe: TrainingFile,
    overrides: Overrides = None,
    stage: Annotated[str | None, typer.Option("--stage", help="The latents of this stage only.")] = None,
    only: Annotated[Kind | None, typer.Option(help="One kind; embeddings of text take most of the space.")] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Encode anew what is there.")] = False,
) -> None:
    """Encode pictures and captions once, so that training need not. Run it again to go on where it was."""
    from schemas.training import TrainingRecipe

    with refusals():
        encode_dataset(TrainingRecipe.load(recipe, overrides or []), stage, only, redo)


def encode_dataset(
    recipe: TrainingRecipe, stage: str | None = None, only: Kind | None = None, redo: bool = False
) -> None:
    """Encode the sets that the stages want, on the runner that the recipe names, and show a line each."""
    from curation.console import JobProgress, duration
    from curation.dataset import Dataset
    from curation.runner import LocalRunner, Runner
    from training.encode import EncodeJob, encode_features
    from training.features import index_digest

    index_digest(recipe)  # refuses a folder that is no dataset, before a lock is made in it
    dataset, knobs, runners = Dataset(recipe.dataset.absolute()), recipe.features, list[Runner]()

    def run(job: EncodeJob, parts: Sequence[int]) -> int:
        if not runners:
            if knobs.runner == "local":
                runners.append(LocalRunner())
            else:
                from curation.ray_runner import RayRunner

                runners.append(RayRunner(knobs.workers, knobs.retries))
        return sum(part.computed for part in runners[0].run(dataset, job, parts, bar.advance))

    with dataset.lock(), JobProgress(console) as bar:
        try:
            for done in encode_features(recipe, run, bar.begin, only_stage=stage, only_kind=only, redo=redo):
                record = done.record
                damaged = f", [yellow]{record.num_damaged:,} damaged[/]" if record.num_damaged else ""
                console.print(
                    f"[green]✓[/] {done.name:<22} {record.num_samples:>9,} samples, {done.bytes_per_image:,.0f} bytes "
                    f"each{damaged}; {done.num_computed:,} of {done.num_shards:,} shards encoded now, "
                    f"{duration(done.seconds)}: {shown(done.folder)}",
                    soft_wrap=True,
                )
        finally:
            for runner in runners:
                runner.close()


@app.command()
def train(recipe: TrainingFile, overrides: Overrides = None, stage: StageName = None) -> None:
    """Train the stages of a recipe; run it again to go on. Under torchrun every process takes its share."""
    from schemas.training import TrainingRecipe

    with refusals():
        train_stages(TrainingRecipe.load(recipe, overrides or []), stage)


@app.command()
def sample(
    recipe: TrainingFile,
    overrides: Overrides = None,
    stage: StageName = None,
    prompt: Annotated[list[str] | None, typer.Option(help="A text to draw; training captions where none.")] = None,
    aspect: Annotated[str, typer.Option(help="Height / width of what a prompt draws: a bucket's label.")] = "1.0",
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("samples.png"),
    count: Annotated[int, typer.Option(help="How many training captions to draw.")] = 12,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
) -> None:
    """Sample pictures from a trained model."""
    from schemas.training import TrainingRecipe
    from training.sample import sample_grid, sample_prompts

    with refusals():
        trained = TrainingRecipe.load(recipe, overrides or [])
        if prompt:
            drawn = sample_prompts(trained, prompt, out, stage=stage, aspect=aspect, seed=seed)
        else:
            drawn = sample_grid(trained, stage=stage, out=out, count=count, seed=seed)
        console.print(f"{len(drawn.captions)} pictures from stage {drawn.stage}: {shown(drawn.path)}")


class LayoutName(StrEnum):
    """The layouts that weights are written in."""

    sigma = "sigma"
    official = "official"
    diffusers = "diffusers"


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A .pth, a checkpoint, .safetensors or a folder.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The file or folder to write; must not exist.")],
    to: Annotated[LayoutName, typer.Option(help="The layout to write.")],
    drop_kv_compression: Annotated[
        bool, typer.Option("--drop-kv-compression", help="Leave KV compression out, which changes the model.")
    ] = False,
    vae: Annotated[Path | None, typer.Option(help="Folder of the VAE: makes diffusers' a whole pipeline.")] = None,
    text_encoder: Annotated[Path | None, typer.Option(help="Folder of T5 and its tokenizer: as --vae.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Of a checkpoint the last weights, not their average.")] = False,
    num_heads: Annotated[int | None, typer.Option(help="Where SRC does not tell; else its width / 72.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Where SRC does not tell, px.")] = None,
    pe_interpolation: Annotated[float | None, typer.Option(help="Where it is not image size / 512.")] = None,
) -> None:
    """Write weights in another layout: ours, the official .pth, diffusers' folder or a whole pipeline of it."""
    from training.export import convert as rewrite
    from training.model.architecture import Hints
    from training.pipeline_export import export_pipeline

    with refusals():
        hints = Hints(num_heads, image_size, pe_interpolation)
        if vae is None and text_encoder is None:
            done = rewrite(source, target, to.value, drop_kv_compression=drop_kv_compression, ema=not raw, hints=hints)
        elif vae is None or text_encoder is None or to is not LayoutName.diffusers:
            raise ValueError("a whole pipeline needs --vae and --text-encoder, both, and --to diffusers")
        else:
            done = export_pipeline(
                source,
                target,
                vae=vae,
                text_encoder=text_encoder,
                drop_kv_compression=drop_kv_compression,
                ema=not raw,
                hints=hints,
            )
        for note in done.notes:
            complaints.print(f"note: {note}", markup=False)
        console.print(f"weights: {shown(done.path)}")


def train_stages(recipe: TrainingRecipe, stage: str | None = None) -> list[StageSummary]:
    """Train and show a bar per stage, then a line each."""
    from curation.console import duration, stage_bars, told
    from training.train import train as run

    with stage_bars(console) as show, told(console, "training"):
        summaries = run(recipe, only_stage=stage, on_progress=show)
    for done in summaries:
        took = "finished already" if done.skipped else duration(done.seconds)
        console.print(
            f"[green]✓[/] {done.name:<18} {done.steps:>7,} steps   "
            f"loss {done.first_loss:.3f} → {done.last_loss:.3f}   {took}"
        )
    return summaries


# ----------------------------------------------------------------------------------------------------- the demo


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where everything goes.")] = Path("demo"),
    runner: Annotated[str, typer.Option(help="ray or local.")] = "ray",
) -> None:
    """Build a dataset from real photographs, train on it, and show what the model draws. About four minutes."""
    from captioning.stats import Question, shown_stats
    from curation import catalog
    from curation.console import duration
    from curation.dataset import Dataset
    from curation.sources.demo_photos import write_demo_photos
    from schemas.training import TrainingRecipe
    from training.sample import sample_grid

    with refusals():
        recipes = Path(__file__).parent / "recipes"
        clock = {"start": time.perf_counter()}
        console.rule("1. photographs")
        console.print(f"{write_demo_photos(out / 'photos')} files in {shown(out / 'photos')}, some bad on purpose")
        console.rule("2. dataset")
        knobs = read_yaml(recipes / "demo.yaml") | {"images": str(out / "photos"), "out": str(out / "dataset")}
        knobs["run"] = {"runner": runner}
        jobs = build_dataset(DataRecipe.from_mapping(knobs))
        clock["dataset"] = time.perf_counter()
        console.rule("3. training, weak to strong")
        knobs = read_yaml(recipes / "train_demo.yaml") | {"dataset": str(out / "dataset"), "out": str(out / "model")}
        trained = TrainingRecipe.from_mapping(knobs)
        train_stages(trained)
        clock["training"] = time.perf_counter()
        console.rule("4. pictures and report")
        drawn = sample_grid(trained, out=out / "samples.png", count=12)
        page = write_report_page((out / "dataset").absolute())
        clock["pictures"] = time.perf_counter()
        console.rule("done")
        with catalog.connect(Dataset((out / "dataset").absolute())) as connection:
            for part in shown_stats(connection, Question(top=5), valid_above=10):
                console.print(part)
        times = list(clock.items())
        for (_, before), (phase, after) in pairwise(times):
            console.print(f"{phase:<10} {duration(after - before):>14}")
        console.print(f"  of which jobs: {', '.join(f'{job} {duration(s)}' for job, s in jobs.items()) or 'none'}")
        console.print(f"photographs   {shown(out / 'photos')}")
        console.print(f"dataset       {shown(out / 'dataset')}   (sigma sql {shown(out / 'dataset')} --tables)")
        console.print(f"shards        {shown(out / 'dataset' / 'shards')}")
        console.print(f"model         {shown(out / 'model')}")
        console.print(
            f"pictures      {shown(drawn.path)}   (each photograph above what the model draws from its caption)"
        )
        console.print(
            f"              {drawn.recognised} of {len(drawn.captions)} are closest to their own photograph; "
            f"mean correlation with it at 16 x 16 px {sum(drawn.likeness) / len(drawn.likeness):.2f}"
        )
        console.print(f"report        {shown(page)}")


# ----------------------------------------------------------------------------------------------------- errors


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what a user can mend into one line and exit status 1; a traceback only with --debug."""
    from curation.runner import PartFailed, describe

    try:
        yield
    except KeyboardInterrupt:
        complaints.print("stopped; what was finished stays, run the same command to go on")
        raise typer.Exit(130) from None
    except (ValueError, OSError, PartFailed) as error:
        if os.environ.get("SIGMA_DEBUG"):
            raise
        complaints.print("[red]error:[/] ", end="")
        complaints.print(str(error) if isinstance(error, PartFailed) else describe(error), markup=False)
        raise typer.Exit(1) from None


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Last resort for a defect of ours: say so in one line, the traceback only with --debug."""
    if os.environ.get("SIGMA_DEBUG"):
        sys.__excepthook__(kind, error, trace)
        return
    complaints.print(f"internal error: {kind.__name__}: {error}", markup=False)
    complaints.print("This is a defect of sigma, not of your data; sigma --debug COMMAND shows where it happened.")


def main() -> None:
    """Entry point of the `sigma` command."""
    sys.excepthook = _one_line
    typer.main.get_command(app)()


if __name__ == "__main__":
    main()
