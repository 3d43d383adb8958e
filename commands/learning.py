"""Commands about models: encode features, train, sample, convert weights, check a captioner."""

from __future__ import annotations

import os
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.exporting import sides
from commands.terminal import (
    UNCHANGED,
    ImageSize,
    NumHeads,
    Overrides,
    PeInterpolation,
    Raw,
    StageName,
    TrainingFile,
    Weights,
    complaints,
    console,
    local,
    refusals,
    shown,
)

if TYPE_CHECKING:  # imported where they are used: the command starts fast
    from schemas.training import TrainingRecipe
    from training.train import StageSummary


class Kind(StrEnum):
    text = "text"
    latents = "latents"


def encode(
    recipe: TrainingFile,
    overrides: Overrides = None,
    stage: Annotated[str | None, typer.Option("--stage", help="The latents of this stage only.")] = None,
    only: Annotated[Kind | None, typer.Option(help="One kind; embeddings of text take most of the space.")] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Encode again what exists.")] = False,
) -> None:
    """Encode pictures and captions once, so that training need not. Run it again to continue."""
    from commands.console import JobProgress
    from commands.tables import duration
    from schemas.training import TrainingRecipe
    from training.encode import encode_features

    with refusals(), JobProgress(console) as bar:
        trained = TrainingRecipe.load(recipe, overrides or [])
        for done in encode_features(trained, bar, only_stage=stage, only_kind=only, redo=redo):
            record = done.record
            damaged = f", [yellow]{record.num_damaged:,} damaged[/]" if record.num_damaged else ""
            console.print(
                f"[green]✓[/] {done.name:<22} {record.num_samples:>9,} samples, {done.bytes_per_image:,.0f} bytes "
                f"each{damaged}; {done.num_computed:,} of {done.num_shards:,} shards encoded now, "
                f"{duration(done.seconds)}: {shown(done.folder)}",
                soft_wrap=True,
            )


def index(
    tars: Annotated[
        str,
        typer.Argument(metavar="TARS", help="A folder of tars, or a pattern: 'tars/{000..099}.tar'.", callback=local),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Dataset folder of the index; else the folder of the tars.", callback=local)
    ] = None,
) -> None:
    """Index tars of WebDataset or img2dataset, so that the trainer reads them where they are, without a build."""
    from commands.console import JobProgress
    from curation.shards.foreign_index import find_tars, index_tars
    from schemas.texts import counted

    with refusals(), JobProgress(console) as bar:
        found = find_tars(tars)
        bar.begin("index", len(found))
        done = index_tars(found, out, partial(bar.advance, "index"))
        console.print(
            f"[green]✓[/] index: {counted(done.buckets.total(), 'sample')} in {counted(done.num_tars, 'tar')}, in the "
            "aspect buckets (height / width)"
        )
        buckets = sorted(done.buckets.items(), key=lambda bucket: float(bucket[0]))
        console.print("  " + ", ".join(f"{label}: {count:,}" for label, count in buckets))
        for reason, count in done.left_out.most_common():
            console.print(f"  left out: {count:,} {reason}", markup=False)
        console.print(f"next: sigma train RECIPE dataset={done.path.parent.parent}", markup=False, soft_wrap=True)


def train(
    recipe: TrainingFile,
    overrides: Overrides = None,
    stage: StageName = None,
    from_last_good: Annotated[
        bool, typer.Option("--from-last-good", help="Go on from the last whole checkpoint, with other lr and the like.")
    ] = False,
) -> None:
    """Train the stages of a recipe; run it again to continue. Under torchrun every process takes its share."""
    from schemas.training import TrainingRecipe

    with refusals():
        train_stages(TrainingRecipe.load(recipe, overrides or []), stage, from_last_good=from_last_good)


def train_stages(
    recipe: TrainingRecipe, stage: str | None = None, *, from_last_good: bool = False
) -> list[StageSummary]:
    """Train and show a bar per stage, then a line each."""
    from commands.console import logging_to, stage_bars
    from commands.tables import duration
    from training.train import train as run

    evaluate = None
    if recipe.evaluation.every:
        from evaluation.quick import QuickEvaluation

        evaluate = QuickEvaluation(recipe)
        for why in evaluate.missing if os.environ.get("RANK", "0") == "0" else ():
            complaints.print(f"no evaluation while training: {why}", markup=False, soft_wrap=True)
    with stage_bars(console) as show, logging_to(console, "training"):
        summaries = run(recipe, only_stage=stage, from_last_good=from_last_good, on_progress=show, evaluate=evaluate)
    for done in summaries:
        took = "finished already" if done.skipped else duration(done.seconds)
        console.print(
            f"[green]✓[/] {done.name:<18} {done.steps:>7,} steps   "
            f"loss {done.first_loss:.3f} → {done.last_loss:.3f}   {took}"
        )
    return summaries


def sample(
    recipe: TrainingFile,
    overrides: Overrides = None,
    stage: StageName = None,
    prompt: Annotated[list[str] | None, typer.Option(help="A text to draw; training captions where none.")] = None,
    aspect: Annotated[str, typer.Option(help="Height / width of what a prompt draws: a bucket's label.")] = "1.0",
    out: Annotated[Path, typer.Option(help="The PNG to write.", callback=local)] = Path("samples.png"),
    count: Annotated[int, typer.Option(min=1, help="How many training captions to draw.")] = 12,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    weights: Annotated[
        Path | None, typer.Option(help="Weights on disk to draw with, in place of a checkpoint.", callback=local)
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="An export to draw prompts with, in place of a checkpoint.", callback=local
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="With --runtime: height and width in px, in place of --aspect.")
    ] = None,
) -> None:
    """Sample pictures from a trained model."""
    from commands.console import logging_to
    from schemas.texts import counted
    from schemas.training import TrainingRecipe

    with refusals(f"stopped; nothing is written at {out}"), logging_to(complaints, "training"):
        if size is not None and runtime is None:
            raise ValueError("--size is for an exported model; give --runtime FOLDER, or --aspect in its place")
        if runtime is not None and (stage is not None or weights is not None):
            other = "--stage" if weights is None else "--weights"
            raise ValueError(f"--runtime and {other} are two models; give one of them")
        if out.suffix.lower() != ".png":
            raise ValueError(f"--out {out}: a PNG is written; give it a name that ends in .png")
        shape = sides(size)
        trained = TrainingRecipe.load(recipe, overrides or [])

        from training.sample import sample_grid, sample_prompts

        if runtime is not None:
            from training.runtimes.drawing import sample_exported

            drawn = sample_exported(trained, runtime, prompt or [], out, aspect=aspect, size=shape, seed=seed)
        elif prompt:
            drawn = sample_prompts(trained, prompt, out, stage=stage, aspect=aspect, seed=seed, weights=weights)
        else:
            drawn = sample_grid(trained, stage=stage, out=out, count=count, seed=seed, weights=weights)
        model = runtime or weights
        source = f"stage {drawn.stage}" if model is None else shown(model)
        console.print(f"{counted(len(drawn.captions), 'picture')} from {source}: {shown(drawn.path)}")


class LayoutName(StrEnum):
    sigma = "sigma"
    official = "official"
    diffusers = "diffusers"


def convert(
    source: Weights,
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="The file or folder to write; must not exist.", callback=local)
    ],
    to: Annotated[LayoutName, typer.Option(help="The layout to write.")],
    drop_kv_compression: Annotated[
        bool, typer.Option("--drop-kv-compression", help="Leave KV compression out, which changes the model.")
    ] = False,
    vae: Annotated[
        Path | None, typer.Option(help="Folder of the VAE: makes diffusers' a whole pipeline.", callback=local)
    ] = None,
    text_encoder: Annotated[
        Path | None, typer.Option(help="Folder of T5 and its tokenizer: as --vae.", callback=local)
    ] = None,
    raw: Raw = False,
    num_heads: NumHeads = None,
    image_size: ImageSize = None,
    pe_interpolation: PeInterpolation = None,
) -> None:
    """Write weights in another layout: ours, the official .pth, diffusers' folder or a whole pipeline of it."""
    from commands.console import logging_to
    from training.export.pipeline import write_pipeline
    from training.export.weights import read_model, write_weights
    from training.model.architecture import Hints

    with refusals(f"stopped; nothing is written at {target}"), logging_to(complaints, "training"):
        is_pipeline = vae is not None or text_encoder is not None
        if is_pipeline and (vae is None or text_encoder is None or to is not LayoutName.diffusers):
            raise ValueError("a whole pipeline needs --vae and --text-encoder, both, and --to diffusers")
        hints = Hints(num_heads, image_size, pe_interpolation)
        model = read_model(source, drop_kv_compression=drop_kv_compression, ema=not raw, hints=hints)
        if vae is not None and text_encoder is not None:
            done = write_pipeline(model, target, vae=vae, text_encoder=text_encoder)
        else:
            done = write_weights(model, target, to.value)
        for note in done.notes:
            complaints.print(f"note: {note}", markup=False)
        console.print(f"weights: {shown(done.path)}")


def validate(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Share-Captioner's weights: a folder or hub id.", callback=local)
    ],
    images: Annotated[
        Path, typer.Option(help="Captions it has written: folder with .txt, .tsv, or ShareGPT4V .json.", callback=local)
    ],
    root: Annotated[
        Path | None, typer.Option(help="Folder of the pictures of a .tsv or .json.", callback=local)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most pairs to read.")] = 200,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
) -> None:
    """Find the reading of the weights' resampler that makes published captions likeliest."""
    with refusals(UNCHANGED):
        from captioning.captioners.share_captioner.validate import validate_weights

        validate_weights(folder, images, root, limit, device, console)
