"""What a lost process and a full memory say: one line, with the way to go on, and the checkpoints stay good."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

import training.train
from schemas.training import Data, TrainingRecipe
from tests.processes import Python
from tests.training.runs import Run, metrics_of
from training.checkpoint import read_checkpoint
from training.checkpoint_files import latest_checkpoint
from training.parallel.lost_process import lost_process_named, torch_errors_named

pytestmark = pytest.mark.slow


@pytest.fixture
def long_recipe(recipe_values, tmp_path) -> TrainingRecipe:
    """Runs until it is killed."""
    values = recipe_values | {"log_every": 1, "checkpoint_every": 2, "out": str(tmp_path / "long")}
    return TrainingRecipe.from_mapping(values | {"stages": [values["stages"][0] | {"steps": 100_000}]})


def refusals(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith(("refused: ", "process 0 "))]


@pytest.mark.parametrize("torchrun", [True, False])
def test_a_lost_process_is_reported_by_the_other_at_once(long_recipe, torchrun):
    run = Run(long_recipe, processes=2, torchrun=torchrun).wait_for(step=4)
    os.kill(run.pids()[1], signal.SIGKILL)
    code, stderr = run.end(timeout_s=60)
    assert code != 0
    assert refusals(stderr), stderr
    (line,) = refusals(stderr)
    assert line.removeprefix("refused: ").startswith("process 0 of 2: ")
    assert "another process of this run was lost" in line or "SIGTERM" in line  # whichever reaches it first
    assert "run the same command to continue from the last one" in line
    assert stderr.count("Traceback") == int(torchrun), stderr  # torchrun's own report, none of ours
    found = latest_checkpoint(long_recipe.stage_folder(long_recipe.stages[0]))
    assert found is not None and read_checkpoint(found[1])["step"] == found[0] >= 2


def test_a_process_that_gets_sigterm_says_how_to_continue(long_recipe):
    run = Run(long_recipe).wait_for(step=2)
    os.kill(run.pids()[0], signal.SIGTERM)
    code, stderr = run.end(timeout_s=60)
    assert code == 1 and stderr.count("\n") == 1
    assert stderr.startswith("refused: process 0 of 1: received SIGTERM")
    step, path = stored(long_recipe)
    assert f"stage small is stored at step {step} of 100000, in {path.name}; run the same command to continue" in stderr


def stored(recipe: TrainingRecipe) -> tuple[int, Path]:
    """The newest checkpoint, which is that of the newest line of the metrics, as there is one per step."""
    found = latest_checkpoint(recipe.stage_folder(recipe.stages[0]))
    assert found is not None and read_checkpoint(found[1])["step"] == found[0] == metrics_of(recipe)[-1]["step"]
    return found


def test_a_signal_to_one_process_stops_all_at_the_same_step(long_recipe):
    run = Run(long_recipe, processes=2).wait_for(step=3)
    os.kill(run.pids()[1], signal.SIGTERM)
    code, stderr = run.end(timeout_s=60)
    step, _ = stored(long_recipe)
    assert code == 1 and stderr.count(f"is stored at step {step} of 100000") == 2, stderr


STUCK = """
import ctypes
import training.parallel.lost_process as lost
lost.GRACE_S = 0.2
with lost.lost_process_named(0, 2) as stop, stop.deferred():
    lock, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    print("up", flush=True)
    libc.pthread_mutex_lock(lock), libc.pthread_mutex_lock(lock)  # for ever, outside of Python
"""


def test_a_process_that_waits_inside_a_library_hears_sigterm_all_the_same():
    process = Python("-c", STUCK, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    time.sleep(0.3)  # it locks
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 143
    assert stderr.startswith("process 0 of 2: received SIGTERM while it waited") and "run the same command" in stderr


def test_a_full_memory_names_the_knobs(recipe_values):
    stage = recipe_values["stages"][0] | {"resolution": 2048, "steps": 1}
    data = {"batch": 64, "timesteps_per_image": 4, "cache_mb": 0}
    recipe = TrainingRecipe.from_mapping(recipe_values | {"stages": [stage], "data": data})
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2)"
    code, stderr = Run(recipe, before=limit).end()
    assert code == 1
    (line,) = refusals(stderr)
    assert line.startswith("refused: stage small: the memory is full with 256 noised pictures at once (")
    assert "data.micro_batch (now null)" in line and stderr.count("\n") == 1


def test_other_errors_are_not_renamed():
    with pytest.raises(RuntimeError, match="shapes differ"), torch_errors_named("s", Data(), 1):
        raise RuntimeError("shapes differ")
    with pytest.raises(RuntimeError, match="shapes differ"), lost_process_named(0, 2):
        raise RuntimeError("shapes differ")
    with (
        pytest.raises(ValueError, match=r"stage s: .* 6 noised pictures at once \(CUDA .* 2 GiB\.\); lower"),
        torch_errors_named("s", Data(micro_batch=3, timesteps_per_image=2), 2),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_step_is_left_to_the_command(recipe_values, monkeypatch, number):
    class Left(BaseException):
        """What the command ends with."""

    def leave(*_):
        raise Left

    monkeypatch.setattr(training.train, "fitting", lambda *_: signal.raise_signal(number))
    before = signal.signal(number, leave)
    try:
        with pytest.raises(Left):
            training.train.train(TrainingRecipe.from_mapping(recipe_values))
    finally:
        signal.signal(number, before)


def test_a_machine_without_a_compiler_is_told_so() -> None:
    failed = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})
    with (
        pytest.raises(ValueError, match=r"^stage s: .*\(No working C\+\+ compiler\); install .* set compile=false"),
        torch_errors_named("s", Data(), 1),
    ):
        raise failed("No working C++ compiler\n\nSet TORCHDYNAMO_VERBOSE=1")
