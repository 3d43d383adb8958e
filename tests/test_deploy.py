"""The files of `deploy/`, by the parsers of the tools that read them where Python has one, else line by line."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from curation.work import Share
from tests.test_house import PACKAGES, ROOT
from tests.test_words import commands

DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def ray_job() -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((DEPLOY / "kuberay" / "rayjob.yaml").read_text(encoding="utf-8"))
    return made


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, with continued lines joined and comments away."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines.splitlines() if line.strip()]


def test_rays_own_parser_sees_two_groups_of_nodes_that_start_from_zero(ray_job: dict[str, Any]) -> None:
    cluster = {"metadata": ray_job["metadata"], "spec": ray_job["spec"]["rayClusterSpec"]}
    types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    found = {name: (kind["resources"], kind["min_workers"], kind["max_workers"] > 0) for name, kind in types.items()}
    for resources, *_ in found.values():
        del resources["memory"]
    assert found == {
        "headgroup": ({"CPU": 0}, 0, False),
        "cpu": ({"CPU": 16}, 0, True),
        "gpu": ({"CPU": 1, "GPU": 1}, 0, True),
    }


def test_the_cluster_scales_ends_with_the_job_and_shares_the_data(ray_job: dict[str, Any]) -> None:
    job = ray_job["spec"]
    cluster = job["rayClusterSpec"]
    assert (ray_job["apiVersion"], ray_job["kind"], job["shutdownAfterJobFinishes"]) == ("ray.io/v1", "RayJob", True)
    assert cluster["enableInTreeAutoscaling"] and cluster["autoscalerOptions"]["version"] == "v2"
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ray=={cluster['rayVersion']}" in pins
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    assert all(pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "sigma-data" for pod in pods)
    assert {mount["mountPath"] for pod in pods for mount in pod["containers"][0]["volumeMounts"]} == {"/data"}
    program, command, recipe = shlex.split(job["entrypoint"])
    assert program == "sigma" and command in commands() and recipe.startswith("/data/")


def test_the_images_of_the_job_are_the_stages_of_the_dockerfile(ray_job: dict[str, Any]) -> None:
    stages = [words.split(" AS ")[1] for name, words in instructions() if name == "FROM"]
    assert stages == ["base", "cpu", "cuda"]
    images = set(re.findall(r"image: (\S+)", (DEPLOY / "kuberay" / "rayjob.yaml").read_text(encoding="utf-8")))
    tags = re.findall(r"--target (\w+) --tag (\S+)", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    assert dict(tags) == {image.rpartition(":")[2]: image for image in images}


def test_the_dockerfile_copies_every_package_and_what_they_need() -> None:
    known = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "CMD", "ARG"}
    assert {name for name, _ in instructions()} <= known
    copied = {word for name, words in instructions() if name == "COPY" for word in words.split()[:-1]}
    assert all((ROOT / word).exists() for word in copied)
    assert {*PACKAGES, "recipes", "sigma.py", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= copied
    for name, words in instructions():
        if name == "RUN":
            subprocess.run(["bash", "-n", "-c", words], check=True)


def test_the_slurm_script_is_one_ray_on_all_nodes(tmp_path: Path) -> None:
    """The script itself, where the programs of Slurm and Ray say how they were called."""
    script = DEPLOY / "slurm" / "build.sbatch"
    options = re.findall(r"^#SBATCH (--[a-z-]+)", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert {"--nodes", "--ntasks-per-node", "--exclusive", "--requeue"} <= set(options)
    said = {"scontrol": "echo n1; echo n2", "srun": 'echo "$RAY_ADDRESS" "$@"', "ray": "echo 0123"}
    for name, does in said.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{does.replace('$RAY_ADDRESS', '${RAY_ADDRESS-unset}')}\n")
        (tmp_path / name).chmod(0o755)
    environ = {
        "PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path), "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2", "RAY_ADDRESS": "another:6379",
    }  # fmt: skip
    ran = subprocess.run(
        ["bash", script, "sigma", "build", "a recipe.yaml"], env=environ, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == shlex.split(
        "unset --nodes=2 --ntasks-per-node=1 --kill-on-bad-exit=1 "
        "ray symmetric-run --address n1:6379 --min-nodes 2 -- sigma build a recipe.yaml"
    )


def test_the_tasks_of_an_array_take_one_share_each(tmp_path: Path) -> None:
    script = DEPLOY / "slurm" / "array.sbatch"
    (found,) = re.findall(r"^#SBATCH --array=0-(\d+)$", script.read_text(encoding="utf-8"), re.MULTILINE)
    (tmp_path / "sigma").write_text('#!/bin/bash\nprintf "%s|" "$@"\n')
    (tmp_path / "sigma").chmod(0o755)
    shares = set()
    for task in range(int(found) + 1):
        environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_ARRAY_TASK_COUNT": f"{int(found) + 1}"}
        ran = subprocess.run(
            ["bash", script, "/shared/a dataset", "caption"],
            env=environ | {"SLURM_ARRAY_TASK_ID": str(task)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        work, dataset, job, option, share, _ = ran.stdout.split("|")
        assert (work, dataset, job, option) == ("work", "/shared/a dataset", "caption", "--share")
        assert work in commands()
        shares.add(Share.parse(share))
    assert shares == {Share(place, int(found) + 1) for place in range(int(found) + 1)}
