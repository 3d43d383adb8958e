"""FSDP2 against DDP: the same losses, the same files, and CAME's numbers on slices."""

from __future__ import annotations

import os
import subprocess

import pytest
import torch

from schemas.training import TrainingRecipe
from tests.training.runs import Run, metrics_of, start_group
from training.metrics import read_metrics
from training.model import PixArt
from training.train import train
from training.weak_to_strong import model_config

pytestmark = pytest.mark.slow

NUMBERS = ("loss", "mse", "vb", "grad_norm")


@pytest.fixture
def values(recipe_values):
    """A stage of eight steps that also validates, samples and accumulates."""
    values = recipe_values | {"log_every": 1, "checkpoint_every": 4, "keep_checkpoints": 9}
    values |= {"validation": {"every": 4, "samples": 3}, "sample": {"prompts": ["a"], "every": 8, "steps": 2}}
    values["data"] = {"batch": 4, "timesteps_per_image": 2, "micro_batch": 1}
    values["optimizer"] = {"lr": 1e-4, "warmup_steps": 4, "gradient_clip": 0.5}  # it does clip
    return values | {"stages": [values["stages"][1] | {"name": "s", "steps": 8}]}


def test_fsdp_trains_like_ddp_and_reads_its_checkpoints(values, tmp_path):
    teacher = PixArt(model_config(TrainingRecipe.from_mapping(values), TrainingRecipe.from_mapping(values).stages[0]))
    torch.nn.init.normal_(teacher.final_layer.linear.weight, std=0.1)
    torch.save({"state_dict": teacher.state_dict()}, tmp_path / "teacher.pth")
    few = {"name": "few", "parent": str(tmp_path / "teacher.pth"), "steps": 2, "distil": {"huber": 0.1}}

    def recipe(out: str, parallel: str, steps: int = 8, *, distils: bool = True) -> TrainingRecipe:
        stages, sample = [values["stages"][0] | {"steps": steps}], values["sample"] | {"every": steps}
        stages += [values["stages"][0] | few] * distils
        return TrainingRecipe.from_mapping(
            values | {"out": str(tmp_path / out), "parallel": parallel, "stages": stages, "sample": sample}
        )

    runs = [Run(recipe("ddp", "ddp"), processes=2), Run(recipe("fsdp", "fsdp"), processes=2)]
    train(recipe("mixed", "ddp", steps=4))  # one process
    for run in runs:
        run.finish()
    Run(recipe("mixed", "fsdp"), processes=2).finish()
    (tmp_path / "fsdp" / "01-s" / "step-00000008.pt").rename(tmp_path / "sharded.pt")
    train(recipe("fsdp", "ddp"))  # one process goes on from the sharded step 4

    ddp, fsdp, mixed = (metrics_of(recipe(out, "ddp", distils=False)) for out in ("ddp", "fsdp", "mixed"))
    assert [line["step"] for line in fsdp] == [line["step"] for line in mixed] == list(range(1, 9))
    for lines in (fsdp, mixed):
        for line, expected in zip(lines, ddp, strict=True):
            names = (*NUMBERS, *(name for name in expected if name.startswith("val_")))
            for name in names:
                assert line[name] == pytest.approx(expected[name], rel=1e-5), (line["step"], name)

    distilled = [read_metrics(tmp_path / out / "02-few") for out in ("ddp", "fsdp", "mixed")]  # mixed by one process
    for step in (0, 1):
        for name in ("loss", "grad_norm"):
            first, *others = (lines[step][name] for lines in distilled)
            assert others == pytest.approx([first] * 2, rel=1e-5) and first > 0, (step, name)

    whole, sharded = (
        torch.load(path, weights_only=True)
        for path in (tmp_path / "ddp" / "01-s" / "step-00000008.pt", tmp_path / "sharded.pt")
    )
    for part in ("state_dict", "state_dict_ema"):
        assert whole[part].keys() == sharded[part].keys()
        for key, value in whole[part].items():
            assert type(sharded[part][key]) is torch.Tensor
            if not key.endswith(("qkv.bias", "kv_linear.bias")):  # a key's bias has no gradient but rounding
                assert torch.allclose(sharded[part][key], value, atol=2e-5), key
    for number, state in whole["optimizer"]["state"].items():
        for key, value in state.items():
            assert sharded["optimizer"]["state"][number][key].shape == value.shape


CAME_ON_SLICES = """
import copy
import torch
import torch.distributed as dist
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
from training.came import CAME
from training.parallel.sharding import whole

torch.set_num_threads(1)
dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (dist.get_world_size(),))
sliced = lambda value: distribute_tensor(value, mesh, [Shard(0)])
torch.manual_seed(0)
shapes = [(48, 32), (48, 32), (7, 5), (2, 9), (6, 1, 2, 2), (32,), (1,)]  # 3 processes: uneven and empty slices
plain = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
cut = [torch.nn.Parameter(sliced(p.detach().clone())) for p in plain]
first, second = CAME(plain, lr=1e-3, weight_decay=0.03), CAME(cut, lr=1e-3, weight_decay=0.03)
for step in range(30):
    for p, q in zip(plain, cut):
        p.grad = torch.randn(p.shape) * 10.0 ** (step % 3 - 1)
        q.grad = sliced(p.grad.clone())
    first.step()
    second.step()
    if step == 15:  # a state of whole tensors is what a checkpoint holds
        stored = whole(second.state_dict())
        for state, expected in zip(stored["state"].values(), first.state_dict()["state"].values(), strict=True):
            for name, value in expected.items():
                torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-7)
        second = CAME(cut, lr=1e-3, weight_decay=0.03)
        second.load_state_dict(copy.deepcopy(stored))
for p, q in zip(plain, cut):
    difference = (q.full_tensor() - p).norm() / p.norm()
    assert difference < 1e-6, (p.shape, difference)
dist.barrier()
dist.destroy_process_group()
"""


def test_came_on_slices_gives_the_numbers_of_whole_tensors(tmp_path):
    program = tmp_path / "came_on_slices.py"
    program.write_text(CAME_ON_SLICES)
    processes = start_group([[program]] * 3, os.environ, stderr=subprocess.PIPE, text=True)
    complaints = [process.communicate(timeout=90)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], complaints


def test_exact_sums_and_fsdp_exclude_each_other(recipe_values):
    with pytest.raises(ValueError, match="exact_sums sums whole gradients, parallel fsdp never has them"):
        TrainingRecipe.from_mapping(recipe_values | {"exact_sums": True, "parallel": "fsdp"})
