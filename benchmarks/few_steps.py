"""How alike the demo's pictures stay in fewer steps: of its last stage, and of the few-step model of distil_demo.

`python -m benchmarks.few_steps [demo]` also writes their figure docs/few_steps.svg. Likeness is the demo's measure:
correlation of a drawn picture with its own training picture, at 16 x 16 px.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

import recipes
from schemas.training import Sampling, TrainingRecipe
from training.sample import sample_grid
from training.train import train

SEEDS = (0, 1, 2, 3)
PICTURES = 15
GOAL = 0.9
FEW = ((8, 999), (4, 999), (2, 999), (1, 999), (2, 749), (1, 499))
"""Steps, and the noise level at which pure noise is taken."""
GUIDED, UNGUIDED, STUDENT = "teacher, DPM-Solver++ with guidance", "teacher, few-step sampler", "few-step model"
COLOURS = {GUIDED: "#8a8578", UNGUIDED: "#b4622d", STUDENT: "#2d6fb4"}


def likeness(recipe: TrainingRecipe, out: Path) -> float:
    """Mean over all training pictures and seeds."""
    found = [sample_grid(recipe, out=out, count=PICTURES, seed=seed).likeness for seed in SEEDS]
    return sum(map(sum, found)) / sum(map(len, found))


class Row(NamedTuple):
    """A model in some number of steps."""

    model: str
    sampling: Sampling
    likeness: float


def measured(folder: Path, demo: Path) -> Iterator[Row]:
    """Each model in each number of steps, the teacher's 40 calls first; trains the few-step model on what `sigma demo`
    has left in `demo`."""
    torch.set_num_threads(1)
    place, grid = f"dataset={demo / 'dataset'}", folder / "grid.png"
    parent = max((demo / "model").glob("04-*/step-*.pt"))
    student = TrainingRecipe.load(
        recipes.find("distil_demo"), [place, f"out={folder / 'few'}", f"stages.0.parent={parent}"]
    )
    train(student)
    teacher = TrainingRecipe.load(recipes.find("train_demo"), [place, f"out={demo / 'model'}"])
    few = [{"steps": steps, "timestep": timestep} for steps, timestep in FEW]
    for name, recipe, knobs in (
        *((GUIDED, teacher, {"steps": steps}) for steps in (20, 8, 4, 2, 1)),
        *((UNGUIDED, teacher, knobs) for knobs in few),
        *((STUDENT, student, knobs) for knobs in few),
    ):
        drawn = recipe.model_copy(update={"sample": recipe.sample.model_copy(update=knobs)})
        yield Row(name, drawn.sampling_of(drawn.stages[-1]), likeness(drawn, grid))


def few_steps(folder: Path, demo: Path = Path("demo"), figure: Path | None = None) -> Iterator[str]:
    """A line per model and number of steps, and a figure of them."""
    if not (demo / "model").is_dir():
        yield f"| few steps | no demo at {demo}: run `sigma demo` first | | | |"
        return
    rows = list[Row]()
    for row in measured(folder, demo):
        rows.append(row)
        whole, sampling = rows[0].likeness, row.sampling
        share = row.likeness / whole
        is_goal = row.model == STUDENT and sampling.steps == 4
        goal = f"{GOAL}, {'reached' if share >= GOAL else 'missed'}" if is_goal else ""
        calls = f"{sampling.steps} steps, {sampling.calls} calls"
        calls += f", from {sampling.timestep}" if sampling.timestep else ""
        yield f"| {row.model}, {calls} | {row.likeness:.3f} | {whole:.3f} | {share:.2f} | {goal} |"
    if figure is not None:
        figure.write_text(curves(rows), encoding="utf-8")


def curves(rows: Sequence[Row]) -> str:
    """Likeness over calls as SVG: a curve a model, and rings where pure noise is taken at a lower noise level."""
    width, height, lowest, grey = 560, 300, 0.3, "#63636a"

    def place(calls: int, value: float) -> tuple[float, float]:
        across = math.log2(calls) / math.log2(rows[0].sampling.calls)
        return round(70 + width * across, 1), round(50 + height * (1 - value) / (1 - lowest), 1)

    def text(x: float, y: float, words: str, anchor: str = "start", colour: str = "#1d1d1f") -> str:
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{words}</text>'

    goal = place(1, GOAL * rows[0].likeness)[1]
    found = [
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        text(16, 24, "Likeness to the training pictures over calls of the model, the demo's 15 photographs"),
        f'<path d="M70 {goal}h{width}" stroke="{grey}" stroke-dasharray="4"/>',
        text(70 + width, goal - 5, f"{GOAL:.0%} of 40 calls", "end", grey),
        text(70, 104 + height + 18 * len(COLOURS), "rings: 2 calls from 749, 1 from 499", colour=grey),
        *(text(62, place(1, level)[1] + 4, f"{level}", "end", grey) for level in (0.4, 0.6, 0.8, 1.0)),
        *(text(place(calls, 1)[0], 70 + height, f"{calls}", "middle", grey) for calls in (1, 2, 4, 8, 16, 40)),
    ]
    for number, (model, colour) in enumerate(COLOURS.items()):
        mine = [(row, *place(row.sampling.calls, row.likeness)) for row in rows if row.model == model]
        usual = [row.sampling.timestep in (None, FEW[0][1]) for row, _, _ in mine]
        line = "L".join(f"{x} {y}" for (_, x, y), is_usual in zip(mine, usual, strict=True) if is_usual)
        found.append(f'<g stroke="{colour}" stroke-width="2" fill="none"><path d="M{line}"/>')
        for (_, x, y), is_usual in zip(mine, usual, strict=True):
            found.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{colour if is_usual else "#ffffff"}"/>')
        found += ["</g>", text(70, 100 + height + 18 * number, model, colour=colour)]
    size = f'viewBox="0 0 {width + 100} {height + 170}" width="{width + 100}"'
    font = 'font-family="Helvetica, Arial, sans-serif" font-size="12"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>', *found, "</svg>\n"])


BENCHMARKS = (few_steps,)

if __name__ == "__main__":
    shown = Path(__file__).parents[1] / "docs" / "few_steps.svg"
    for line in few_steps(Path("build/few_steps"), *map(Path, sys.argv[1:2] or ["demo"]), figure=shown):
        print(line, flush=True)
