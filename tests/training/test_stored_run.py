"""A run in a store: what is sent when, what another machine goes on from, and what a store that refuses leaves."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from engine.place import lease
from engine.place import store as place
from evaluation.painters import plans
from schemas.evaluation import Model
from schemas.training import TrainingRecipe
from tests.training.conftest import upload
from tests.training.runs import Run, metrics_of
from training.data.tars import OBJECTS_FILE, Copies
from training.sample import load_trained
from training.stages import locked
from training.stored_run import StoredRun, trained_checkpoints
from training.train import train

STAGE = "01-small"


def numbers(recipe: TrainingRecipe) -> list[tuple[Any, ...]]:
    return [tuple(line[key] for key in ("step", "loss", "mse", "vb", "grad_norm")) for line in metrics_of(recipe)]


def keys(bucket: Any, name: str = "") -> list[str]:
    found = bucket._client.list_objects_v2(Bucket=bucket.bucket).get("Contents", [])
    return sorted(each["Key"] for each in found if name in each["Key"])


class Machine:
    """A machine that trains into the store."""

    def __init__(self, folder: Path) -> None:
        self.stage = folder / STAGE
        self.run = StoredRun(Copies.of("s3://photos/run", folder), keep=2)

    def write(self, step: int, content: str = "") -> None:
        self.stage.mkdir(parents=True, exist_ok=True)
        (self.stage / f"step-{step:08d}.pt").write_text(content or str(step))
        (self.stage / "metrics.jsonl").write_text("line\n" * step)
        for _, old in list(enumerate(sorted(self.stage.glob("step-*.pt"))))[:-2]:
            old.unlink()

    def trains_to(self, step: int, content: str = "") -> None:
        self.write(step, content)
        self.run.send(self.stage)

    def steps(self) -> list[int]:
        return sorted(int(path.name[5:13]) for path in self.stage.glob("step-*.pt"))


@pytest.fixture
def one(bucket, tmp_path) -> Machine:
    return Machine(tmp_path / "one")


@pytest.fixture
def two(bucket, tmp_path) -> Machine:
    return Machine(tmp_path / "two")


@pytest.mark.slow
def test_another_machine_goes_on_from_the_newest_checkpoint_and_the_oldest_go(one, two, bucket):
    for step in (4, 8, 12):
        one.trains_to(step)
    assert keys(bucket, "step-") == [f"run/{STAGE}/step-{step:08d}.pt" for step in (8, 12)]
    two.run.bring(two.stage)
    assert two.steps() == [12] and (two.stage / "metrics.jsonl").read_text() == "line\n" * 12
    two.trains_to(16)
    assert keys(bucket, "step-") == [f"run/{STAGE}/step-{step:08d}.pt" for step in (12, 16)]
    one.run.bring(one.stage)
    assert one.steps() == [12, 16] and (one.stage / "metrics.jsonl").read_text() == "line\n" * 16


def test_what_did_not_change_is_neither_sent_nor_fetched_again(one, bucket):
    one.trains_to(4)
    bucket.forget()
    one.run.bring(one.stage)
    one.run.send(one.stage)
    assert not [key for method, key in bucket.requests if method in ("PUT", "POST") or key.endswith((".pt", ".jsonl"))]
    one.trains_to(8)
    assert bucket.requests["PUT", f"run/{STAGE}/step-00000004.pt"] == 0


def test_a_checkpoint_that_could_not_be_sent_is_gone_on_from_unless_another_machine_went_on(one, two):
    one.trains_to(4)
    one.write(8)
    one.run.bring(one.stage)
    assert one.steps() == [4, 8]
    two.run.bring(two.stage)
    two.trains_to(6)
    one.run.bring(one.stage)
    assert one.steps() == [4, 6] and (one.stage / "metrics.jsonl").read_text() == "line\n" * 6


def test_a_checkpoint_that_was_set_aside_goes_in_the_store_too_and_one_of_its_name_may_come(one, two, bucket):
    one.trains_to(4)
    one.trains_to(8, "bad")
    path = one.stage / "step-00000008.pt"
    path.rename(path.with_name(f"{path.name}.damaged"))
    one.run.bring(one.stage)
    assert one.steps() == [4]
    one.run.send(one.stage)
    assert keys(bucket, "step-") == [f"run/{STAGE}/step-00000004.pt"]
    one.trains_to(8, "good")
    one.run.send(one.stage)
    two.run.bring(two.stage)
    assert (two.stage / path.name).read_text() == "good"


def test_a_good_checkpoint_of_another_machine_replaces_one_that_was_set_aside_here(one, two, bucket):
    for step in (4, 8):
        one.trains_to(step)
        path = one.stage / f"step-{step:08d}.pt"
        path.rename(path.with_name(f"{path.name}.damaged"))
    one.run.send(one.stage)
    assert not keys(bucket, "step-")
    two.trains_to(4, "good")
    two.trains_to(8, "good")
    one.run.bring(one.stage)
    assert one.steps() == [8] and (one.stage / "step-00000008.pt").read_text() == "good"
    one.run.send(one.stage)
    assert keys(bucket, "step-") == [f"run/{STAGE}/step-{step:08d}.pt" for step in (4, 8)]


def test_every_checkpoint_comes_where_the_newest_may_be_damaged(one, two):
    one.trains_to(4)
    one.trains_to(8)
    two.run.bring(two.stage)
    assert two.steps() == [8]
    two.run.bring(two.stage, every_checkpoint=True)
    assert two.steps() == [4, 8]


def test_a_kill_while_a_checkpoint_is_sent_loses_nothing(one, monkeypatch):
    one.trains_to(4)
    put, on_disk = place.Store.put, []

    def killed(self: place.Store, key: str, data: Any) -> Any:
        if key.endswith(".pt"):
            on_disk.append((one.stage.parent / OBJECTS_FILE).read_bytes())
            raise KeyboardInterrupt
        return put(self, key, data)

    one.write(8)
    monkeypatch.setattr(place.Store, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        one.run.send(one.stage)
    (one.stage.parent / OBJECTS_FILE).write_bytes(on_disk[0])  # what SIGKILL would have left
    monkeypatch.undo()
    one.run.bring(one.stage)
    assert one.steps() == [4, 8]


@pytest.fixture
def values(recipe_values, tmp_path) -> dict[str, Any]:
    return recipe_values | {"out": "s3://photos/run", "stages": recipe_values["stages"][:1]}


def on(machine: str, values: dict[str, Any], tmp_path: Path, steps: int = 8) -> TrainingRecipe:
    data = values["data"] | {"cache_dir": str(tmp_path / machine)}
    return TrainingRecipe.from_mapping(values | {"data": data, "stages": [values["stages"][0] | {"steps": steps}]})


@pytest.mark.slow
def test_a_run_in_a_store_goes_on_elsewhere_with_the_losses_of_an_undisturbed_one(
    recipe_values, values, bucket, tmp_path
):
    whole = TrainingRecipe.from_mapping(recipe_values | {"stages": values["stages"]})
    train(whole)
    train(on("one", values, tmp_path, steps=4))
    assert f"run/{STAGE}/step-00000004.pt" in keys(bucket)
    second = on("two", values, tmp_path)
    train(second)
    assert numbers(second) == numbers(whole)
    third = on("three", values, tmp_path)
    assert load_trained(third, None)[1].name == "small"
    assert [*trained_checkpoints(third, None)[1]] == [8]
    assert load_trained(on("four", values, tmp_path), None, step=4)[1].name == "small"
    (tmp_path / "fifth.yaml").write_text(on("five", values, tmp_path).to_yaml())
    for checkpoints, steps in (("all", [4, 8]), ((4,), [4]), ("last", [8])):
        model = Model(recipe=str(tmp_path / "fifth.yaml"), checkpoints=checkpoints)
        assert [plan.step for plan in plans("small", model)] == steps
    assert [summary.skipped for summary in train(third)] == [True]
    with pytest.raises(ValueError, match=rf"s3://photos/run/{STAGE}: was trained with seed = 0, the recipe now has 5"):
        train(on("three", values | {"seed": 5}, tmp_path))


@pytest.mark.slow
def test_a_damaged_checkpoint_of_a_store_is_named_and_from_last_good_goes_on_before_it(values, bucket, tmp_path):
    train(on("one", values, tmp_path))
    newest = f"run/{STAGE}/step-00000008.pt"
    path = next((tmp_path / "one").rglob("step-00000008.pt"))
    bucket.put({newest: path.read_bytes()[:-100]})
    longer = on("two", values, tmp_path, steps=12)
    with pytest.raises(ValueError, match=rf"^s3://photos/{newest}: "):
        train(longer)
    train(longer, from_last_good=True)
    stages = [values["stages"][0] | {"steps": 12}]
    whole = TrainingRecipe.from_mapping(values | {"out": str(tmp_path / "whole"), "stages": stages})
    train(whole)
    assert numbers(longer) == numbers(whole)
    assert keys(bucket, "step-") == [f"run/{STAGE}/step-{step:08d}.pt" for step in (8, 12)]


@pytest.mark.slow
def test_a_store_that_refuses_is_named_and_the_same_command_goes_on(values, bucket, tmp_path):
    recipe = on("one", values, tmp_path)
    bucket.refused[f"run/{STAGE}/step-"] = 403
    try:
        with pytest.raises(
            ValueError, match=rf"s3://photos/run/{STAGE}: cannot be stored \(.*refuses access.*same command here"
        ):
            train(recipe)
    finally:
        bucket.refused.clear()
    assert list(recipe.stage_folder(recipe.stages[0]).glob("step-*.pt"))
    (done,) = train(recipe)
    assert done.steps == 8 and f"run/{STAGE}/step-00000008.pt" in keys(bucket)


@pytest.mark.slow
def test_a_second_run_into_one_address_is_refused(values, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.02)
    recipe = on("one", values, tmp_path)
    with (
        locked(tmp_path / "other", recipe.out),
        pytest.raises(ValueError, match=r"^s3://photos/run: process \d+ on .* is training here; wait for it or choose"),
    ):
        train(recipe)
    assert train(recipe)[0].steps == 8


def test_a_run_whose_address_is_that_of_an_object_is_refused(bucket, tmp_path):
    bucket.put({"run": b"notes"})
    with pytest.raises(ValueError, match="s3://photos/run: is a file"), locked(tmp_path / "run", "s3://photos/run"):
        pass
    assert keys(bucket) == ["run"]


@pytest.mark.slow
def test_a_store_that_is_busy_for_a_moment_is_asked_again(values, bucket, tmp_path):
    bucket.refused["run/"] = 503
    threading.Timer(1.0, bucket.refused.clear).start()
    assert train(on("one", values, tmp_path))[0].steps == 8
    assert f"run/{STAGE}/step-00000008.pt" in keys(bucket)


@pytest.mark.slow
def test_two_processes_killed_and_gone_on_with_on_another_machine_have_the_losses_of_undisturbed_ones(
    recipe_values, values, dataset, bucket, tmp_path
):
    stages, data = [values["stages"][0] | {"steps": 24}], values["data"] | {"lanes": 2}
    whole = TrainingRecipe.from_mapping(recipe_values | {"stages": stages, "data": data})
    Run(whole, 2).finish()
    there = values | {"data": data, "dataset": upload(bucket, dataset, "ds")}
    one, two = (on(machine, there, tmp_path, steps=24) for machine in ("one", "two"))
    for recipe in (one, two):
        recipe.out_folder.parent.mkdir()
    Run(one, 2).wait_for(step=10).kill()
    assert keys(bucket, "step-")
    Run(two, 2, before="from engine.place import lease; lease.STILL_S = 0.5").finish()
    assert numbers(two) == numbers(whole)
