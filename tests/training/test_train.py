"""The loop as a whole: it learns, resumes to the bit after kill -9, skips what is done, and splits over processes."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml
from PIL import Image

import training.checkpoint
import training.train
from commands import interrupts
from commands.terminal import refusals
from schemas.buckets import sizes
from schemas.training import TrainingRecipe
from tests.processes import Python
from tests.training.runs import start_group
from training.checkpoint_files import latest_checkpoint
from training.data.loader import Loader, PaddedText
from training.inputs import ModelInputs
from training.metrics import METRICS_FILE, read_metrics
from training.model import PixArt, PixArtConfig
from training.optim.gradients import accumulate_gradients
from training.parallel import lost_process
from training.parallel.distributed import World, world
from training.sample import sample_grid, sample_prompts
from training.train import finite_mean, train, train_stage

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
NUMBERS = ("step", "loss", "mse", "vb", "grad_norm", "lr", "epoch")
PROGRAM = """
import sys, torch
torch.set_num_threads(1)
from commands.learning import train_stages
from schemas.training import TrainingRecipe
train_stages(TrainingRecipe.load(sys.argv[1]))
"""


def numbers(recipe: TrainingRecipe) -> list[tuple]:
    """What must be equal to the bit between runs: everything but speed."""
    lines = [line for stage in recipe.stages for line in read_metrics(recipe.stage_folder(stage))]
    return [tuple(line[name] for name in NUMBERS) for line in lines]


WHERE = {"cwd": REPOSITORY, "env": {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}}


def program(recipe: TrainingRecipe, folder: Path) -> list[Path]:
    path = folder / f"{recipe.out_folder.name}.yaml"
    path.write_text(recipe.to_yaml())
    (folder / "program.py").write_text(PROGRAM)
    return [folder / "program.py", path]


def start(recipe: TrainingRecipe, folder: Path) -> subprocess.Popen:
    return Python(*program(recipe, folder), **WHERE)


def test_a_chain_trains_samples_and_is_skipped_the_second_time(recipe_values, tmp_path, caplog):
    seen = []
    recipe = TrainingRecipe.from_mapping(recipe_values | {"sample": {"prompts": ["a b"], "every": 4, "steps": 2}})
    summaries = train(recipe, on_progress=seen.append)
    assert [summary.name for summary in summaries] == ["small", "compressed"]
    assert [(p.stage, p.step) for p in seen] == [("small", s) for s in (2, 4, 6, 8)] + [
        ("compressed", s) for s in (2, 4)
    ]
    assert all(summary.checkpoint.is_file() and math.isfinite(summary.last_loss) for summary in summaries)
    folder = recipe.stage_folder(recipe.stages[0])
    assert sorted(p.name for p in folder.glob("step-*.pt")) == ["step-00000004.pt", "step-00000008.pt"]
    assert len(list((folder / "samples").glob("*.png"))) == 2

    started = time.perf_counter()
    again = train(recipe)
    assert all(summary.skipped for summary in again) and time.perf_counter() - started < 2
    assert [s.last_loss for s in again] == [s.last_loss for s in summaries]
    assert train(recipe, only_stage="small")[0].skipped

    report = sample_grid(recipe, out=tmp_path / "grid.png", count=3)
    assert report.stage == "compressed" and len(report.likeness) == len(report.captions) == 3
    assert (tmp_path / "grid.png").read_bytes()[1:4] == b"PNG"
    once = (tmp_path / "grid.png").read_bytes()
    sample_grid(recipe, out=tmp_path / "grid.png", count=3)
    assert (tmp_path / "grid.png").read_bytes() == once
    sample_prompts(recipe, ["a boat", "a house"], tmp_path / "prompts.png", stage="small", aspect="0.5")
    assert (tmp_path / "prompts.png").is_file()
    one, two = (np.asarray(Image.open(tmp_path / f"prompts-{number}.png")) for number in (1, 2))
    assert one.shape == two.shape == (*sizes(32, 16)["0.5"], 3) and not np.array_equal(one, two)
    sample_prompts(recipe, ["a boat"], tmp_path / "boat.png", stage="small", aspect="0.5")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "boat.png")), one)  # the same noise, and nothing around it
    assert (
        "no stage up to small was trained on pictures of aspect 0.5" in caplog.text and "is cut to" not in caplog.text
    )
    caplog.clear()
    sample_prompts(recipe, ["word " * 40], tmp_path / "long.png", stage="small", aspect="0.68")
    assert "a prompt of 41 tokens is cut to 20: word word" in caplog.text and "no stage" not in caplog.text


def test_training_lowers_the_loss(recipe_values):
    values = recipe_values | {"stages": [recipe_values["stages"][0] | {"steps": 100}]}
    (summary,) = train(TrainingRecipe.from_mapping(values | {"checkpoint_every": 200, "log_every": 20}))
    assert summary.last_loss < 0.6 * summary.first_loss


def test_a_stage_can_be_trained_longer(recipe_values):
    short = TrainingRecipe.from_mapping(recipe_values | {"stages": recipe_values["stages"][:1]})
    train(short)
    longer = TrainingRecipe.from_mapping(recipe_values | {"stages": [recipe_values["stages"][0] | {"steps": 12}]})
    assert train(longer)[0].steps == 12
    assert [line["step"] for line in read_metrics(longer.stage_folder(longer.stages[0]))] == [2, 4, 6, 8, 10, 12]


def test_training_and_sampling_refuse_what_does_not_exist(recipe_values, tmp_path):
    recipe = TrainingRecipe.from_mapping(recipe_values)
    with pytest.raises(ValueError, match="no stage 'smal' in the recipe; its stages are small, compressed"):
        train(recipe, only_stage="smal")
    with pytest.raises(ValueError, match="train that stage first"):
        train(recipe, only_stage="compressed")
    with pytest.raises(ValueError, match="no checkpoint of any stage here"):
        sample_grid(recipe, out=tmp_path / "g.png")
    with pytest.raises(ValueError, match="no prompt to sample"):
        sample_prompts(recipe, [], tmp_path / "g.png")
    with pytest.raises(ValueError, match=r"no aspect bucket '9\.9'"):
        sample_prompts(recipe, ["x"], tmp_path / "g.png", aspect="9.9")
    lacking = {"dataset": str(tmp_path / "none")}, {"text": {"encoder": "t5", "max_tokens": 20}}
    for knobs, why in zip(lacking, ("no shard index", "weights missing"), strict=True):
        with pytest.raises(ValueError, match=why):
            train(TrainingRecipe.from_mapping(recipe_values | knobs))
    assert not recipe.out_folder.exists()


def test_killed_at_any_step_and_resumed_the_losses_are_equal_to_the_bit(recipe_values, tmp_path):
    values = recipe_values | {"log_every": 1, "checkpoint_every": 3}
    values["stages"] = [values["stages"][0] | {"steps": 40}, values["stages"][1] | {"steps": 10}]
    undisturbed, killed = (
        TrainingRecipe.from_mapping(values | {"out": str(tmp_path / n)}) for n in ("whole", "killed")
    )
    assert start(undisturbed, tmp_path).wait(timeout=60) == 0
    chance = random.Random(time.time_ns())
    for target in sorted(chance.sample(range(2, 45), 2)):
        process = start(killed, tmp_path)
        deadline = time.monotonic() + 60
        while process.poll() is None and len(numbers(killed)) < target and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()  # SIGKILL
        process.wait()
    assert start(killed, tmp_path).wait(timeout=60) == 0
    assert len(numbers(undisturbed)) == 50
    assert numbers(killed) == numbers(undisturbed)
    for stage in undisturbed.stages:
        name = f"step-{stage.steps:08d}.pt"
        a, b = (torch.load(r.stage_folder(stage) / name, weights_only=True) for r in (undisturbed, killed))
        assert all(torch.equal(a["state_dict_ema"][key], b["state_dict_ema"][key]) for key in a["state_dict_ema"])


@pytest.mark.quick
def test_two_processes_train_like_one(recipe_values, tmp_path):
    one, two = (TrainingRecipe.from_mapping(recipe_values | {"out": str(tmp_path / n)}) for n in ("one", "two"))
    assert start(one, tmp_path).wait(timeout=60) == 0
    processes = start_group([program(two, tmp_path)] * 2, **WHERE, stdout=subprocess.PIPE, text=True)
    said = "".join(process.communicate(timeout=90)[0] for process in processes).splitlines()
    assert not any(process.returncode for process in processes)
    for stage in two.stages:
        features, done = (
            [line for line in said if line.startswith(begin)]
            for begin in (f"stage {stage.name}: latents", f"✓ {stage.name} ")
        )
        assert len(features) == len(done) == 1, said
    assert len(numbers(one)) == 6
    for a, b in zip(numbers(one), numbers(two), strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-6)


def inputs_of(count: int) -> ModelInputs:
    torch.manual_seed(1)
    text = PaddedText.of([torch.randn(1 + i % 3, 8) for i in range(count)])
    latents, noise = torch.randn(count, 4, 4, 4), torch.randn(count, 4, 4, 4)
    timestep, drop = torch.arange(count) * 100, torch.arange(count) % 2 == 0
    return ModelInputs(latents, noise, timestep, text.tokens, text.mask, drop, text.lengths)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 5])
def test_accumulated_gradients_are_those_of_the_whole_batch(recipe_values, micro_batch):
    model = PixArt(PixArtConfig(depth=1, hidden_size=16, num_heads=2, caption_channels=8, max_caption_tokens=4))
    torch.nn.init.normal_(model.final_layer.linear.weight)
    results = []
    for size in (None, micro_batch):
        data = {"timesteps_per_image": 1, "micro_batch": size}
        recipe = TrainingRecipe.from_mapping(recipe_values | {"data": data})
        model.zero_grad()
        terms = accumulate_gradients(model, inputs_of(5), recipe, recipe.data, World(0, 1, torch.device("cpu")))
        results.append((terms, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    assert torch.allclose(results[0][0], results[1][0], rtol=1e-5)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_with_its_images():
    good, bad = torch.tensor([1.0, 0.5, 0.5, 2.0]), torch.tensor([math.nan, 0.5, 0.5, 2.0])
    here = World(0, 1, torch.device("cpu"))
    assert finite_mean([(1, ["a"], good), (2, ["b"], 3 * good)], "s", here)["loss"] == 2
    with pytest.raises(ValueError, match=r"stage s, step 2: loss nan, .* images b, c; lower lr"):
        finite_mean([(1, ["a"], good), (2, ["b", "c"], bad), (3, ["d"], bad)], "s", here)


def test_training_stops_before_a_bad_checkpoint(recipe_values):
    values = recipe_values | {"optimizer": {"lr": 1e30, "warmup_steps": 0}}
    recipe = TrainingRecipe.from_mapping(values)
    with pytest.raises(ValueError, match=r"are not finite; images [0-9a-f]{32}"):
        train(recipe)
    assert not list(recipe.stage_folder(recipe.stages[0]).glob("step-*.pt"))


def test_every_process_but_the_first_says_nothing_of_its_stages(recipe_values, monkeypatch, caplog):
    slow = recipe_values["optimizer"] | {"warmup_steps": 1000}
    recipe = TrainingRecipe.from_mapping(recipe_values | {"stages": recipe_values["stages"][:1], "optimizer": slow})
    with caplog.at_level(logging.INFO):
        assert len(train(recipe)) == 1 and "stage small: latents encoded" in caplog.text
        assert "stage small: the warm-up of 1,000 steps is longer than the stage" in caplog.text
        caplog.clear()
        second = nullcontext(World(1, 1, torch.device("cpu")))
        monkeypatch.setattr(training.train, "world", lambda _: second)
        try:
            assert train(recipe) == [] and caplog.text == ""
        finally:
            logging.getLogger("training").setLevel(logging.NOTSET)


def interrupted_before(step: int, monkeypatch: pytest.MonkeyPatch, signalled: signal.Signals = signal.SIGINT) -> None:
    """Ctrl-C, or another signal, while the batch of a step is made."""
    batches = Loader.batches

    def pressing(self, first, last):
        for number, batch in enumerate(batches(self, first, last), first):
            if number == step:
                signal.raise_signal(signalled)
            yield batch

    monkeypatch.setattr(Loader, "batches", pressing)


@pytest.mark.parametrize("step", [2, 4])
def test_interrupted_between_two_lines_and_resumed_the_losses_are_equal_to_the_bit(recipe_values, tmp_path, step):
    values = recipe_values | {"log_every": 4, "checkpoint_every": 8}
    whole, stopped = (TrainingRecipe.from_mapping(values | {"out": str(tmp_path / n)}) for n in ("whole", "stopped"))
    train(whole, only_stage="small")
    with pytest.MonkeyPatch.context() as patch:
        interrupted_before(step, patch)
        line = (
            rf"received SIGINT; stage small is stored at step {step + 1} of 8, in step-0000000{step + 1}\.pt; run the"
        )
        with pytest.raises(KeyboardInterrupt, match=line):
            train(stopped)
    assert latest_checkpoint(stopped.stage_folder(stopped.stages[0]))[0] == step + 1
    train(stopped, only_stage="small")
    assert numbers(stopped) == numbers(whole) and len(numbers(whole)) == 2


def test_a_signal_during_the_last_checkpoint_of_a_stage_ends_the_run_before_the_next_stage(recipe_values, monkeypatch):
    write = training.checkpoint.write_checkpoint

    def signalled(folder, step, *rest):
        if step == 8:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)  # the main thread waits for this write
        return write(folder, step, *rest)

    monkeypatch.setattr(training.checkpoint, "write_checkpoint", signalled)
    recipe = TrainingRecipe.from_mapping(recipe_values)
    with pytest.raises(
        KeyboardInterrupt, match=r"received SIGINT; stage small is finished; run the same command to go"
    ):
        train(recipe)
    assert latest_checkpoint(recipe.stage_folder(recipe.stages[0]))[0] == 8
    assert not recipe.stage_folder(recipe.stages[1]).exists()


def test_a_stage_that_is_refused_for_the_shape_of_its_parent_leaves_nothing(recipe_values, tmp_path):
    torch.save({"state_dict": {"w": torch.ones(1)}}, tmp_path / "other.pth")
    values = recipe_values | {"stages": [recipe_values["stages"][0] | {"parent": str(tmp_path / "other.pth")}]}
    recipe = TrainingRecipe.from_mapping(values)
    with pytest.raises(ValueError, match="does not fit this model"):
        train(recipe)
    assert not recipe.out_folder.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_trains_ends_with_the_status_of_its_signal(recipe_values, monkeypatch, number):
    monkeypatch.setattr(interrupts, "_received", None)
    monkeypatch.setattr(interrupts, "_raised", None)
    before = signal.signal(number, interrupts._interrupt)
    try:
        interrupted_before(2, monkeypatch, number)
        with pytest.raises(typer.Exit) as ended, refusals():
            train(TrainingRecipe.from_mapping(recipe_values))
    finally:
        signal.signal(number, before)
    assert ended.value.exit_code == 128 + number


def test_a_signal_that_a_shell_has_ignored_stays_ignored(recipe_values, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupted_before(2, monkeypatch)
        recipe = TrainingRecipe.from_mapping(recipe_values)
        assert [(stage.name, stage.steps) for stage in train(recipe, only_stage="small")] == [("small", 8)]
    finally:
        signal.signal(signal.SIGINT, before)


def test_interrupted_twice_no_checkpoint_is_waited_for(recipe_values, monkeypatch):
    monkeypatch.setattr(lost_process, "REPEATED_S", 0)
    recipe = TrainingRecipe.from_mapping(recipe_values)
    interrupted_before(2, monkeypatch)
    interrupted_before(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        train(recipe)
    assert latest_checkpoint(recipe.stage_folder(recipe.stages[0])) is None


def test_a_loss_that_is_not_finite_names_a_way_that_works(recipe_values):
    values = recipe_values | {"checkpoint_every": 1, "log_every": 1}

    def with_rate(lr: float, steps: int = 8) -> TrainingRecipe:
        optimizer = {"lr": lr, "warmup_steps": 0, "gradient_clip": 1.0}
        stages = [recipe_values["stages"][0] | {"steps": steps}]
        return TrainingRecipe.from_mapping(values | {"optimizer": optimizer, "stages": stages})

    train(with_rate(1e-3, steps=4))
    folder = with_rate(1e-3).stage_folder(with_rate(1e-3).stages[0])
    told = (
        r"step 6: .* are not finite; .*lower lr or gradient_clip and go on from step-00000004\.pt: sigma train RECIPE "
        r"--from-last-good stages\.0\.lr=LOWER \(it is 1e\+30\); step-00000005\.pt gave this loss and is set aside as"
    )
    with pytest.raises(ValueError, match=told):
        train(with_rate(1e30), from_last_good=True)
    assert (folder / "step-00000005.pt.not-finite").is_file()
    with pytest.raises(
        ValueError, match=r"was trained with optimizer\.lr = 1e\+30, the recipe now has .*--from-last-good"
    ):
        train(with_rate(1e-4))
    (summary,) = train(with_rate(1e-4), from_last_good=True)
    assert summary.steps == 8 and math.isfinite(summary.last_loss)
    changes = yaml.safe_load((folder / "recipe.yaml").read_text())["changes"]
    assert [(c["step"], c["knob"], c["was"], c["is"]) for c in changes] == [
        (4, "optimizer.lr", 1e-3, 1e30),
        (4, "optimizer.lr", 1e30, 1e-4),
    ]
    assert train(with_rate(1e-4))[0].skipped  # from here on it is the recipe's


def test_without_a_checkpoint_it_says_so_and_starts_anew(recipe_values):
    values = recipe_values | {"stages": recipe_values["stages"][:1]}
    with pytest.raises(ValueError, match="no checkpoint from before it is left, so the stage starts anew: sigma train"):
        train(TrainingRecipe.from_mapping(values | {"optimizer": {"lr": 1e30, "warmup_steps": 0}}))
    assert train(TrainingRecipe.from_mapping(values), from_last_good=True)[0].steps == 8


def test_from_last_good_sets_a_damaged_checkpoint_aside(recipe_values, caplog):
    recipe = TrainingRecipe.from_mapping(recipe_values | {"stages": recipe_values["stages"][:1]})
    train(recipe)
    last = latest_checkpoint(recipe.stage_folder(recipe.stages[0]))[1]
    last.write_bytes(b"")
    longer = TrainingRecipe.from_mapping(recipe.resolved() | {"stages": [recipe_values["stages"][0] | {"steps": 10}]})
    moved = shutil.copy(last.with_name("step-00000004.pt"), last.with_name("step-00000009.pt"))
    with pytest.raises(
        ValueError, match=r"step-00000009\.pt: holds step 4; give it back its place and name, or remove it"
    ):
        train(longer)
    moved.unlink()
    with pytest.raises(ValueError, match=r"it is empty, 0 bytes.*continue from step-00000004\.pt \(--from-last-good"):
        train(longer)
    assert train(longer, from_last_good=True)[0].steps == 10
    assert "damaged, set aside as step-00000008.pt.damaged" in caplog.text


def test_the_metrics_hold_what_is_promised(recipe_values):
    recipe = TrainingRecipe.from_mapping(recipe_values | {"precision": "bf16"})
    train(recipe, only_stage="small")
    text = (recipe.stage_folder(recipe.stages[0]) / METRICS_FILE).read_text()
    for line in map(json.loads, text.splitlines()):
        assert {*NUMBERS, "images_per_s", "wait_share", "tflops_per_s", "num_damaged"} <= line.keys()
        assert "mfu" not in line and line["tflops_per_s"] > 0  # no peak is known of a CPU
        assert math.isclose(line["loss"], line["mse"] + line["vb"], rel_tol=1e-5)
        assert 0 <= line["wait_share"] <= 1


def test_processes_that_do_not_divide_the_batch_are_refused(recipe_values):
    recipe = TrainingRecipe.from_mapping(recipe_values)
    with pytest.raises(ValueError, match=r"stage small: a batch of 4 cannot be split over 3 processes evenly; set"):
        train_stage(recipe, recipe.stages[0], World(0, 3, torch.device("cpu")), None)
    assert not recipe.stage_folder(recipe.stages[0]).exists()


def test_half_a_torchrun_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="start with torchrun"), world():
        pass
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="torchrun's variables are damaged"), world():
        pass


def test_the_metrics_say_which_captions_were_read(recipe_values):
    values = recipe_values | {"text": {"channels": 16, "max_tokens": 6}}
    recipe = TrainingRecipe.from_mapping(values)
    train(recipe, only_stage="small")
    lines = read_metrics(recipe.stage_folder(recipe.stages[0]))
    # "a synthetic sentence about 3" fills the limit, "raw words number 6" does not
    assert all(0.5 < line["synthetic_share"] <= 1 and line["cut_share"] == 0 for line in lines)
    assert all(line["at_limit_share"] == pytest.approx(line["synthetic_share"]) for line in lines)
