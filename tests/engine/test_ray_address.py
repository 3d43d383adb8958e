"""Which cluster a run belongs to, read from made-up process tables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray

from engine import ray_address
from engine.ray_address import cluster_address, has_token
from engine.ray_cluster import connect

SHELL = ["bash", "job.sh"]
SYMMETRIC = ["/venv/bin/python", "/venv/bin/ray", "symmetric-run", "--address", "n1:6379", "--", "sigma", "build"]


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of processes with none in it."""
    monkeypatch.setattr(ray_address, "PROC", tmp_path / "proc")
    return tmp_path / "proc"


def add(processes: Path, number: int, words: list[str], parent: int = 1, **environ: str) -> None:
    folder = processes / str(number)
    folder.mkdir(parents=True)
    (folder / "cmdline").write_text("".join(f"{word}\0" for word in words))
    (folder / "stat").write_text(f"{number} (a name) with) S {parent} {number} 0")
    (folder / "environ").write_text("".join(f"{name}={value}\0" for name, value in environ.items()))


def slurm(folder: Path, nodes: int, **more: str) -> dict[str, str]:
    return {"SLURM_JOB_ID": "42", "SLURM_JOB_NUM_NODES": str(nodes), "RAY_TMPDIR": str(folder), **more}


def start(folder: Path, address: str) -> None:
    """As `ray start` notes it."""
    (folder / "ray").mkdir()
    (folder / "ray" / "ray_current_cluster").write_text(address)


def test_ray_address_decides_where_it_is_set(processes: Path, tmp_path: Path) -> None:
    add(processes, os.getppid(), SYMMETRIC)
    assert cluster_address({"RAY_ADDRESS": "head:6379"}) == "head:6379"
    assert cluster_address(slurm(tmp_path, 4, RAY_ADDRESS="local")) == "local"


def test_an_empty_ray_address_is_none(processes: Path) -> None:
    assert cluster_address({"RAY_ADDRESS": ""}) is None


def test_a_run_under_symmetric_run_joins_its_cluster(processes: Path) -> None:
    add(processes, os.getppid(), SHELL, parent=77)
    add(processes, 77, SYMMETRIC)
    assert cluster_address({}) == "auto"


def test_a_word_that_only_holds_its_name_is_no_symmetric_run(processes: Path) -> None:
    add(processes, os.getppid(), ["vim", "notes-on-symmetric-run.txt"])
    assert cluster_address({}) is None


def test_a_run_joins_the_cluster_that_its_slurm_job_has_started(processes: Path, tmp_path: Path) -> None:
    start(tmp_path, "10.0.0.1:6379")
    add(processes, 300, ["raylet", "--gcs-address=10.0.0.1:6379"], SLURM_JOB_ID="42")
    assert cluster_address(slurm(tmp_path, 4)) == "10.0.0.1:6379"
    assert cluster_address(slurm(tmp_path, 1)) == "10.0.0.1:6379"
    assert cluster_address({"RAY_TMPDIR": str(tmp_path)}) is None, "outside a job it may be anybody's"


@pytest.mark.parametrize("job", ["41", "421"])
def test_a_cluster_of_another_job_is_not_joined(processes: Path, tmp_path: Path, job: str) -> None:
    start(tmp_path, "10.0.0.1:6379")
    add(processes, 300, ["raylet", "--gcs-address=10.0.0.1:6379"], SLURM_JOB_ID=job)
    assert cluster_address(slurm(tmp_path, 1)) is None


def test_a_cluster_that_a_run_has_for_itself_alone_is_not_joined(processes: Path, tmp_path: Path) -> None:
    add(processes, 300, ["raylet", "--gcs-address=10.0.0.1:50001"], SLURM_JOB_ID="42")
    assert cluster_address(slurm(tmp_path, 1)) is None


def test_a_slurm_job_of_several_nodes_without_a_cluster_is_refused(processes: Path, tmp_path: Path) -> None:
    start(tmp_path, "10.0.0.1:6379")  # it has ended: no process is left of it
    with pytest.raises(ValueError, match=r"this Slurm job has 4 nodes.*symmetric-run.*RAY_ADDRESS=local"):
        cluster_address(slurm(tmp_path, 4))


def test_a_token_may_lie_in_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert not has_token({})
    assert has_token({"RAY_AUTH_TOKEN": "0123"})
    (tmp_path / "token").write_text("0123")
    assert has_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")})
    assert not has_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "nothing")})
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0123")
    assert has_token({})


def test_a_ray_that_cannot_start_here_says_where_it_wants_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 120)))
    with pytest.raises(ValueError, match=f"keeps its files in {tmp_path}/x+, and .*107 bytes.*set RAY_TMPDIR to"):
        connect()
    assert not ray.is_initialized()
