"""How alike the demo's pictures stay in fewer steps: of its last stage, and of the few-step model of distil_demo.

Likeness is the demo's measure: correlation of a drawn picture with its own training picture, at 16 x 16 px.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

import recipes
from schemas.training import TrainingRecipe
from training.sample import sample_grid
from training.train import train

SEEDS = (0, 1, 2, 3)
PICTURES = 15
GOAL = 0.9
FEW = ((8, 999), (4, 999), (2, 999), (1, 999), (2, 749), (1, 499))
"""Steps, and the noise level at which pure noise is taken."""


def likeness(recipe: TrainingRecipe, out: Path) -> float:
    """Mean over all training pictures and seeds."""
    found = [sample_grid(recipe, out=out, count=PICTURES, seed=seed).likeness for seed in SEEDS]
    return sum(map(sum, found)) / sum(map(len, found))


def few_steps(folder: Path, demo: Path = Path("demo")) -> Iterator[str]:
    """A row per model and number of steps; trains the few-step model on what `sigma demo` has left in `demo`."""
    if not (demo / "model").is_dir():
        yield f"| few steps | no demo at {demo}: run `sigma demo` first | | | |"
        return
    torch.set_num_threads(1)
    place, grid = f"dataset={demo / 'dataset'}", folder / "grid.png"
    parent = max((demo / "model").glob("04-*/step-*.pt"))
    student = TrainingRecipe.load(
        recipes.find("distil_demo"), [place, f"out={folder / 'few'}", f"stages.0.parent={parent}"]
    )
    begun = time.process_time()
    train(student)
    seconds = time.process_time() - begun
    teacher = TrainingRecipe.load(recipes.find("train_demo"), [place, f"out={demo / 'model'}"])
    whole = 0.0
    few = [{"steps": steps, "timestep": timestep} for steps, timestep in FEW]
    for name, recipe, knobs in (
        *(("teacher, DPM-Solver++ with guidance", teacher, {"steps": steps}) for steps in (20, 8, 4, 2, 1)),
        *(("teacher, few-step sampler", teacher, knobs) for knobs in few),
        *((f"few-step model, {seconds:.0f} CPU-s of training", student, knobs) for knobs in few),
    ):
        drawn = recipe.model_copy(update={"sample": recipe.sample.model_copy(update=knobs)})
        found = likeness(drawn, grid)
        whole = whole or found
        sampling = drawn.sampling_of(drawn.stages[-1])
        reached = f"{GOAL}, {'reached' if found / whole >= GOAL else 'missed'}"
        goal = reached if recipe is student and sampling.steps == 4 else ""
        calls = f"{sampling.steps} steps, {sampling.calls} calls"
        calls += f", from {sampling.timestep}" if sampling.timestep else ""
        yield f"| {name}, {calls} | {found:.3f} | {whole:.3f} | {found / whole:.2f} | {goal} |"


BENCHMARKS = (few_steps,)

if __name__ == "__main__":
    for line in few_steps(Path("build/few_steps"), *map(Path, sys.argv[1:2])):
        print(line, flush=True)
