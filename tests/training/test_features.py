"""Training from features: the same losses, what is used is told, and what does not fit is refused in one line."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace

import pytest
import torch

import training.encoders.make
from schemas.features import read_record, write_record
from schemas.training import TrainingRecipe
from tests.training.encoding import encode
from training.data.reader import ShardReader
from training.features import keep_features, stage_features
from training.metrics import read_metrics
from training.train import train

pytestmark = pytest.mark.slow

NUMBERS = ("step", "loss", "mse", "vb", "grad_norm", "val_loss")


def losses(recipe: TrainingRecipe) -> list[tuple]:
    lines = [line for stage in recipe.stages for line in read_metrics(recipe.stage_folder(stage))]
    return [tuple(line.get(name) for name in NUMBERS) for line in lines]


@pytest.fixture
def values(recipe_values, tmp_path):
    features = {"folder": str(tmp_path / "features"), "dtype": "fp32"}
    return recipe_values | {"features": features, "validation": {"every": 4, "samples": 3}}


@pytest.fixture
def real_values(values, real_components):
    weights = str(real_components)
    text = {"encoder": "t5", "channels": 32, "weights": weights, "precision": "fp32"}
    return values | {"latents": {"codec": "sdxl", "weights": weights}, "text": text}


def with_features(values, **knobs) -> TrainingRecipe:
    out = f"{values['out']}-{len(knobs)}-{knobs.get('use', 'auto')}"
    return TrainingRecipe.from_mapping(values | {"out": out, "features": values["features"] | knobs})


@pytest.mark.parametrize("encoders", ["values", "real_values"])
def test_losses_are_equal_to_the_bit_with_features_and_without(encoders, request, monkeypatch):
    values = request.getfixturevalue(encoders)
    without = with_features(values, use="off")
    train(without)
    recipe = with_features(values, use="require")
    encode(recipe)

    def never(*_):
        raise AssertionError("with features no picture is decoded and no encoder is loaded")

    monkeypatch.setattr(ShardReader, "read", never)
    monkeypatch.setattr(training.encoders.make, "codec_for", never)
    monkeypatch.setattr(training.encoders.make, "text_encoder_for", never)
    train(recipe)
    assert len(losses(recipe)) == 6 and losses(recipe) == losses(without)


@pytest.mark.parametrize("kind", ["latents", "text"])
def test_one_kind_of_features_is_enough(real_values, kind, caplog):
    without, recipe = with_features(real_values, use="off"), with_features(real_values)
    train(without)
    encode(recipe, kind=kind)
    with caplog.at_level(logging.INFO):
        train(recipe)
    assert losses(recipe) == losses(without)
    assert f"{kind} from {recipe.features_folder}" in caplog.text and "encoded while training" in caplog.text


def test_both_captions_are_read_by_the_coin(values):
    numbers = []
    for share in (0.0, 1.0):
        toss = {"captions": "toss", "synthetic_share": share}
        synthetic = values | {"data": values["data"] | toss, "out": f"{values['out']}-{share}"}
        with_, without = with_features(synthetic), with_features(synthetic, use="off")
        encode(with_)
        train(with_), train(without)
        assert losses(with_) == losses(without)
        numbers.append(losses(with_))
    assert numbers[0] != numbers[1]


def test_a_stage_logs_and_records_the_features_it_uses(values, caplog):
    recipe = with_features(values)
    stage = recipe.stages[0]
    with caplog.at_level(logging.INFO):
        train(recipe, only_stage="small")
    told = "stage small: latents encoded while training, text encoded while training (sigma encode RECIPE makes"
    assert told in caplog.text
    encode(recipe)
    assert stage_features(recipe, stage).description == (
        f"latents from {recipe.features_folder}/latents-dct-32px-by16, text from {recipe.features_folder}/text-hashed"
    )
    used = json.loads((recipe.stage_folder(stage) / "features.json").read_text())
    assert used["rounded"] == {} and used["used"].startswith("latents encoded while training")


def test_exact_features_may_come_and_go_and_rounded_ones_may_not(values, tmp_path):
    recipe = with_features(values)
    stage = recipe.stages[0]
    keep_features(tmp_path, stage_features(recipe, stage), begun=False)
    encode(recipe)
    keep_features(tmp_path, stage_features(recipe, stage), begun=True)
    rounded = with_features(values, dtype="bf16", folder=str(tmp_path / "rounded"))
    encode(rounded)
    with pytest.raises(ValueError, match=r"was trained with no features that round, now there are some that round lat"):
        keep_features(tmp_path, stage_features(rounded, stage), begun=True)
    train(rounded)
    off = TrainingRecipe.from_mapping(rounded.resolved() | {"features": {"use": "off"}})
    train(off)  # finished stages are skipped, whatever became of their features


def test_features_of_another_encoder_are_refused_by_knob(real_values, real_components, tmp_path):
    recipe = with_features(real_values)
    encode(recipe)
    shutil.copytree(real_components, tmp_path / "other")
    config = tmp_path / "other" / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(config.read_bytes())
    data[-1] ^= 1
    config.write_bytes(data)
    mend = r".*set it back, replace it with sigma encode RECIPE --redo, name another features\.folder"
    for section, knob, value, line in (
        ("latents", "posterior", "mean", r"latents\.posterior = sample, the recipe now has mean"),
        ("latents", "weights", str(tmp_path / "other"), r"latents\.weights \(content\) = \w+, the recipe now has \w+"),
        ("text", "max_tokens", 30, r"text\.max_tokens = 300, the recipe now has 30"),
        ("features", "dtype", "bf16", r"features\.dtype = fp32, the recipe now has bf16"),
    ):
        changed = recipe.resolved()
        changed[section][knob] = value
        with pytest.raises(ValueError, match=line + mend):
            train(TrainingRecipe.from_mapping(changed))
    shutil.copytree(real_components, tmp_path / "moved")
    moved = recipe.resolved()
    moved["latents"]["weights"] = moved["text"]["weights"] = str(tmp_path / "moved")
    assert stage_features(TrainingRecipe.from_mapping(moved), recipe.stages[0]).latents is not None
    moved["latents"]["weights"] = moved["text"]["weights"] = str(tmp_path / "not there")
    assert stage_features(TrainingRecipe.from_mapping(moved), recipe.stages[0]).text is not None


def test_unfinished_absent_and_outdated_features_are_refused(values, make_dataset, tmp_path):
    from tests.training.conftest import photo

    pictures = [(photo(i, 64, 64), f"raw {i}", None) for i in range(4)]
    dataset = make_dataset(tmp_path / "ds", pictures, [(64, 64)] * 4)
    recipe = with_features(values | {"dataset": str(dataset)}, use="require")
    with pytest.raises(
        ValueError, match=r"no latents-dct-32px-by16 and no text-hashed here, and features\.use is requi"
    ):
        train(recipe)
    encode(recipe)
    record = recipe.features_folder / "text-hashed" / "features.json"
    whole = record.read_text()
    write_record(record.parent, replace(read_record(record.parent), index=None))
    with pytest.raises(ValueError, match="text-hashed: is not finished; run sigma encode RECIPE again"):
        train(recipe)
    record.write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        train(recipe)
    record.write_text(whole)
    make_dataset(dataset, pictures[:3], [(64, 64)] * 3)
    with pytest.raises(ValueError, match=r"belongs to another shard index; run sigma encode"):
        train(recipe)
    encode(recipe)
    train(recipe, only_stage="small")


def test_features_that_are_cut_short_are_named(values):
    recipe = with_features(values)
    encode(recipe)
    tar = sorted(recipe.features_folder.glob("latents-dct-32px-by16/*/*.tar"))[0]
    data = tar.read_bytes()
    tar.write_bytes(data[:700])
    with pytest.raises(
        ValueError, match=rf"{tar.name}: damaged .* delete it, then sigma encode RECIPE writes it again"
    ):
        train(recipe)
    tar.unlink()
    encode(recipe)
    assert tar.read_bytes() == data


def test_a_flipped_bit_of_the_null_caption_is_named(values):
    recipe = with_features(values)
    encode(recipe, kind="text")
    path = recipe.features_folder / "text-hashed" / "null.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"null\.npy: cannot be read \(its checksum is wrong\); delete .*sigma encode"):
        train(recipe)


def test_a_damaged_sample_has_the_same_substitute(recipe_values, values, make_dataset, tmp_path):
    from tests.training.conftest import photo

    pictures = [(photo(i, 64, 64)[: 60 if i == 2 else None], f"raw {i}", f"synthetic {i}") for i in range(6)]
    dataset = make_dataset(tmp_path / "ds", pictures, [(64, 64)] * 6)
    values = values | {"dataset": str(dataset)}
    with_, without = with_features(values), with_features(values, use="off")
    encode(with_)
    train(with_), train(without)
    assert losses(with_) == losses(without)
    counts = [read_metrics(r.stage_folder(r.stages[0]))[-1]["num_damaged"] for r in (with_, without)]
    assert counts == [1, 1]


def test_bf16_trains_close_to_fp32(values):
    exact, rounded = with_features(values), with_features(values, dtype="bf16", folder=values["out"] + "-bf16")
    encode(exact), encode(rounded)
    train(exact), train(rounded)
    for a, b in zip(losses(exact), losses(rounded), strict=True):
        assert a[1] == pytest.approx(b[1], rel=2e-2) and a != b
    assert torch.isfinite(torch.tensor([line[1] for line in losses(rounded)])).all()
