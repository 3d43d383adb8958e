"""Real clusters of `ray start`, in a namespace of their own: its commands end every Ray of a machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAMESPACE = [
    "unshare",
    "--fork",
    "--pid",
    "--mount-proc",
    "--net",
    "bash",
    "-c",
    'ip link set lo up && "$@"; exit $?',
    "-",
]
INSIDE = [sys.executable, "-m", "tests.engine.inside_cluster"]
SMALL = ["--object-store-memory=80000000", "--include-dashboard=false"]
HEAD = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
NODES = {
    "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
    "cpu": {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 1},
    "gpu": {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
}

PROVIDER = Path(ray.__file__).parent / "autoscaler" / "_private" / "fake_multi_node"


def inside(folder: Path, *command: str, **environ: str) -> str:
    """Run a command in the namespace with a token and an empty folder for a dataset; return what it prints."""
    try:
        subprocess.run([*NAMESPACE, "true"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespace may be made here: {getattr(error, 'stderr', error)}")
    (folder / "dataset").mkdir()
    (folder / ".ray").mkdir()
    (folder / ".ray" / "auth_token").write_text("0123456789abcdef" * 2)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    given = {
        "HOME": str(folder),
        "DATASET": str(folder / "dataset"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_START_HOOK": "tests.engine.inside_cluster.start_less",
        "RAY_prestart_worker_first_driver": "0",
        "PYTHONPATH": str(ROOT),
    }
    ran = subprocess.run(
        [*NAMESPACE, *command], cwd=ROOT, env=kept | given | environ, capture_output=True, text=True, timeout=200
    )
    assert ran.returncode == 0, ran.stdout[-9000:] + ran.stderr[-9000:]
    return ran.stdout


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of a short name, since Ray's sockets are in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        yield Path(made)


def test_a_run_joins_the_cluster_of_its_job_and_shows_its_token(folder: Path) -> None:
    options = ["--address", "127.0.0.1:6379", "--num-cpus=1", *SMALL]
    said = inside(folder, "ray", "symmetric-run", *options, "--", *INSIDE, "joins", "blind")
    assert "joins is right" in said and "blind is right" in said


def test_nodes_with_gpus_start_from_zero_and_are_let_go(folder: Path) -> None:
    config = fake_autoscaler(folder)
    start = f"ray start --head --num-cpus=0 --autoscaling-config={config} {' '.join(SMALL)}"
    mounted = f"mount --bind {folder / 'fake'} {PROVIDER} && {start} && exec {' '.join(INSIDE)} scales"
    names = {"RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD, "RAY_FAKE_CLUSTER": "1"}
    options = {"RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_ADDRESS": "auto"}
    assert "scales is right" in inside(folder, "bash", "-c", mounted, **names, **options)


def fake_autoscaler(folder: Path) -> Path:
    """Ray's provider of nodes for tests; its package lacks the file of defaults, which is mounted over it."""
    config = {
        "cluster_name": "fake",
        "provider": {"type": "fake_multinode", "launch_multiple": True, "head_node_id": HEAD},
        "available_node_types": NODES,
        "head_node_type": "ray.head.default",
        "max_workers": 8,
        "idle_timeout_minutes": 5,
        "upscaling_speed": 100,
        "file_mounts_sync_continuously": False,
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        **{f"{name}_commands": [] for name in ("setup", "initialization", "head_setup", "worker_setup")},
        **{f"{name}_start_ray_commands": [] for name in ("head", "worker")},
    }
    shutil.copytree(PROVIDER, folder / "fake")
    for path in (folder / "fake" / "example.yaml", folder / "autoscaler.yaml"):
        path.write_text(yaml.safe_dump(config))
    return folder / "autoscaler.yaml"
