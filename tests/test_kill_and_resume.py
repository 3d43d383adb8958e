"""kill -9 a build wherever it is, run it again: the result is byte for byte what an undisturbed run writes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.building import write_pictures
from tests.trees import content, count_published, kill_when, sigma

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two buckets, a copy, a file that is cut, an empty one, and one that is too small for the recipe."""
    folder = tmp_path_factory.mktemp("photos")
    names = write_pictures(folder, [(240, 180)] * 12 + [(180, 240)] * 6 + [(90, 60)])
    data = (folder / names[0]).read_bytes()
    for name, told in {"copy.jpg": data, "cut.jpg": data[: len(data) // 2], "empty.jpg": b""}.items():
        (folder / name).write_bytes(told)
    return folder


def arguments(photos: Path, out: Path, runner: str) -> list[str | Path]:
    recipe = ROOT / "recipes" / "demo.yaml"
    return ["build", recipe, f"images={photos}", f"out={out}", f"run.runner={runner}", "part_rows=6"]


@pytest.fixture(scope="module")
def undisturbed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by a fresh interpreter: its `hash` has another seed than that of the processes which are killed."""
    out = tmp_path_factory.mktemp("undisturbed") / "dataset"
    command = [sys.executable, "-m", "sigma", *map(str, arguments(photos, out, "local"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_killed_at_many_points_the_result_is_the_same(photos: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    whole = count_published(undisturbed)
    points = sorted(random.Random(7).sample(range(1, whole), 8))
    kills = [kill_when(out, point, arguments(photos, out, "local")) for point in points]
    assert sum(kills) >= 6, "the build must really have been interrupted"
    done = sigma(*arguments(photos, out, "local"))
    assert done.returncode == 0, done.stderr
    assert content(out) == content(undisturbed)


def test_killed_on_ray_then_finished_the_result_is_the_same(
    photos: Path, undisturbed: Path, tmp_path: Path, on_ray: None
) -> None:
    out = tmp_path / "dataset"
    words = [*arguments(photos, out, "ray"), "run.workers=2"]
    assert kill_when(out, count_published(undisturbed) // 2, words, env=os.environ | {"RAY_ADDRESS": "local"})
    done = sigma(*words)
    assert done.returncode == 0, done.stderr
    assert content(out) == content(undisturbed)


@pytest.mark.quick
def test_a_finished_part_is_not_written_again(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    assert kill_when(out, 20, arguments(photos, out, "local"))
    before = {path: path.stat().st_ino for path in (out / "tables").rglob("part-*.parquet")}
    assert before
    assert sigma(*arguments(photos, out, "local")).returncode == 0
    assert {path: path.stat().st_ino for path in before} == before
