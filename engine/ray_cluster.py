"""Knows a Ray cluster: joins it, counts what its nodes have room for, and asks them and the autoscaler."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray._common.utils import get_default_system_temp_dir
from ray._raylet import Config, GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.place import mirror as mirror  # a worker reads from stores too
from engine.ray_address import CONNECT_TIMEOUT_S, cluster_address, has_token, knock
from engine.runner import PartJob
from schemas.files import is_full, open_file

NODE_ANSWERS_S = 60.0
"""The longest that a node, or the autoscaler, may take to answer, in seconds."""
LOOK_S = 0.3

OBJECT_STORE_BYTES = 80_000_000
"""Object store of a cluster started here: no image data passes through it."""


def connect() -> bool:
    """Join the cluster of `cluster_address`, or start one on this machine. Returns whether it was started here, for
    this process alone. Raises ValueError: the cluster does not answer or refuses this user, or the nodes of a Slurm job
    would be idle; or Ray does not start here."""
    address = cluster_address() or "local"
    if place := knock(address):
        _authenticate(address, place)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray 2.60 announces a change of a GPU default on every start; it does not concern parts.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, **options)  # None would join a cluster that somebody else runs here
    except SystemExit:
        raise KeyboardInterrupt from None  # Ray's answer to SIGTERM
    except (RuntimeError, OSError, ValueError) as error:
        if address != "local":
            raise
        raise ValueError(_why_none(error)) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    return address == "local"


def _why_none(error: Exception) -> str:
    """Why Ray does not start on this machine. Of a full disk it says only that it waited for a file."""
    folder = Path(get_default_system_temp_dir())
    why = "its disk is full" if folder.exists() and is_full(folder, error) else " ".join(str(error).split())
    return (
        f"Ray cannot start on this machine: it keeps its files in {folder}, and {why}; set RAY_TMPDIR to a folder with "
        "a short name and some room, or the runner to local, which needs no Ray"
    )


def _authenticate(address: str, place: str) -> None:
    """Show this user's token to a cluster that asks for one. Ray itself does so only where it has found the cluster on
    this node; else it tries for 20 seconds, and then does not say that the token is what is wrong."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    while mode != "token" or has_token():  # Ray aborts the process where it is to show a token that is not there
        try:
            return GcsClient(address=place).check_alive([], timeout=CONNECT_TIMEOUT_S)
        except ray.exceptions.RayError as error:
            if "AuthToken" not in str(error):
                return None  # `ray.init` knows more
        if mode or not has_token():
            break
        os.environ["RAY_AUTH_MODE"] = mode = "token"  # a cluster without tokens would lose its actors by it
        Config.initialize("")
    why = "is not the cluster's" if mode == "token" else f"is not shown, because RAY_AUTH_MODE is {mode}"
    raise ValueError(
        f"RAY_ADDRESS={address}: authentication failed, this user's token {why if has_token() else 'is missing'}; set "
        "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what `ray get-auth-token` prints on the cluster's head node"
    )


@dataclass(frozen=True)
class GpuSlots:
    """What a job gets of the cluster's GPUs."""

    num_gpus: float
    """of each worker"""
    count: int
    """workers that have room at once; 0 where they hold none"""


def gpu_slots(
    job: PartJob, gpus_of_nodes: Sequence[float], could_start: Callable[[float], bool] | None = None
) -> GpuSlots:
    """Share the GPUs out. `could_start`: asks the autoscaler, where there is one, for a node with room for a worker.
    Raises ValueError: no node has as many as a worker needs, and it would wait for ever."""
    num_gpus = 1 if job.num_gpus is None else job.num_gpus
    if not num_gpus:
        return GpuSlots(0, 0)
    count = slots_of(num_gpus, gpus_of_nodes)
    if count or (could_start is not None and could_start(num_gpus)):
        return GpuSlots(num_gpus, count)
    if job.num_gpus is None:
        return GpuSlots(0, 0)
    raise ValueError(
        f"{job.job}: gpus_per_worker={num_gpus:g}: the largest node of the cluster has "
        f"{max(gpus_of_nodes, default=0):g} GPUs; set it to 0 to compute on the CPU, or add a node that has them"
    )


def slots_of(num_gpus: float, gpus_of_nodes: Sequence[float]) -> int:
    """Workers that have room at once. One runs on one node, so a node's remainder is of no use to it."""
    return sum(int(gpus / num_gpus + 1e-6) for gpus in gpus_of_nodes)


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def gpus_of_nodes() -> list[float]:
    return [node["Resources"].get("GPU", 0) for node in _nodes()]


def autoscaler() -> GetClusterStatusReply | None:
    """Return the state of the cluster and of its autoscaler; None where none of version 2 runs. Version 1 does not
    say what it has no nodes for."""
    reply = GetClusterStatusReply()
    client = GcsClient(ray.get_runtime_context().gcs_address)
    reply.ParseFromString(client.get_cluster_status(timeout_s=CONNECT_TIMEOUT_S))
    return reply if reply.autoscaling_state.autoscaler_state_version else None


def could_start(num_gpus: float) -> bool:
    """Ask the autoscaler for a worker with GPUs, and return whether it has nodes to start for it. Raises ValueError: it
    does not answer."""
    wanted = {"CPU": 1.0, "GPU": float(num_gpus)}
    asked = ray.remote(why_blind).options(num_cpus=1, num_gpus=num_gpus).remote(".")
    known: int | None = None
    until = time.monotonic() + NODE_ANSWERS_S
    try:
        while (state := autoscaler()) is not None and time.monotonic() < until:
            demands = state.cluster_resource_state.pending_resource_requests
            pending = sum(demand.count for demand in demands if dict(demand.request.resources_bundle) == wanted)
            if slots_of(num_gpus, gpus_of_nodes()):
                return True
            if known is None and pending:
                known = state.cluster_resource_state.cluster_resource_state_version
            if known is not None and state.autoscaling_state.last_seen_cluster_resource_state_version >= known:
                refused = state.autoscaling_state.infeasible_resource_requests
                return sum(dict(request.resources_bundle) == wanted for request in refused) < pending
            time.sleep(LOOK_S)
    finally:
        ray.cancel(asked)
    raise ValueError(f"the cluster's autoscaler has not answered for {NODE_ANSWERS_S:.0f} s; see `ray status`")


def see_all(probe: Path) -> None:
    """See that each node can use the folder of a probe file, before it is handed work. Raises ValueError: one cannot;
    the message names it."""
    here = ray.get_runtime_context().get_node_id()
    looks: Any = ray.remote(why_blind)
    asked = {
        looks.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(str(probe)): node["NodeManagerHostname"]
        for node in _nodes()
        if node["Resources"].get("CPU") and node["NodeID"] != here
    }
    ready, _ = ray.wait([*asked], num_returns=max(1, len(asked)), timeout=NODE_ANSWERS_S) if asked else ([], [])
    blind = []
    for ref in ready:
        try:
            blind.append(ray.get(ref))
        except ray.exceptions.RayTaskError as error:
            blind.append(f"{asked[ref]} ({error.cause or error})")  # without Sigma's packages, for instance
        except ray.exceptions.RayError:
            continue  # it has left
    if blind := sorted(filter(None, blind)):
        raise blind_nodes(str(probe.parent), blind)


def blind_nodes(root: str, names: Sequence[str]) -> ValueError:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ValueError(
        f"{root}: {'these nodes do' if len(names) > 1 else 'this node does'} not see the dataset: "
        f"{', '.join(names[:3])}{more}; mount its folder there under the same path, or take the node out of the cluster"
    )


def why_blind(probe: str) -> str:
    """Return why the node that runs this cannot use the folder of a probe file, after its name; empty: it can."""
    try:
        open_file(Path(probe)).close()
    except OSError as error:
        return f"{socket.gethostname()} ({error.strerror})"
    except ValueError as error:
        return f"{socket.gethostname()} ({error})"
    return ""
