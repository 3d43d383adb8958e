"""A stage's folder remembers what it was trained from by content: other weights, pictures or captions are found."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from schemas.shard_index import read_index
from schemas.training import TrainingRecipe
from tests.training.conftest import photo, write_dataset
from training.checkpoint import write_checkpoint
from training.data.reader import ShardReader
from training.encoders.make import text_encoder_for
from training.identity import CHANGES, RECIPE_FILE, check_identity, identity
from training.stages import stage_data
from training.state import TrainState
from training.weak_to_strong import starting_model


def check(values: dict[str, Any], folder: Path, number: int = 0, **how: Any) -> dict[str, Any]:
    recipe = TrainingRecipe.from_mapping(values)
    stage = recipe.stages[number]
    found = identity(recipe, stage, stage_data(recipe, stage).rows)
    check_identity(folder, found, **how)
    return found


def parent_checkpoint(values: dict[str, Any], bias: float, step: int = 8) -> Path:
    """A finished first stage."""
    recipe = TrainingRecipe.from_mapping(values)
    stage = recipe.stages[0]
    state = TrainState.begin(starting_model(recipe, stage, text_encoder_for(recipe.text).null()), recipe, stage)
    with torch.no_grad():
        state.average.model.final_layer.linear.bias.fill_(bias)
    state.step = step
    recipe.stage_folder(stage).mkdir(parents=True, exist_ok=True)
    return write_checkpoint(recipe.stage_folder(stage), step, state.content(), keep=1)


def test_a_retrained_parent_is_found_and_an_equal_one_is_not(recipe_values, tmp_path):
    folder = tmp_path / "child"
    parent_checkpoint(recipe_values, 1.0)
    check(recipe_values, folder, 1)
    parent_checkpoint(recipe_values, 1.0)
    check(recipe_values, folder, 1)
    parent_checkpoint(recipe_values, 2.0)
    for finished in (False, True):
        with pytest.raises(
            ValueError, match=rf"child: was trained from other weights than small has now .* rm -r {folder}"
        ):
            check(recipe_values, folder, 1, finished=finished)


@pytest.mark.parametrize("kind", ["pth", "folder"])
def test_replaced_weights_are_found_and_moved_ones_are_not(recipe_values, tmp_path, kind):
    from safetensors.torch import save_file

    def write(path: Path, value: float) -> str:
        if kind == "pth":
            torch.save({"state_dict": {"w": torch.full((9,), value)}}, path)
        else:
            path.mkdir(exist_ok=True)
            save_file({"w": torch.full((9,), value)}, path / "diffusion_pytorch_model.safetensors")
        return str(path)

    def values(path: str) -> dict[str, Any]:
        return recipe_values | {"stages": [recipe_values["stages"][0] | {"parent": path}]}

    path = write(tmp_path / "w.pth", 1.0)
    check(values(path), tmp_path / "stage")
    moved = shutil.move(path, tmp_path / "elsewhere.pth")
    check(values(str(moved)), tmp_path / "stage")
    write(tmp_path / "elsewhere.pth", 1.5)
    with pytest.raises(ValueError, match=r"was trained from other weights than .*elsewhere\.pth has now"):
        check(values(str(moved)), tmp_path / "stage")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"a synthetic sentence about 2", b"a synthetic sentense about 2"),
        (b"raw words number 3", b"raw words number 8"),
    ],
)
def test_other_captions_of_the_same_length_are_found(recipe_values, dataset, tmp_path, before, after):
    shutil.copytree(dataset, tmp_path / "ds")
    values = recipe_values | {"dataset": str(tmp_path / "ds")}
    check(values, tmp_path / "stage")
    (tmp_path / "ds").rename(tmp_path / "moved")
    values = recipe_values | {"dataset": str(tmp_path / "moved")}
    check(values, tmp_path / "stage")
    for tar in (tmp_path / "moved").rglob("*.tar"):
        tar.write_bytes(tar.read_bytes().replace(before, after))
    with pytest.raises(ValueError, match=r"trained with other pictures or captions than the dataset holds now .*rm -r"):
        check(values, tmp_path / "stage")


def test_other_pixels_in_the_same_place_are_found(recipe_values, dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "ds")
    values = recipe_values | {"dataset": str(tmp_path / "ds")}
    check(values, tmp_path / "stage")
    entry = ShardReader(dataset / "shards", read_index(dataset / "shards")).entry(4)
    tar = tmp_path / "ds" / "shards" / entry.shard
    data = bytearray(tar.read_bytes())
    data[entry.offsets[0] + entry.sizes[0] // 2] ^= 1
    tar.write_bytes(data)
    with pytest.raises(ValueError, match="other pictures or captions"):
        check(values, tmp_path / "stage")


PICTURES = 400


def write_many(folder: Path, changed: int | None = None, what: str = "") -> Path:
    """More pictures than those whose bytes are read (0, 1, 3, 4, 6 ...), one of which may have another caption or other
    pixels; every size and id is the same in any case."""
    data = photo(0, 8, 8)
    pictures = [(data, f"raw {number}", f"a sentence {number}") for number in range(PICTURES)]
    if changed is not None:
        image, raw, synthetic = pictures[changed]
        image = image.replace(image[-20:-16], b"else") if what == "picture" else image
        raw, synthetic = (
            text.replace(" ", "_") if what == name else text for name, text in (("raw", raw), ("synthetic", synthetic))
        )
        pictures[changed] = (image, raw, synthetic)
    return write_dataset(folder, pictures, [(8, 8)] * PICTURES, digests=True, same_ids=True)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_many(tmp_path_factory.mktemp("many") / "ds")


@pytest.mark.parametrize("what", ["picture", "raw", "synthetic"])
def test_one_other_picture_or_caption_of_hundreds_is_found_in_a_dataset_made_anew(recipe_values, many, tmp_path, what):
    check(recipe_values | {"dataset": str(many)}, tmp_path / "stage")
    write_many(tmp_path / "ds", 2, what)
    for finished in (False, True):
        with pytest.raises(
            ValueError, match=r"other pictures or captions than the dataset holds now \(dataset\.contents"
        ):
            check(recipe_values | {"dataset": str(tmp_path / "ds")}, tmp_path / "stage", finished=finished)


def test_a_dataset_made_anew_that_comes_out_the_same_is_trained_on(recipe_values, many, tmp_path):
    check(recipe_values | {"dataset": str(many)}, tmp_path / "stage")
    check(recipe_values | {"dataset": str(write_many(tmp_path / "ds"))}, tmp_path / "stage")


def test_without_tars_the_index_alone_is_compared(recipe_values, dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "ds")
    values = recipe_values | {"dataset": str(tmp_path / "ds")}
    check(values, tmp_path / "stage")
    for tar in (tmp_path / "ds").rglob("*.tar"):
        tar.unlink()
    check(values, tmp_path / "stage")


def test_a_folder_from_before_the_digests_goes_on_and_gets_them(recipe_values, tmp_path):
    found = check(recipe_values, tmp_path)
    old = {key: value for key, value in found.items() if key != "parent_sha256"}
    old["dataset"] = {key: found["dataset"][key] for key in ("samples", "sha256")}
    (tmp_path / RECIPE_FILE).write_text(yaml.safe_dump(old))
    check(recipe_values, tmp_path)
    assert yaml.safe_load((tmp_path / RECIPE_FILE).read_text()) == found


def test_a_folder_from_before_there_were_lanes_was_trained_with_one(recipe_values, tmp_path):
    found = check(recipe_values, tmp_path)
    for section, knob in (("data", "lanes"), ("data", "balance_concepts"), ("stage", "weights")):
        del found[section][knob]
    (tmp_path / RECIPE_FILE).write_text(yaml.safe_dump(found))
    sliced = recipe_values | {"data": recipe_values["data"] | {"lanes": 2}}
    with pytest.raises(ValueError, match=r"was trained with data\.lanes = 1, the recipe now has 2; set it back"):
        check(sliced, tmp_path)
    check(recipe_values, tmp_path)


def test_a_steering_knob_may_change_on_the_way_and_is_recorded(recipe_values, tmp_path):
    check(recipe_values, tmp_path)
    slower = recipe_values | {"optimizer": recipe_values["optimizer"] | {"lr": 1e-4}}
    with pytest.raises(ValueError, match=r"optimizer\.lr = 0\.001, the recipe now has 0\.0001; .* --from-last-good"):
        check(slower, tmp_path)
    check(slower, tmp_path, change_at=6)
    check(slower, tmp_path)
    (change,) = yaml.safe_load((tmp_path / RECIPE_FILE).read_text())[CHANGES]
    assert change == {"step": 6, "knob": "optimizer.lr", "was": 1e-3, "is": 1e-4}
    check(slower | {"ema": {"decay": 0.5}}, tmp_path, change_at=8)
    assert [c["step"] for c in yaml.safe_load((tmp_path / RECIPE_FILE).read_text())[CHANGES]] == [6, 8]
    with pytest.raises(ValueError, match=r"model\.depth = 2, the recipe now has 3; set it back"):
        check(slower | {"model": recipe_values["model"] | {"depth": 3}}, tmp_path, change_at=8)
    check(recipe_values, tmp_path, change_at=8, finished=True)
    assert len(yaml.safe_load((tmp_path / RECIPE_FILE).read_text())[CHANGES]) == 2


def test_a_folder_without_a_checkpoint_takes_any_knob(recipe_values, tmp_path):
    check(recipe_values, tmp_path)
    check(recipe_values | {"seed": 5}, tmp_path, begun=False)
    with pytest.raises(ValueError, match="seed = 5, the recipe now has 0"):
        check(recipe_values, tmp_path)


@pytest.mark.parametrize("damage", ["", "null\n", "5\n", "- a\n", "seed: 0\nmodel: {depth: 1}\n", "pipe"])
def test_a_folders_recipe_that_is_cut_or_no_file_is_damaged_and_names_no_knob(recipe_values, tmp_path, damage):
    check(recipe_values, tmp_path)
    path = tmp_path / RECIPE_FILE
    path.unlink()
    os.mkfifo(path) if damage == "pipe" else path.write_text(damage)
    with pytest.raises(
        ValueError, match=rf"{path}: damaged \(.*(cut short|a pipe).*\); put it back from a copy, or rm"
    ):
        check(recipe_values, tmp_path)
