"""`sigma plan` as its user meets it: what it prints, how it refuses, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.building import write_pictures
from tests.trees import sigma, start_sigma

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "folder.yaml"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_pictures(folder, [(96, 64)] * 24 + [(30, 30)] * 12)
    return folder


def plan(photos: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    knobs = ("select.subsets={}", "run.runner=local", "run.threads=1")
    return sigma("plan", RECIPE, f"images={photos}", f"out={out}", "select.min_short_side_px=50", *knobs, *more)


def test_json_is_alone_on_stdout_and_markdown_has_the_same_numbers(photos: Path, tmp_path: Path) -> None:
    done = plan(photos, tmp_path / "out", "--sample", "100", "--workers", "4", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["survivors"] == {"value": 24, "low": 24, "high": 24}
    assert {name: wall.keys() for name, wall in ((job["table"], job["wall_s"]) for job in found["jobs"])}["images"] == {
        "1",
        "4",
    }
    assert not (tmp_path / "out").exists()
    told = plan(photos, tmp_path / "out", "--sample", "100", "--format", "markdown")
    assert "| kept |  | 24 | 24 |  |" in told.stdout
    assert "| rejected | too_small | 12 | 12 |  |" in told.stdout


def test_nothing_survives_is_said_with_the_reasons(photos: Path, tmp_path: Path) -> None:
    done = plan(photos, tmp_path / "out", "--sample", "9", "select.min_short_side_px=5000")
    assert done.returncode == 1
    assert "too_small" in done.stdout
    assert "nothing survives: none of 9 sampled inputs passes every rule" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--sample", "0"), "--sample 0: look at one input at least"),
        (("select.min_short_sid_px=3",), "did you mean 'min_short_side_px'"),
        (("images=/nowhere/at/all",), "/nowhere/at/all"),
    ],
)
def test_refusals_are_one_line(photos: Path, tmp_path: Path, more: tuple[str, ...], why: str) -> None:
    done = plan(photos, tmp_path / "out", *more)
    assert done.returncode == 1, done.stdout
    said = " ".join(done.stderr.split())
    assert said.startswith("error: ")
    assert why in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_leaves_nothing_behind(photos: Path, tmp_path: Path, stop: signal.Signals) -> None:
    (tmp_path / "tmp").mkdir()
    knobs = ["select.min_short_side_px=1", "select.subsets={}", "run.runner=local"]
    files = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    plan_it = ("plan", RECIPE, f"images={photos}", f"out={tmp_path / 'out'}", *knobs)
    running = start_sigma(*plan_it, cwd=ROOT, env=environment, **files)
    until = time.monotonic() + 60
    while not list((tmp_path / "tmp").glob("sigma-plan-*/dataset/tables/images/part-*")) and time.monotonic() < until:
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    running.send_signal(stop)
    _, complaint = running.communicate(timeout=60)
    assert running.returncode == 128 + stop, complaint
    assert "nothing is left of the sample" in " ".join(complaint.split())
    assert list((tmp_path / "tmp").glob("sigma-plan-*")) == []
    assert not (tmp_path / "out").exists()


def test_on_ray_it_forecasts_the_same(photos: Path, tmp_path: Path, on_ray: None) -> None:
    (tmp_path / "tmp").mkdir()
    found = {}
    for runner in ("local", "ray"):
        knobs = ("--sample", "12", "--format", "json", "--keep", str(tmp_path / runner), "run.workers=2")
        done = plan(photos, tmp_path / "out", *knobs, f"run.runner={runner}")
        assert done.returncode == 0, done.stderr
        found[runner] = json.loads(done.stdout)
    local, ray = found["local"], found["ray"]
    for same in ("num_inputs", "num_sampled", "survivors", "outcomes", "disk", "buckets"):
        assert ray[same] == local[same], same
    assert [(job["job"], job["table"], job["basis"]) for job in ray["jobs"]] == [
        (job["job"], job["table"], job["basis"]) for job in local["jobs"]
    ]
    measured = next(job for job in ray["jobs"] if job["table"] == "images")
    assert measured["cpu_hours"] > 0 and list(measured["wall_s"]) == ["2"]
    assert not (tmp_path / "out").exists()
