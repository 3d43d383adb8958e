"""A Ray cluster of one node, for all tests that run on Ray and leave it as it is: to start one takes longer than most
of them. Its workers start when they are asked for, and are forked."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

from schemas.commit import write_bytes
from tests.processes import Python, ray_worker_path

LEAN: dict[str, Any] = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
"""Options of a head without the processes that serve nobody here."""
ON_DEMAND = {"prestart_worker_first_driver": False}
NUM_CPUS = 4
"""Room for the workers of two tests at once."""


def small(worker_path: str = "") -> dict[str, Any]:
    """Options of a node with little memory, whose workers are forked."""
    return {"object_store_memory": 80_000_000, "worker_path": worker_path or ray_worker_path()}


def start(folder: Path) -> None:
    """Start the cluster in a process that ends with the fork server; its address is in the file `address`."""
    folder.mkdir()
    process = Python("-m", "tests.ray_head", folder / "address", ray_worker_path())
    while not (folder / "address").exists():
        assert process.poll() is None, "the head has ended"
        time.sleep(0.05)
    process.returncode = 0  # nobody waits for it


if __name__ == "__main__":
    from ray.cluster_utils import Cluster

    options = {"num_cpus": NUM_CPUS, "_system_config": ON_DEMAND, **LEAN, **small(sys.argv[2])}
    write_bytes(Path(sys.argv[1]), Cluster(True, head_node_args=options).address.encode())
    signal.pause()
