"""Cells are trained once, measured alike and written into a table; what stops goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from evaluation import ruler
from evaluation.ablation import run
from evaluation.ablation.cells import Experiment, claim, grid, training_recipe
from evaluation.ablation.run import COLUMNS, check_measured_alike, run_experiment
from evaluation.ablation.table import reached, sheets, values
from schemas.ablation import AblationRecipe
from schemas.seal import check_file
from schemas.training import TrainingRecipe

TIMES = ("seconds_per_step", "seconds_ratio")
pytestmark = pytest.mark.slow


def small(made: Callable[..., Any], **knobs: Any) -> Any:
    base, recipe = made(layers=["none", "deep"], ratio=[2], **({"operator": ["conv", "discard"]} | knobs))
    return base, recipe, grid(base, recipe)


def figures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def test_a_grid_is_trained_measured_and_written_and_not_again(
    made: Callable[..., Any], tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, recipe, experiment = small(made)
    steps: list[str] = []
    rows, missing = run_experiment(base, recipe, experiment, lambda at: steps.append(at.stage))
    path = recipe.out / "grid.parquet"
    check_file(path)
    assert pq.read_schema(path).names == COLUMNS.names
    assert pq.read_table(path).to_pylist() == rows
    assert len(rows) == 3 * 3 * 3  # cells, seeds, points
    assert {row["batches"] for row in rows if row["seed"] == 0} != {row["batches"] for row in rows if row["seed"] == 1}
    assert all(len({row["batches"] for row in rows if row["seed"] == seed}) == 1 for seed in (0, 1, 2))
    assert "sigma weights get fid-inception" in missing["FID"]
    assert "sigma weights get clip-l14" in missing["CLIP-Score"]
    last = [row for row in rows if row["step"] == 3]
    assert all(row["fid"] > 0 and row["num_pictures"] == 4 and row["clip_score"] is None for row in last)
    assert all(row["fid"] is None for row in rows if row["step"] < 3)
    assert len({row["val_loss"] for row in last}) == 9, "every cell and seed is another"
    assert {"first", "larger", "none, seed 0", "deep-2x2-discard, seed 2"} <= set(steps)

    steps.clear()
    monkeypatch.setattr(ruler.Ruler, "measure", None)
    monkeypatch.setattr(run, "one_step", None)
    assert run_experiment(base, recipe, experiment, lambda at: steps.append(at.stage)) == (rows, missing)
    assert steps == []

    layers, operators = sheets(experiment, rows)
    assert layers.columns[:3] == ("layers", "validation loss ± spread", "less that of none (95 %)")
    assert layers.columns[-1] == "published, 0.6B at 512 px"
    assert [line[0] for line in layers.rows] == ["none", "deep"]
    assert layers.rows[1][-1] == "FID 8.532"
    assert "CLIP .276" in layers.rows[0][-1]
    assert operators.rows[1][-1] == "FID 8.918"
    assert layers.rows[0][2] == "", "nothing is compared with itself"


def test_what_is_stopped_goes_on_to_the_same_numbers(made: Callable[..., Any], tmp_path: Path) -> None:
    base, recipe, experiment = small(made, operator=["conv"], pictures=5)
    whole, _ = run_experiment(base, recipe, experiment)
    again = recipe.model_copy(update={"out": tmp_path / "again"})

    class Stop(Exception):
        """A power cut."""

    for place in (2, 9):  # in a parent, in a cell of the second seed
        seen = iter(range(100))

        def stop(at: Any, seen: Any = seen, place: int = place) -> None:
            if next(seen) == place:
                raise Stop

        with pytest.raises(Stop):
            run_experiment(base, again, experiment, stop)
        assert not (again.out / "grid.parquet").exists()
    rows, _ = run_experiment(base, again, experiment)
    assert figures(rows) == figures(whole)


@pytest.mark.parametrize("name", ["positions", "conv-avg-init", "vae"])
def test_a_claim_runs_at_three_steps(made: Callable[..., Any], name: Any) -> None:
    base, recipe = made(steps=3)
    experiment: Experiment = claim(base, recipe, name)
    rows, _ = run_experiment(base, recipe, experiment)
    without, with_it = (values(rows, cell.name, "val_loss") for cell in experiment.cells)
    assert len(without) == len(with_it) == 3
    assert without != with_it
    [sheet] = sheets(experiment, rows)
    assert not any("published" in column for column in sheet.columns)
    assert experiment.blocks[0].labels[1] in reached(rows, experiment.blocks[0])[0]


def test_a_cell_that_was_validated_otherwise_is_refused(made: Callable[..., Any], tmp_path: Path) -> None:
    base, recipe, experiment = small(made, steps=6)
    cell = experiment.cells[-1]

    def check(training: TrainingRecipe, ablation: AblationRecipe = recipe) -> None:
        check_measured_alike(tmp_path, training_recipe(training, ablation, experiment, cell, 0, "scratch"), cell)

    check(base)
    check(base)
    other = base.model_copy(update={"validation": base.validation.model_copy(update={"timesteps": (500,)})})
    for changed in (
        (other, recipe),
        (base, recipe.model_copy(update={"points": 2})),
        (base, recipe.model_copy(update={"steps": 12, "points": 6})),
    ):
        with pytest.raises(
            ValueError, match=rf"{tmp_path}: was trained with another (validation|steps).*rm -r {tmp_path}"
        ):
            check(*changed)


def test_what_is_impossible_is_refused_before_the_parents_are_trained(made: Callable[..., Any]) -> None:
    for knobs, message in (({"clip": "./no-clip"}, "no-clip holds none"), ({"steps": 4}, "points 3 do not divide")):
        base, recipe, experiment = small(made, **knobs)
        with pytest.raises(ValueError, match=message):
            run_experiment(base, recipe, experiment)
        assert not base.out_folder.exists()


def test_under_torchrun_it_is_refused(made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="without torchrun"):
        run_experiment(*small(made))
