"""Real training runs in processes of their own, alone or under torchrun, with a trace of what each step was fed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import Popen
from typing import Any

from schemas.training import TrainingRecipe
from tests.processes import Python, launched_python
from training.metrics import read_metrics

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, os, sys
import torch
from schemas.training import TrainingRecipe
from training.data.loader import Loader
from training.train import train

recipe_file, folder, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
rank = int(os.environ.get("RANK", "0"))
batches = Loader.batches

def traced(self, first_step, last_step):
    with open(f"{folder}/{rank}.trace", "w") as file:
        file.write(f"{os.getpid()}\\n")
        for step, batch in enumerate(batches(self, first_step, last_step), first_step):
            line = [step, batch.image_ids, batch.timestep.tolist(), batch.noise_seeds, batch.drop.tolist()]
            file.write(json.dumps(line) + "\\n")
            file.flush()
            yield batch

Loader.batches = traced
if extra := os.environ.get("BEFORE_TRAINING"):
    exec(extra)
try:
    train(TrainingRecipe.load(recipe_file))
except ValueError as refusal:
    sys.exit(f"refused: {refusal}")
"""
"""What `sigma train` does, without its console: a refusal is one line on stderr and exit code 1."""


def start_group(programs: Sequence[Sequence[str | Path]], env: Mapping[str, str], **options: Any) -> list[Popen[str]]:
    """Start one process per program, which find each other as under torchrun; a single one knows of no others."""
    if len(programs) == 1:
        return [Python(*programs[0], env=dict(env), **options)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(len(programs))}
    return [
        Python(*program, env={**env, **group, "RANK": str(rank)}, **options) for rank, program in enumerate(programs)
    ]


class Run:
    """A training run that has been started: one process, or several by themselves or under torchrun.

    Attributes:
        folder: holds a trace per process: its process id, then (step, image ids, timesteps, noise seeds, caption
            drops) of each step.
    """

    def __init__(
        self, recipe: TrainingRecipe, processes: int = 1, *, threads: int = 1, before: str = "", torchrun: bool = False
    ) -> None:
        self.recipe, self.processes = recipe, processes
        self.folder = Path(tempfile.mkdtemp(dir=recipe.out_folder.parent))
        (self.folder / "recipe.yaml").write_text(recipe.to_yaml())
        (self.folder / "program.py").write_text(PROGRAM)
        program = [str(self.folder / "program.py"), str(self.folder / "recipe.yaml"), str(self.folder), str(threads)]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "BEFORE_TRAINING": before}
        options: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
        if torchrun:
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--no-python"]
            words = [*launcher, *launched_python(), *program]
            self._processes: list[Popen[str]] = [Python(*words, env=environment, **options)]
        else:
            self._processes = start_group([program] * processes, environment, **options)

    def wait_for(self, step: int, timeout_s: float = 60) -> Run:
        """Until the metrics hold this step."""
        deadline = time.monotonic() + timeout_s
        while not any(line["step"] >= step for line in metrics_of(self.recipe)):
            assert self._processes[0].poll() is None, f"ended before step {step}: {self.end()[1]}"
            assert time.monotonic() < deadline, f"not at step {step} after {timeout_s} s"
            time.sleep(0.005)
        return self

    def pids(self) -> list[int]:
        """Of the training processes, by rank."""
        return [int(path.read_text().splitlines()[0]) for path in sorted(self.folder.glob("*.trace"))]

    def kill(self) -> None:
        """SIGKILL to every process at once, the launcher first."""
        for pid in dict.fromkeys([*(process.pid for process in self._processes), *self.pids()]):
            os.kill(pid, signal.SIGKILL)
        self.end()

    def end(self, timeout_s: float = 90) -> tuple[int, str]:
        """Exit code, of torchrun or the first process, and what all wrote to stderr."""
        complaints = [process.communicate(timeout=timeout_s)[1] for process in self._processes]
        return self._processes[0].returncode, "".join(complaints)

    def finish(self) -> None:
        code, complaints = self.end()
        assert code == 0, complaints

    def trace(self) -> dict[int, list[list[Any]]]:
        """What each step's whole batch was: [image ids, timesteps, noise seeds, caption drops] over all processes."""
        traces = []
        for path in sorted(self.folder.glob("*.trace")):
            lines = [json.loads(line) for line in path.read_text().splitlines()[1:] if line.endswith("]")]
            traces.append({step: columns for step, *columns in lines})
        assert len(traces) == self.processes
        common = set.intersection(*(set(trace) for trace in traces))
        return {
            step: [[value for trace in traces for value in trace[step][column]] for column in range(4)]
            for step in sorted(common)
        }


def metrics_of(recipe: TrainingRecipe) -> list[dict[str, Any]]:
    """The lines of all stages, in order."""
    return [line for stage in recipe.stages for line in read_metrics(recipe.stage_folder(stage))]
