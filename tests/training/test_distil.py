"""A few-step stage: it trains, resumes to the bit, is drawn in few steps, and says what it cannot learn from."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import training.sample
from evaluation.painters import plans
from schemas.evaluation import Model
from schemas.training import TrainingRecipe
from training.data.chance import noise
from training.data.loader import PaddedText
from training.data.transform import from_unit_range
from training.diffusion.schedule import linear_schedule
from training.distil import Distillation, loss_of
from training.encoders.make import codec_for, text_encoder_for
from training.export.weights import read_model, write_weights
from training.inputs import ModelInputs
from training.metrics import read_metrics
from training.model import PixArt
from training.model.architecture import Hints
from training.optim.gradients import loss_terms
from training.parallel.distributed import World
from training.sample import draw, load_trained, noise_model, sample_grid, sample_prompts
from training.stored_run import trained_checkpoints
from training.train import train
from training.weak_to_strong import model_config

pytestmark = pytest.mark.slow

NUMBERS = ("step", "loss", "mse", "vb", "grad_norm", "lr", "epoch")


@pytest.fixture
def values(recipe_values) -> dict[str, Any]:
    """A teacher with KV compression, and its few-step model."""
    teacher = recipe_values["stages"][1] | {"name": "teacher", "resolution": 32, "multi_aspect": False}
    few = teacher | {"name": "few", "steps": 8, "distil": {"guidance": 2.0, "skip": 125}}
    return recipe_values | {"stages": [teacher, few], "validation": {"every": 4, "samples": 2}}


def recipe_of(values: dict[str, Any], **few: Any) -> TrainingRecipe:
    values = copy.deepcopy(values)
    values["stages"][1] |= few
    return TrainingRecipe.from_mapping(values)


def numbers(recipe: TrainingRecipe) -> list[tuple]:
    lines = read_metrics(recipe.stage_folder(recipe.stages[1]))
    return [(*(line[name] for name in NUMBERS), line.get("val_loss")) for line in lines]


def test_a_few_step_stage_resumes_to_the_bit_and_draws_in_few_steps(values, tmp_path, monkeypatch):
    undisturbed = recipe_of(values)
    train(undisturbed)
    begun = recipe_of(values | {"out": str(tmp_path / "second")}, steps=4)
    train(begun)
    resumed = recipe_of(values | {"out": begun.out})
    summary = train(resumed)[1]
    assert summary.steps == 8 and numbers(resumed) == numbers(undisturbed)
    assert all(line[1] == line[2] > 0 and line[3] == 0 for line in numbers(resumed))  # all of the loss is one term
    weights = [
        torch.load(trained_checkpoints(recipe, "few")[1][8], weights_only=True) for recipe in (undisturbed, resumed)
    ]
    for part in ("state_dict", "state_dict_ema"):
        assert all(torch.equal(value, weights[1][part][key]) for key, value in weights[0][part].items())

    teacher, few = undisturbed.stages
    model, _ = load_trained(undisturbed, "few")
    calls, noise_model = [], training.sample.noise_model

    def counted(*args, dropped):
        predict = noise_model(*args, dropped=dropped)
        return lambda x, t: (calls.append((dropped, float(t[0]))), predict(x, t))[1]

    monkeypatch.setattr(training.sample, "noise_model", counted)
    assert undisturbed.sampling_of(teacher).calls == 40
    for steps in (1, 2, 4, 8):
        recipe = undisturbed.model_copy(update={"sample": undisturbed.sample.model_copy(update={"steps": steps})})
        calls.clear()
        pictures = [draw(model, recipe, few, ["a"] * 2, [(32, 32)] * 2, seeds) for seeds in ([1, 2], [3, 1])]
        assert calls[:steps] == calls[steps:] == [(False, 1000 * (steps - n) / steps - 1) for n in range(steps)]
        assert recipe.sampling_of(few).calls == steps
        assert np.abs(pictures[0][0].astype(int) - pictures[1][1]).max() <= 1  # a picture depends on its own seed

    (tmp_path / "recipe.yaml").write_text(undisturbed.to_yaml())
    found = {"steps": 2, "sampler": "consistency", "timestep": 999, "guidance": None}
    (plan,) = plans("few", Model(recipe=str(tmp_path / "recipe.yaml"), steps=2))
    assert found.items() <= plan.how.items()
    for knobs, why in (
        ({"steps": 3}, r"models\.few: sample\.steps 3"),
        ({"guidance": 2}, r"models\.few\.guidance: .*remove"),
    ):
        with pytest.raises(ValueError, match=why):
            plans("few", Model(recipe=str(tmp_path / "recipe.yaml"), **knobs))


def test_the_average_says_what_the_student_should_answer_and_in_evaluation_the_model_itself(values):
    recipe = recipe_of(values)
    stage, called = recipe.stages[1], []
    networks = {name: PixArt(model_config(recipe, stage)) for name in ("teacher", "average", "student")}
    for name, network in networks.items():
        torch.nn.init.normal_(network.final_layer.linear.weight, std=0.1)
        network.register_forward_pre_hook(lambda module, args, name=name: called.append((name, float(args[1][0]))))
    loss = Distillation(networks["teacher"], networks["average"], recipe, stage)
    text = PaddedText.of([torch.randn(1 + i, 16) for i in range(2)])
    inputs = ModelInputs(
        torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4), torch.tensor([0, 100]), text.tokens, text.mask,
        torch.zeros(2, dtype=torch.bool), text.lengths,
    )  # fmt: skip
    for training_mode, target in ((True, "average"), (False, "student")):
        called.clear()
        terms = loss(networks["student"].train(training_mode), inputs, recipe)
        assert called == [("teacher", 124), ("teacher", 124), (target, 0), ("student", 124)]
    terms.loss.sum().backward()
    assert networks["student"].final_layer.linear.weight.grad is not None
    assert networks["average"].final_layer.linear.weight.grad is None


def test_a_stage_without_distil_learns_from_pictures(values):
    recipe = recipe_of(values)
    assert loss_of(recipe, recipe.stages[0], World(0, 1, torch.device("cpu")), None, None) is loss_terms


def test_the_guidance_and_the_decay_of_the_average_are_the_stages_own(values):
    recipe = recipe_of(values, distil={"ema": 0.5})
    teacher, few = recipe.stages
    assert recipe.distil_of(few).guidance == recipe.sample.guidance == 4.5
    assert (recipe.ema_of(teacher).decay, recipe.ema_of(few).decay) == (0.9, 0.5)
    assert (recipe.data_of(teacher).caption_drop, recipe.data_of(few).caption_drop) == (0.1, 0.0)


def test_pictures_in_steps_that_cannot_be_are_refused_before_anything_is_trained(values):
    sample = {"every": 4, "prompts": ["a"], "steps": 3}
    with pytest.raises(ValueError, match=r"sample\.steps 3: stage few is a few-step model"):
        train(recipe_of(values | {"sample": sample}))
    assert not Path(values["out"]).exists()


def test_a_changed_guidance_of_a_begun_stage_is_named(values):
    train(recipe_of(values, steps=4, distil={}))
    with pytest.raises(ValueError, match=r"stage\.distil\.guidance = 4\.5, the recipe now has 3\.0"):
        train(recipe_of(values | {"sample": {"guidance": 3.0}}, distil={}))


def test_weights_without_the_compression_of_the_stage_are_no_teacher(values, tmp_path):
    plain = values | {"stages": [values["stages"][0] | {"kv_compression": None}]}
    train(TrainingRecipe.from_mapping(plain | {"out": str(tmp_path / "plain"), "validation": {}}))
    weights = next(Path(tmp_path / "plain").rglob("step-*.pt"))
    values["stages"] = [values["stages"][1] | {"parent": str(weights)}]
    with pytest.raises(ValueError, match=r"has no blocks\.1\..*distil learns from a parent as it is"):
        train(TrainingRecipe.from_mapping(values))


def test_weights_in_the_published_layout_are_drawn_with_in_the_one_step_that_their_makers_say(recipe_values, tmp_path):
    """As Nitro-1-PixArt comes: the names of diffusers' transformer in one file."""
    recipe = TrainingRecipe.from_mapping(recipe_values | {"sample": {"steps": 1, "timestep": 400}})
    stage = recipe.stages[0]
    config, seed = model_config(recipe, stage), 11
    published = PixArt(config)
    torch.nn.init.normal_(published.final_layer.linear.weight, std=0.1)
    torch.save({"state_dict": published.state_dict()}, tmp_path / "w.pth")
    stored = read_model(tmp_path / "w.pth", hints=Hints(config.num_heads, config.image_size, config.pe_interpolation))
    write_weights(stored, tmp_path / "transformer", "diffusers")
    weights = (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "nitro.safetensors")

    model, found = load_trained(recipe, "small", weights=weights)
    assert found == stage
    (picture,) = draw(model, recipe, stage, ["a boat"], [(32, 32)], [seed])
    text = PaddedText.of([text_encoder_for(recipe.text).encode("a boat")])
    start, schedule = noise([seed], (4, 4, 4)), linear_schedule()
    predicted = noise_model(published, text.tokens, text.mask, recipe, dropped=False)(start, torch.tensor([400]))
    clean = (start - schedule.sigma[400] * predicted) / schedule.signal[400]
    expected = from_unit_range(codec_for(recipe.latents).decode(clean.detach().float()))[0].numpy()
    assert np.abs(picture.astype(int) - expected).max() <= 1 and picture.std() > 1

    sample_prompts(recipe, ["a boat"], tmp_path / "boat.png", stage="small", weights=weights)
    assert (tmp_path / "boat.png").is_file()
    with pytest.raises(ValueError, match=r"stage small: no weights at .*none\.pth"):
        sample_grid(recipe, stage="small", out=tmp_path / "x.png", weights=tmp_path / "none.pth")
