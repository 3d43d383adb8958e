"""The training recipe refuses what cannot be, and says where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.strict import StrictModel, docstrings, models_in
from schemas.training import Sampling, TrainingRecipe, is_path

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def recipe(**changes: Any) -> TrainingRecipe:
    values = {"dataset": "d", "out": "o", "stages": [{"name": "a", "resolution": 256, "steps": 5}]}
    return TrainingRecipe.from_mapping(values | changes)


def test_features_are_off_however_yaml_reads_the_word():
    values = {"dataset": "d", "out": "o", "stages": stages()}
    assert TrainingRecipe.from_mapping(values | {"features": yaml.safe_load("use: off")}).features.use == "off"
    assert recipe().features.use == "auto" and recipe().features_folder == Path("d/features")


def stages(*extra: dict) -> list[dict]:
    return [{"name": "a", "resolution": 256, "steps": 5}, *({"resolution": 512, "steps": 5} | stage for stage in extra)]


def few(**knobs: Any) -> dict[str, Any]:
    """A stage and its few-step model."""
    return {"stages": [*stages(), stages()[0] | {"name": "few", "distil": {}} | knobs]}


def test_a_few_step_stage_is_drawn_in_1_2_4_or_8_steps_and_any_other_as_before():
    def sampling(number: int = 1, **sample: Any) -> Sampling:
        found = recipe(**few(), sample=sample)
        return found.sampling_of(found.stages[number])

    assert sampling(0) == Sampling(20, 4.5, None) and (sampling(0).calls, sampling(0).sampler) == (40, "dpm-solver++")
    assert sampling() == sampling(steps=4) == Sampling(4, None, 999)
    assert (sampling().calls, sampling().sampler, sampling().timesteps) == (4, "consistency", [999, 749, 499, 249])
    assert [sampling(steps=steps).timesteps[-1] for steps in (1, 2, 8)] == [999, 499, 124]
    for steps in (3, 5, 14, 40):
        assert sampling(0, steps=steps).steps == steps
        with pytest.raises(ValueError, match=f"sample.steps {steps}: stage few is a few-step model, .* 1, 2, 4 or 8"):
            sampling(steps=steps)
    assert sampling(0, steps=1, timestep=400).timesteps == [400]  # published weights, whose makers say so


def test_guidance_of_one_needs_no_null_caption():
    assert recipe(**few(distil={"guidance": 1}), data={"caption_drop": 0})
    assert recipe(**few(parent="./w.pth"), data={"caption_drop": 0})  # of other weights nobody knows


def test_the_defaults_are_the_papers():
    r = recipe()
    assert (r.model.depth, r.model.hidden_size, r.model.num_heads) == (28, 1152, 16)
    assert r.optimizer.lr == 2e-5 and r.optimizer.gradient_clip == 0.01 and r.optimizer.weight_decay == 0
    assert r.optimizer.betas == (0.9, 0.999, 0.9999) and r.optimizer.eps == (1e-30, 1e-16)
    assert r.data.synthetic_share == 0.6 and r.data.caption_drop == 0.1
    assert (r.sample.steps, r.sample.guidance) == (20, 4.5)
    assert [s.interpolation for s in recipe(stages=stages({"name": "b", "resolution": 1024})).stages] == [0.5, 2.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sead": 3}, r"unknown key 'sead'; did you mean 'seed'\?"),
        ({"model": {"depht": 3}}, r"unknown key 'model\.depht'; did you mean 'depth'\?"),
        ({"model": {"hidden_size": 30, "num_heads": 4}}, "model: hidden_size 30 is not divisible by num_heads 4"),
        ({"model": {"hidden_size": 30, "num_heads": 3}}, "not divisible by 4"),
        ({"optimizer": {"betas": [0.9, 1.0, 0.9]}}, "must be below 1"),
        ({"data": {"batch": 0}}, r"data\.batch"),
        ({"data": {"caption_drop": 1.5}}, r"data\.caption_drop"),
        ({"latents": {"codec": "sd15"}}, r"latents\.codec.*'dct', 'mixed_dct' or 'sdxl'"),
        ({"text": {"max_tokens": 301}}, r"text\.max_tokens"),
        ({"precision": "fp16"}, "precision"),
        ({"checkpoint_every": 30, "log_every": 20}, "checkpoint_every 30 is no multiple of log_every 20"),
        ({"stages": []}, "stages"),
        ({"stages": [{"name": "a/b", "resolution": 256, "steps": 5}]}, r"stages\.0\.name"),
        (
            {"data": {"lanes": 12}},
            "data.lanes 12 does not divide a batch of 64, which .* the batch of every stage is 16",
        ),
        (
            {
                "data": {"lanes": 16},
                "stages": [
                    {"name": "a", "resolution": 256, "steps": 5},
                    {"name": "b", "resolution": 256, "steps": 5, "batch": 40},
                ],
            },
            "data.lanes 16 does not divide a batch of 40, .* every stage is 8",
        ),
        (
            {"data": {"cache_gb": 4}},
            "cache_gb 4.0 changes nothing while dataset is a folder; name a dataset in a store",
        ),
        ({"data": {"lanes": 0}}, r"data\.lanes: .*greater than 0"),
        ({"stages": [{"name": "a", "resolution": 250, "steps": 5}]}, "resolution 250 is no multiple of 16"),
        ({"stages": stages({"name": "a"})}, r"stages\.1 \(a\): an earlier stage has the same name"),
        ({"stages": stages({"name": "b", "parent": "c"}, {"name": "c"})}, "parent 'c' comes later in the list"),
        ({"stages": stages({"name": "b", "parent": "aa"})}, r"parent 'aa' is no earlier stage.*did you mean 'a'\?"),
        ({"stages": stages({"name": "b", "kv_compression": {"layers": [28]}})}, r"layers \[28\] are outside 0\.\.27"),
        ({"stages": stages({"name": "b", "kv_compression": {"layers": [1, 1]}})}, "each once"),
        ({"stages": stages({"name": "b", "kv_compression": {"layers": [1], "ratio": 1}})}, "ratio"),
        (few(distil={"guidence": 3}), r"unknown key 'stages\.1\.distil\.guidence'; did you mean 'guidance'\?"),
        (few(distil={"skip": 20}), r"stages\.1\.distil\.skip: input should be 1, 5, 25 or 125"),
        (few(distil={"ema": 1}), r"stages\.1\.distil\.ema: input should be less than 1"),
        (few(distil={"huber": 0}), r"stages\.1\.distil\.huber: input should be greater than 0"),
        (few(distil={"guidance": -1}), r"stages\.1\.distil\.guidance: input should be greater"),
        (few(parent="scratch"), r"stages\.1 \(few\): distil learns from a trained model; name a parent, a stage or"),
        ({"stages": [stages()[0] | {"distil": {}}]}, r"stages\.0 \(a\): distil learns from a trained model"),
        (few(resolution=512), "distil learns from its parent as it is, and resolution differs from that of a; give"),
        (few(pe_interpolation=1), "and pe_interpolation differs from that of a"),
        (few(kv_compression={"layers": [1]}), "and kv_compression differs from that of a"),
        (few() | {"data": {"caption_drop": 0}}, r"guidance needs a parent that knows the null caption, .* is 0; set"),
        (
            {"stages": [*few()["stages"], stages()[0] | {"name": "b"}]},
            r"stages\.2 \(b\): its parent few is a few-step model, which nothing learns from; set parent: a",
        ),
        (few() | {"sample": {"timestep": 1000}}, r"sample\.timestep: input should be less"),
    ],
)
def test_an_impossible_recipe_is_refused_with_the_knob(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


def test_a_parent_is_the_stage_before_a_named_stage_or_a_path():
    r = recipe(stages=stages({"name": "b"}, {"name": "c", "parent": "a"}, {"name": "d", "parent": "./w.pth"}))
    assert [r.parent_of(stage) for stage in r.stages] == ["scratch", "a", "a", "./w.pth"]
    assert r.stage_folder(r.stages[2]) == Path("o/03-c")
    assert r.stage_named("c").parent == "a"
    with pytest.raises(ValueError, match="no stage 'x' in the recipe; its stages are a, b, c, d"):
        r.stage_named("x")
    assert is_path("a/b") and is_path("w.pth") and not is_path("vae_adaptation")


def test_a_written_recipe_is_read_back(tmp_path):
    r = recipe(stages=stages({"name": "b", "kv_compression": {"layers": [14, 15]}, "where": "width > 3"}))
    (tmp_path / "r.yaml").write_text(r.to_yaml())
    assert TrainingRecipe.load(tmp_path / "r.yaml") == r
    assert TrainingRecipe.load(tmp_path / "r.yaml", ["stages.0.steps=9"]).stages[0].steps == 9


def test_a_share_that_no_toss_would_use_is_refused():
    with pytest.raises(ValueError, match=r"synthetic_share acts only where captions is toss: .*mix\.synthetic_share"):
        recipe(data={"synthetic_share": 0.5})
    assert recipe(data={"captions": "toss", "synthetic_share": 0.5}).data.synthetic_share == 0.5
    assert TrainingRecipe.from_mapping(recipe().resolved()) == recipe()


def test_every_knob_is_documented():
    sections: list[type[StrictModel]] = [TrainingRecipe]
    for section in sections:
        inner = [model for field in section.model_fields.values() for model in models_in(field.annotation)]
        sections += [model for model in inner if model not in sections]
        assert section.model_fields.keys() <= docstrings(section).keys()
    assert len(sections) > 10


def test_the_demo_recipe_is_valid_and_walks_the_papers_chain():
    r = TrainingRecipe.load(RECIPES / "train_demo.yaml")
    resolutions = [stage.resolution for stage in r.stages]
    assert resolutions == sorted(resolutions) and resolutions[0] < resolutions[-1]
    assert r.stages[-1].kv_compression is not None
    assert len({stage.resolution / stage.interpolation for stage in r.stages}) == 1  # positions span one range


def test_the_demos_few_step_model_has_the_demos_model_and_codecs():
    few, demo = (TrainingRecipe.load(RECIPES / name) for name in ("distil_demo.yaml", "train_demo.yaml"))
    assert (few.model, few.latents, few.text) == (demo.model, demo.latents, demo.text)
    stage, teacher = few.stages[0], demo.stages[-1]
    for knob in ("resolution", "interpolation", "kv_compression", "multi_aspect"):
        assert getattr(stage, knob) == getattr(teacher, knob)
    assert few.parent_of(stage) == f"{demo.out}/04-{teacher.name}/step-{teacher.steps:08d}.pt"
    assert few.distil_of(stage).guidance == demo.sample.guidance


def test_the_papers_chain_is_a_recipe():
    recipe = TrainingRecipe.load(Path(__file__).parents[2] / "recipes" / "train_sigma.yaml")
    chain = [(stage.resolution, stage.interpolation, stage.steps, stage.batch) for stage in recipe.stages]
    assert chain[:4] == [(256, 0.5, 8000, 1024), (256, 0.5, 80000, 1024), (512, 1, 10000, 1024), (1024, 2, 5000, 384)]
    assert chain[5][:2] == (2048, 4)
    assert [stage.kv_compression is not None for stage in recipe.stages] == [False] * 4 + [True] * 3
    assert recipe.latents.channels == 4 and recipe.text.channels == 4096


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 10**20}, r"seed: input should be less than 9223372036854775808 \(got 100000000000000000000\)"),
        ({"seed": -(10**20)}, "seed: input should be greater than"),
        ({"data": {"batch": 10**20}}, r"data\.batch: input should be less than"),
        ({"optimizer": {"warmup_steps": 10**20}}, r"optimizer\.warmup_steps: input should be less than"),
        (
            {"stages": [{"name": "a", "resolution": 256, "steps": 10**8}]},
            r"stages\.0\.steps: input should be less",
        ),
        ({"sample": {"every": 4}}, r"sample\.every 4 draws nothing without sample\.prompts"),
        ({"sample": {"prompts": ["a"]}}, r"sample\.prompts are never drawn while sample\.every is 0"),
        ({"sample": {"prompts": ["a"], "every": 6}}, r"sample\.every 6 is above the steps of every stage, at most 5"),
        ({"validation": {"every": 20}}, r"validation\.every 20 is above the steps of every stage, at most 5"),
        (
            {"validation": {"share": 0.1}},
            r"validation: share 0\.1 changes nothing while every is 0; set every, or remove",
        ),
        ({"validation": {"samples": 3}}, "validation: samples 3 changes nothing while every is 0"),
        ({"validation": {"timesteps": [5]}}, r"validation: timesteps \(5,\) changes nothing while every is 0"),
        (
            {"wandb": {"project": "mine"}},
            "wandb: project mine changes nothing while mode is off; set mode to offline or",
        ),
        ({"wandb": {"mode": "off", "project": "mine"}}, "wandb: project mine changes nothing while mode is off"),
        ({"ema": {"enabled": False, "decay": 0.5}}, r"ema: decay 0\.5 changes nothing while enabled is false"),
        ({"ema": {"enabled": False, "warmup": False}}, "ema: warmup False changes nothing while enabled is false"),
        (
            {"stages": [{**stages()[0], "weights": "raw"}]},
            r"weights raw changes nothing while stages\.0 \(a\) starts from scratch; name a parent, or remove weights",
        ),
        (
            {
                "stages": [
                    *stages(),
                    {"name": "b", "resolution": 256, "steps": 5, "parent": "scratch", "weights": "raw"},
                ]
            },
            r"weights raw changes nothing while stages\.1 \(b\) starts from scratch",
        ),
        (
            {"stages": [{**stages()[0], "kv_compression": {"layers": [3], "ratio": 10**30}}]},
            r"stages\.0\.kv_compression\.ratio: input should be less",
        ),
        ({"latents": {"posterior": "mean"}}, "posterior and precision are for codec sdxl"),
        ({"text": {"precision": "fp32"}}, "precision is for encoder t5"),
        ({"out": "~nobody-of-this-name/run"}, "out: ~nobody-of-this-name/run: there is no such home directory"),
    ],
)
def test_what_cannot_act_or_is_out_of_range_is_refused_with_the_knob(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


def test_a_stage_that_is_refused_is_named_alone():
    child = {"name": "b", "resolution": 256, "steps": 5}
    for changes in ({"parent": "~nobody-of-this-name/w"}, {"batch": 10**30}, {"kv_compression": {"layers": [10**30]}}):
        with pytest.raises(ValueError, match=r"^recipe: stages\.1\.[^\n]*$"):
            recipe(stages=[*stages(), {**child, **changes}])
    with pytest.raises(ValueError, match="stages: tuple should have at least 1 item"):
        recipe(stages=[])


def test_weights_of_a_parent_are_chosen_where_there_is_one():
    child = {"name": "b", "resolution": 256, "steps": 5, "weights": "raw"}
    assert recipe(stages=[*stages(), child]).stages[1].weights == "raw"
    assert recipe(stages=[{**child, "parent": "~/w.pth"}]).stages[0].weights == "raw"


def test_seeds_and_cadences_in_range_are_kept():
    assert [recipe(seed=seed).seed for seed in (-3, 0, 2**63 - 1)] == [-3, 0, 2**63 - 1]
    longer = [*stages(), {"name": "b", "resolution": 512, "steps": 20}]
    assert recipe(sample={"prompts": ["a"], "every": 5}, validation={"every": 20}, stages=longer).sample.every == 5


def test_what_acts_less_than_one_may_think_is_said():
    r = recipe(
        validation={"every": 20},
        optimizer={"lr": 1e-3, "warmup_steps": 10},
        stages=[*stages(), {"name": "b", "resolution": 512, "steps": 20}],
    )
    assert r.said_of(r.stages[0]) == [
        "the warm-up of 10 steps is longer than the stage, so lr grows to 0.0005 and never reaches 0.001",
        "validation.every is 20 and the stage has 5 steps, so it never comes here",
    ]
    assert r.said_of(r.stages[1]) == []


def test_every_path_knob_expands_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    r = recipe(
        dataset="~/d",
        out="~/o",
        features={"folder": "~/f"},
        latents={"codec": "sdxl", "weights": "~/v"},
        text={"encoder": "t5", "weights": "~/t"},
        stages=[{"name": "a", "resolution": 256, "steps": 5, "parent": "~/w.pth"}],
    )
    paths = [r.dataset, r.out, r.features.folder, r.latents.weights, r.text.weights, r.stages[0].parent]
    assert [str(path) for path in paths] == [f"/home/someone/{name}" for name in ("d", "o", "f", "v", "t", "w.pth")]
    assert recipe(out="a~b").out_folder == Path("a~b")


def test_a_dataset_in_a_store_has_a_folder_of_its_own_for_copies():
    there = [recipe(dataset=f"s3://b/{name}", data={"cache_dir": "/nvme"}) for name in ("one", "two", "one")]
    folders = [r.dataset_folder for r in there]
    assert folders[0] == folders[2] != folders[1] and {folder.parent for folder in folders} == {Path("/nvme")}
    assert there[0].features_folder == folders[0] / "features"
    assert recipe(dataset="s3://b/one").resolved()["dataset"] == "s3://b/one"
    assert recipe(dataset="d").dataset_folder == Path("d")


def test_a_recipe_of_the_other_kind_is_named_as_what_it_is(tmp_path):
    from schemas.recipe import DataRecipe

    with pytest.raises(ValueError, match=r"folder\.yaml: is a data recipe, which sigma build takes"):
        TrainingRecipe.load(RECIPES / "folder.yaml")
    with pytest.raises(ValueError, match=r"train_demo\.yaml: is a training recipe, which sigma train takes"):
        DataRecipe.load(RECIPES / "train_demo.yaml")
    (tmp_path / "empty.yaml").write_text("seed: 3")
    with pytest.raises(ValueError, match="dataset is required"):
        TrainingRecipe.load(tmp_path / "empty.yaml")
