"""What draws: pipelines of diffusers, of which nothing is run, and each picture from noise of its own."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from evaluation.nearness import near
from evaluation.painters import PipelinePainter, plans
from schemas.evaluation import Model
from schemas.reasons import PictureReason
from schemas.training import TrainingRecipe
from tests.training.conftest import real_components as real_components
from tests.training.runtimes.conftest import converted_once as converted_once
from training.export.pipeline import write_pipeline
from training.export.weights import read_model
from training.model import PixArt, PixArtConfig
from training.model.architecture import Hints
from training.runtimes.manifest import Manifest
from training.runtimes.openvino_runtime import GRAPH  # before OpenVINO itself, which reports home otherwise


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, real_components: Path) -> Path:
    """A PixArt-Σ pipeline of the real classes, tiny, with random weights."""
    folder = tmp_path_factory.mktemp("pipeline")
    config = PixArtConfig(
        depth=1, hidden_size=32, num_heads=4, caption_channels=32, max_caption_tokens=300, image_size=256,
        pe_interpolation=0.5,
    )  # fmt: skip
    torch.save({"state_dict": PixArt(config).state_dict()}, folder / "a.pth")
    model = read_model(folder / "a.pth", hints=Hints(4, 256, 0.5))
    write_pipeline(model, folder / "p", vae=real_components, text_encoder=real_components)
    return folder / "p"


def drawn(folder: Path, prompts: list[str], seeds: list[int]) -> list[np.ndarray]:
    (plan,) = plans("theirs", Model(diffusers=str(folder), resolution=256, steps=1, guidance=1.0))
    assert plan.load is not None
    pictures = plan.load("cpu")(prompts, seeds)
    assert all(isinstance(picture, np.ndarray) for picture in pictures)
    return [picture for picture in pictures if isinstance(picture, np.ndarray)]


@pytest.mark.slow
def test_a_pipeline_draws_the_same_picture_of_a_seed_in_any_batch(pipeline: Path) -> None:
    one, two = drawn(pipeline, ["a red boat", "a lake"], [7, 8])
    (alone,) = drawn(pipeline, ["a lake"], [8])
    assert one.shape == (256, 256, 3) and one.dtype == np.uint8
    assert np.abs(alone.astype(int) - two).max() <= 1
    assert np.abs(one.astype(int) - two).max() > 10


def test_a_one_step_model_of_others_starts_at_the_noise_level_that_its_makers_say(pipeline: Path) -> None:
    """DMD and Nitro-1 come with the DDPM's scheduler; its one step at 400 is the predicted picture."""
    (plan,) = plans("nitro", Model(diffusers=str(pipeline), resolution=256, steps=1, guidance=0, timestep=400))
    assert plan.how["timestep"] == 400 and plan.load is not None
    painter = plan.load("cpu")
    assert isinstance(painter, PipelinePainter) and painter._knobs["timesteps"] == [400]
    seen = []
    painter._pipeline.scheduler = DDPMScheduler(beta_start=1e-4, beta_end=0.02)
    painter._pipeline.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["timestep"].tolist()), with_kwargs=True
    )
    (picture,) = painter(["a red boat"], [7])
    assert seen == [[400]] and isinstance(picture, np.ndarray)


def test_all_that_a_picture_depends_on_is_on_record(pipeline: Path, tmp_path: Path) -> None:
    def how(**knobs: Any) -> dict[str, Any]:
        (plan,) = plans("theirs", Model(diffusers=str(pipeline), **knobs))
        return plan.how

    assert how()["pipeline"] == "PixArtSigmaPipeline" and how()["sampler"] == "DPMSolverMultistepScheduler"
    assert how() == how() != how(steps=3)
    scheduler = pipeline / "scheduler" / "scheduler_config.json"
    text, before = scheduler.read_text(), how()
    scheduler.write_text(json.dumps(json.loads(text) | {"beta_end": 0.03}))
    assert how()["weights"] != before["weights"]
    scheduler.write_text(text)


def test_a_folder_that_brings_code_or_pickles_is_refused(pipeline: Path, tmp_path: Path) -> None:
    def refusal(folder: Path) -> str:
        with pytest.raises(ValueError) as refused:
            plans("theirs", Model(diffusers=str(folder)))
        return str(refused.value)

    copied = tmp_path / "copy"
    copied.mkdir()
    (copied / "model_index.json").write_text((pipeline / "model_index.json").read_text())
    for part in ("transformer", "vae", "text_encoder"):
        (copied / part).mkdir()
        (copied / part / "model.safetensors").write_bytes(b"0")
    (copied / "transformer" / "model.safetensors").rename(copied / "transformer" / "model.bin")
    assert "transformer/model.bin is pickled, which can run code" in refusal(copied)
    (copied / "transformer" / "model.safetensors").write_bytes(b"0")
    (copied / "transformer" / "attention.py").write_text("")
    assert "brings code of its own (attention.py), which is never run" in refusal(copied)
    (copied / "transformer" / "attention.py").unlink()
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps(index | {"_class_name": ["pipeline", "Mine"]}))
    assert "brings code of its own" in refusal(copied)
    assert "holds no model_index.json" in refusal(tmp_path)


def test_a_pipeline_that_is_damaged_is_named(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "Nope"]})
    )
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "a.safetensors").write_bytes(b"0")
    (plan,) = plans("theirs", Model(diffusers=str(tmp_path)))
    assert plan.load is not None
    with pytest.raises(ValueError, match="the pipeline cannot be loaded"):
        plan.load("cpu")


def test_a_picture_that_the_pipeline_blacked_out_is_a_reason() -> None:
    painter = PipelinePainter.__new__(PipelinePainter)
    answer = SimpleNamespace(images=np.full((2, 8, 8, 3), 0.5), nsfw_content_detected=[True, False])
    painter._pipeline, painter._knobs = lambda **_: answer, {}
    first, second = painter(["a", "b"], [1, 2])
    assert first is PictureReason.NSFW_BLACKED_OUT and isinstance(second, np.ndarray) and (second == 128).all()


@pytest.mark.slow
def test_an_export_draws_what_its_checkpoint_draws(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from training.runtimes.export import export_model
    from training.stored_run import trained_checkpoints

    recipe = str(trained / "train.yaml")
    _, kept = trained_checkpoints(TrainingRecipe.load(recipe), None)
    export_model(kept[max(kept)], tmp_path / "export", "openvino", "fp32")
    assert (tmp_path / "export" / GRAPH).is_file()
    side = Manifest.read(tmp_path / "export").architecture["image_size"]
    (theirs,) = plans("torch", Model(recipe=recipe, resolution=side, steps=2))
    (ours,) = plans("fp32", Model(recipe=recipe, runtime=str(tmp_path / "export"), resolution=side, steps=2))
    assert ours.how["precision"] == "openvino fp32" and near([theirs, ours]) == [ours] and ours.trained_on is not None
    assert {**ours.how, "weights": 0, "precision": 0} == {**theirs.how, "weights": 0, "precision": 0}
    assert ours.load is not None and theirs.load is not None
    prompts, seeds = ["a red boat", "two cats on a sofa"], [3, 4]
    for one, other in zip(ours.load("cpu")(prompts, seeds), theirs.load("cpu")(prompts, seeds), strict=True):
        assert isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1
    with pytest.raises(ValueError, match=r"models.fp32: 8200x8200 px"):
        plans("fp32", Model(recipe=recipe, runtime=str(tmp_path / "export"), resolution=8200))
    with pytest.raises(ValueError, match=r"holds no manifest.json, so it is no exported model"):
        plans("fp32", Model(recipe=recipe, runtime=str(tmp_path)))


@pytest.mark.parametrize(
    ("knobs", "why"),
    [
        ({"recipe": "r", "runtime": "e", "stage": "s"}, "stage changes nothing of a model of runtime"),
        ({"recipe": "r", "runtime": "e", "checkpoints": "all"}, "checkpoints changes nothing of a model of runtime"),
        ({"diffusers": "d", "runtime": "e"}, "runtime changes nothing of a model of diffusers"),
        ({"pictures": "d", "runtime": "e"}, "runtime changes nothing of a model of pictures"),
        ({"runtime": "e"}, "name one of recipe, diffusers and pictures"),
    ],
)
def test_an_export_needs_a_recipe_and_no_checkpoint(knobs: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Model.from_mapping(knobs)
