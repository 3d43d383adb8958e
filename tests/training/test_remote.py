"""A dataset in a store: a run reads the same samples from it as from a folder, copied or by range, killed or not."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
import torch

from engine.flow import Observer
from engine.place import store
from schemas.files import delete_files, find_files, place_of, read_file
from schemas.shard_index import ShardIndex
from schemas.training import TrainingRecipe
from tests.training.conftest import upload
from tests.training.runs import metrics_of
from training.data.reader import ShardReader
from training.data.selection import Selection
from training.encode import encode_features
from training.features import StageFeatures
from training.parallel.distributed import World
from training.reading import source_of
from training.stages import copies_of, stage_data
from training.train import train


def numbers(recipe: TrainingRecipe) -> list[tuple[Any, ...]]:
    return [tuple(line[key] for key in ("step", "loss", "mse", "vb", "grad_norm")) for line in metrics_of(recipe)]


@pytest.fixture
def remote(recipe_values, dataset, bucket, tmp_path) -> dict[str, Any]:
    """A recipe whose dataset is in the bucket, with a disk of its own for copies."""
    data = recipe_values["data"] | {"cache_dir": str(tmp_path / "copies"), "cache_gb": 1}
    return recipe_values | {"dataset": upload(bucket, dataset, "ds"), "data": data, "out": str(tmp_path / "remote")}


def test_samples_of_a_store_are_those_of_the_folder_to_the_byte(remote, dataset, bucket):
    recipe = TrainingRecipe.from_mapping(remote)
    rows = stage_data(recipe, recipe.stages[0]).rows
    here, there = (
        ShardReader(dataset / "shards", rows),
        ShardReader(recipe.dataset_folder / "shards", rows, copies=copies_of(recipe)),
    )
    for row in range(len(here)):
        assert {kind: bytes(data) for kind, data in there.members(row).items()} == {
            kind: bytes(data) for kind, data in here.members(row).items()
        }
        assert there.captions(row) == here.captions(row)
    entry = there.entry(0)
    bucket.delete(f"ds/shards/{entry.shard}")
    with pytest.raises(
        ValueError, match=rf"s3://photos/ds/shards/{entry.shard}: the index names this shard, but it is gone"
    ):
        there.read(0, (32, 32))


@pytest.mark.slow
@pytest.mark.parametrize("cache_gb", [0, 1])
def test_losses_are_equal_to_the_bit_from_a_store_and_from_a_folder(recipe_values, remote, bucket, cache_gb):
    local = TrainingRecipe.from_mapping(recipe_values)
    recipe = TrainingRecipe.from_mapping(remote | {"data": remote["data"] | {"cache_gb": cache_gb}})
    train(local)
    train(recipe)
    assert numbers(recipe) == numbers(local)
    copies = list(recipe.dataset_folder.rglob("*.tar"))
    assert bool(copies) == bool(cache_gb) and all(path.stat().st_size for path in copies)
    bucket.forget()
    assert all(stage.skipped for stage in train(recipe))


@pytest.mark.parametrize(("lanes", "is_said"), [(1, True), (4, False), (2, False)])
def test_machines_that_do_not_divide_the_lanes_are_said(remote, monkeypatch, caplog, lanes, is_said):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    recipe = TrainingRecipe.from_mapping(remote | {"data": remote["data"] | {"lanes": lanes}})
    data = stage_data(recipe, recipe.stages[0])
    here = World(0, 2, torch.device("cpu"))
    with caplog.at_level(logging.INFO):
        source_of(recipe, data, StageFeatures(None, None, ""), range(4), here).close()
    said = "data.lanes is 1 on 2 machines, so they fetch shards of each other's; a new run may set a multiple"
    assert (said in caplog.messages) == is_said


@pytest.mark.slow
def test_features_are_encoded_in_the_store_and_read_from_it_and_pictures_are_not(
    recipe_values, dataset, bucket, tmp_path, remote, monkeypatch
):
    import shutil

    shutil.copytree(dataset, tmp_path / "ds")
    features = {"runner": "local", "dtype": "fp32", "use": "require"}
    local = TrainingRecipe.from_mapping(recipe_values | {"dataset": str(tmp_path / "ds"), "features": features})
    list(encode_features(local, Observer()))
    train(local)
    monkeypatch.setenv("SIGMA_SCRATCH", str(tmp_path / "scratch"))
    recipe = TrainingRecipe.from_mapping(remote | {"features": features})
    assert all(done.num_computed == done.num_shards for done in encode_features(recipe, Observer()))
    assert not any(done.num_computed for done in encode_features(recipe, Observer()))
    assert not list((tmp_path / "scratch").rglob("*.tar")), "a copy is only kept while it is encoded"
    here, there = tmp_path / "ds" / "features", place_of(str(remote["dataset"])) / "features"
    files = [path.relative_to(here) for path in find_files(here)]
    assert [path.relative_to(there) for path in find_files(there)] == files
    assert all(read_file(there / path) == (here / path).read_bytes() for path in files)
    train(recipe)
    assert numbers(recipe) == numbers(local)
    kept = {path.relative_to(recipe.dataset_folder).parts[0] for path in recipe.dataset_folder.rglob("*.tar")}
    assert kept == {"features"}
    outdated = there / next(path for path in files if path.suffix == ".tar")
    delete_files(outdated)
    assert sum(done.num_computed for done in encode_features(recipe, Observer())) == 1
    assert read_file(outdated) == (here / outdated.relative_to(there)).read_bytes()
    assert sum(done.num_computed for done in encode_features(recipe, Observer(), redo=True)) > 1


@pytest.mark.slow
def test_a_store_that_is_busy_for_a_moment_changes_nothing_and_one_that_stays_so_stops_the_run(
    recipe_values, remote, bucket, monkeypatch
):
    local, recipe = (TrainingRecipe.from_mapping(values) for values in (recipe_values, remote))
    train(local)
    bucket.refused["ds/"] = 503
    threading.Timer(0.5, bucket.refused.clear).start()
    train(recipe)
    assert numbers(recipe) == numbers(local)
    monkeypatch.setattr(store, "RETRIES", 0)
    store._client.cache_clear()
    ranges = TrainingRecipe.from_mapping(
        remote | {"out": f"{remote['out']}-2", "data": remote["data"] | {"cache_gb": 0, "cache_dir": remote["out"]}}
    )
    stage_data(ranges, ranges.stages[0])
    bucket.refused["ds/shards/"] = 503
    rows = Selection(ShardIndex(ranges.dataset_folder / "shards"))
    reader = ShardReader(ranges.dataset_folder / "shards", rows, copies=copies_of(ranges))
    with pytest.raises(ValueError, match=r"^s3://photos/ds/shards/.*; run the same command to go on$"):
        reader.read(0, (32, 32))
