"""Killed and resumed with another number of processes: the same pictures, noise and timesteps, and the same losses."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.training import TrainingRecipe
from tests.training.runs import Run, metrics_of
from training.train import train

pytestmark = pytest.mark.slow


@pytest.fixture
def exact_values(recipe_values: dict[str, Any]) -> dict[str, Any]:
    """A recipe of one stage whose losses must not depend on the number of processes."""
    values = recipe_values | {"exact_sums": True, "log_every": 1, "checkpoint_every": 2}
    values["data"] = {"batch": 8, "timesteps_per_image": 2, "micro_batch": 2}
    values["optimizer"] = {"lr": 1e-3, "warmup_steps": 4, "gradient_clip": 1.0}
    values["stages"] = [{"name": "small", "resolution": 64, "steps": 30}]
    return values


def test_killed_and_resumed_with_two_and_four_processes(exact_values, tmp_path):
    one, elastic = (TrainingRecipe.from_mapping(exact_values | {"out": str(tmp_path / n)}) for n in ("one", "elastic"))
    whole = Run(one, threads=2)  # nor on the number of threads
    runs = [Run(elastic)]
    runs[0].wait_for(step=7).kill()
    runs.append(Run(elastic, processes=2).wait_for(step=15))
    runs[1].kill()
    runs.append(Run(elastic, processes=4))
    runs[2].finish()
    whole.finish()

    expected = whole.trace()
    assert sorted(expected) == list(range(30))
    fed = [run.trace() for run in runs]
    assert all(trace[step] == expected[step] for trace in fed for step in trace)
    assert set().union(*fed) == set(expected)
    assert min(fed[1]) > 0 and min(fed[2]) > min(fed[1])  # they did resume

    lines, exact = metrics_of(elastic), metrics_of(one)
    assert [line["step"] for line in lines] == [line["step"] for line in exact] == list(range(1, 31))
    for line, of_one in zip(lines, exact, strict=True):
        for name in ("loss", "mse", "vb", "grad_norm"):
            assert line[name] == pytest.approx(of_one[name], rel=1e-6), (line["step"], name)


def test_exact_sums_need_a_micro_batch_that_divides_the_share(exact_values):
    for micro_batch in (None, 3):
        data = exact_values["data"] | {"micro_batch": micro_batch}
        recipe = TrainingRecipe.from_mapping(exact_values | {"data": data})
        with pytest.raises(ValueError, match=rf"stage small: .* share of the batch, 8; it is {micro_batch or 'null'}"):
            train(recipe)
