"""The commands `export` and `export-report`: a model for a runtime outside of torch, and what it costs there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from commands.terminal import (
    ImageSize,
    NumHeads,
    PeInterpolation,
    Raw,
    Weights,
    complaints,
    console,
    local,
    refusals,
    shown,
)
from training.runtimes.kinds import Recipe, Runtime


def export(
    source: Weights,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; must not exist.", callback=local)],
    runtime: Annotated[Runtime, typer.Option(help="What runs the model.")],
    recipe: Annotated[Recipe, typer.Option(help="How weights and activations are kept.")],
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Height and width in px, of a graph for this size alone.")
    ] = None,
    raw: Raw = False,
    num_heads: NumHeads = None,
    image_size: ImageSize = None,
    pe_interpolation: PeInterpolation = None,
) -> None:
    """Write a model for a laptop's runtime, smaller and faster, and compare it with torch before it gets its name."""
    with refusals(f"stopped; nothing is written at {target}"):
        fixed = sides(size)  # before torch, which takes a second

        from commands.console import JobProgress, logging_to
        from training.model.architecture import Hints
        from training.runtimes.export import STEPS, export_model

        hints = Hints(num_heads, image_size, pe_interpolation)
        with logging_to(complaints, "training"), JobProgress(complaints) as bar:
            bar.begin("export", len(STEPS))
            done = export_model(
                source,
                target,
                runtime,
                recipe,
                ema=not raw,
                hints=hints,
                size=fixed,
                step=lambda _: bar.advance("export", 1),
            )
        for note in done.notes:
            complaints.print(f"note: {note}", markup=False, soft_wrap=True)
        worst = max(done.manifest.parity, key=lambda each: each.relative_error)
        megabytes = sum(path.stat().st_size for path in target.iterdir()) / 1e6
        console.print(
            f"{done.manifest.runtime} {done.manifest.runtime_version}, {done.manifest.recipe}: {megabytes:,.1f} MB, "
            f"relative error at most {worst.relative_error:.1e} ({worst.sqnr_db:.0f} dB): {shown(target)}",
            soft_wrap=True,
        )


def sides(size: str | None) -> tuple[int, int] | None:
    """Height and width of `HxW`. Raises ValueError: it is something else."""
    if size is None:
        return None
    if (match := re.fullmatch(r"(\d{1,6})x(\d{1,6})", size)) is None:
        raise ValueError(f"--size {size}: write height x width in px, such as 512x768")
    return int(match[1]), int(match[2])


def export_report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Folders that sigma export has written.", callback=local)
    ],
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Height and width in px; else what it was trained for.")
    ] = None,
    calls: Annotated[int, typer.Option(min=1, help="Passes of a picture: twice the steps with guidance.")] = 40,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1,
) -> None:
    """Show what each export costs on this machine: files, seconds, memory, and how exact it is."""
    with refusals():
        shape = sides(size)

        from training.runtimes.report import COLUMNS, machine, report

        rows = report(folders, size=shape, calls=calls, threads=threads)  # refused before anything is printed
        console.print(f"measured on: {machine(threads)}", markup=False, soft_wrap=True)
        console.print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", markup=False, soft_wrap=True)
        for row in rows:
            console.print(f"| {' | '.join(row)} |", markup=False, soft_wrap=True)
