"""What `test_ray_cluster` runs in a namespace of its own, where `ray stop` ends nobody else's Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import ray

from engine.dataset import Dataset
from engine.ray_cluster import connect
from engine.ray_runner import RayRunner
from engine.runner import Committed, PartJob, Progress, Task

ADDRESS = "127.0.0.1:6379"


@dataclass(frozen=True, kw_only=True)
class Places(PartJob):
    """Parts that note on which kind of node they were computed."""

    job: str = "places"
    build: Callable[[], Any] = NoneType

    def run_part(self, dataset: Dataset, worker: Callable[[], Any], task: Task, progress: Progress) -> Committed:
        """Take long enough that one worker does not do all."""
        time.sleep(0.3)
        progress(1, {"on a GPU": len(ray.get_gpu_ids())})
        return Committed()


def start_less(parameters: Any, head: bool) -> None:
    """What `ray start` calls before it starts a node: without the processes that serve nobody here."""
    parameters.include_log_monitor = False
    parameters.ray_client_server_port = None
    parameters.no_monitor = not parameters.autoscaling_config


def run(num_gpus: float | None, parts: int, runner: RayRunner | None = None) -> Counter[str]:
    """Run parts, and return what was counted."""
    runner = runner or RayRunner(None, 0)
    counts = Counter[str]()

    def count(rows: int, more: Any = None) -> None:
        counts.update({"rows": rows, **(more or {})})

    runner.run(
        Dataset(Path(os.environ["DATASET"])),
        Places(num_gpus=num_gpus),
        [Task(number) for number in range(parts)],
        count,
    )
    return counts


def gpus_in_use() -> float:
    """GPUs of the cluster that some actor holds."""
    return ray.cluster_resources().get("GPU", 0) - ray.available_resources().get("GPU", 0)


def refusal(**environ: str) -> str:
    """What joining by address says under other variables."""
    os.environ.pop("RAY_AUTH_MODE", None)
    os.environ.update(environ)
    try:
        connect()
    except ValueError as error:
        return str(error)
    finally:
        for name in environ:
            os.environ.pop(name, None)
    raise AssertionError("it has joined")


def refusals() -> None:
    """Not with the token of the cluster. The last one is read once for all by Ray."""
    os.environ["RAY_ADDRESS"] = ADDRESS
    assert "this user's token is missing" in refusal(RAY_AUTH_TOKEN_PATH="/nothing")
    assert "this user's token is missing" in refusal(RAY_AUTH_TOKEN_PATH="/nothing", RAY_AUTH_MODE="token")
    assert "because RAY_AUTH_MODE is disabled" in refusal(RAY_AUTH_MODE="disabled")
    assert "this user's token is not the cluster's" in refusal(RAY_AUTH_TOKEN="0" * 32)


def joins() -> None:
    """Under `ray symmetric-run`, whose cluster asks for a token."""
    subprocess.run([sys.executable, "-m", "tests.engine.inside_cluster", "refusals"], check=True)
    for environ in ({"RAY_ADDRESS": ADDRESS}, {}):
        assert "RAY_ADDRESS" not in os.environ
        os.environ.update(environ)
        assert connect() is False
        assert ray.get_runtime_context().gcs_address == ADDRESS, "the cluster above it, and no second one"
        assert len(ray.nodes()) == 1
        ray.shutdown()
        os.environ.pop("RAY_ADDRESS", None)


def blind() -> None:
    """A second node does not see the folder of the dataset: nothing is computed."""
    dataset = os.environ["DATASET"]
    hidden = f"mount -t tmpfs none {dataset} && exec ray start --address={ADDRESS} --num-cpus=1 --block"
    subprocess.Popen(["unshare", "--mount", "bash", "-c", hidden], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runner = RayRunner(None, 0)
    while len([node for node in ray.nodes() if node["Alive"]]) < 2:
        time.sleep(0.2)
    counts = Counter[str]()
    try:
        counts = run(0, 4, runner)
    except ValueError as error:
        assert "this node does not see the dataset" in str(error) and "No such file" in str(error), error
    assert not counts, "found before work begins"
    assert not [*Path(dataset).iterdir()], "the probe is gone"


def scales() -> None:
    """A cluster whose nodes, with GPUs and without, start from zero."""
    counts = run(None, 6)
    assert 1 <= counts.pop("gpu_workers") <= 2
    assert counts == {"rows": 6, "on a GPU": 6}, counts
    until = time.monotonic() + 10
    while gpus_in_use():
        assert time.monotonic() < until, "they are let go with the last part"
        time.sleep(0.1)
    try:
        run(2, 1)
    except ValueError as error:
        assert "gpus_per_worker=2: the largest node of the cluster has 1 GPUs" in str(error), error
    else:
        raise AssertionError("no kind of node has two GPUs")
    counts = run(0, 6)
    assert counts == {"rows": 6, "on a GPU": 0}, counts


if __name__ == "__main__":
    for name in sys.argv[1:]:
        globals()[name]()
        print(name, "is right")
