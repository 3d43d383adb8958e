"""Finds the Ray cluster that a run belongs to, from the environment and the processes of this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

PROC = Path("/proc")
CONNECT_TIMEOUT_S = 10.0


def cluster_address(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the address of the cluster to join; None starts one on this machine. RAY_ADDRESS decides where it is set.
    Without it a run belongs to the cluster of the `ray symmetric-run` above it, or to the one that its Slurm job has
    started on this node. Any other cluster here may be somebody else's. Raises ValueError: the Slurm job has several
    nodes and no cluster, and all of them but one would be idle."""
    if address := environ.get("RAY_ADDRESS"):
        return address
    if any("symmetric-run" in words for words in _commands_above()):
        return "auto"
    job = environ.get("SLURM_JOB_ID")
    if job and (started := _started_by(job, environ)):
        return started
    nodes = environ.get("SLURM_JOB_NUM_NODES", "1")
    if job and nodes.isdigit() and int(nodes) > 1:
        raise ValueError(
            f"this Slurm job has {nodes} nodes, RAY_ADDRESS is not set and no Ray cluster of the job runs here, so all "
            "nodes but this one would be idle: start the command by `ray symmetric-run` as deploy/slurm/build.sbatch "
            "does, or set RAY_ADDRESS=local to use this node alone"
        )
    return None


def has_token(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this user has a token with which Ray's clusters authenticate who joins them."""
    if environ.get("RAY_AUTH_TOKEN"):
        return True
    path = Path(environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return path.is_file() and path.stat().st_size > 0


def knock(address: str) -> str | None:
    """See that somebody listens at an address; Ray itself tries for minutes before it says that nobody does. Returns
    host:port; None for `auto` and `local`, which are Ray's own words. Raises ValueError: nobody does."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return None
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ValueError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({error.strerror or error}); "
            "start it, or unset RAY_ADDRESS to use this machine alone"
        ) from None
    return f"{host}:{port}"


def _words(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []  # it has ended


def _commands_above() -> Iterator[list[str]]:
    """Yield the command line of each process above this one, the nearest first; none where there is no /proc."""
    number = os.getppid()
    while number > 0 and (words := _words(PROC / str(number))):
        yield words
        try:
            stat = (PROC / str(number) / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        number = int(stat.rpartition(")")[2].split()[1])


def _started_by(job: str, environ: Mapping[str, str]) -> str | None:
    """Return the cluster that `ray start` last started on this node, where its raylet belongs to a Slurm job. A cluster
    that some other run has started for itself alone leaves no such note, and is not joined."""
    folder = environ.get("RAY_TMPDIR") or environ.get("TMPDIR") or "/tmp"
    try:
        address = Path(folder, "ray", "ray_current_cluster").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    for process in PROC.glob("[0-9]*"):
        if f"--gcs-address={address}" in _words(process):
            try:
                variables = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue  # another user's, or it has ended
            if f"SLURM_JOB_ID={job}".encode() in variables:
                return address
    return None
