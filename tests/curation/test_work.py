"""Shares of a job, computed by processes that know nothing of each other, are what one build makes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commands import order
from commands.front_door import app
from curation.work import Share, work
from engine.dataset import Dataset
from engine.job import State
from schemas.recipe import DataRecipe
from tests.building import build, recipe, write_pictures
from tests.trees import content

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "photos"
    write_pictures(folder, [(width, 64) for width in range(64, 64 + 7)])
    return folder


def begun_in(folder: Path, photos: Path) -> tuple[Dataset, DataRecipe]:
    made = recipe(photos, folder / "ds", part_rows=2)
    return build(made, upto="select")[0], made


@pytest.fixture
def begun(photos: Path, tmp_path: Path) -> tuple[Dataset, DataRecipe]:
    return begun_in(tmp_path, photos)


@pytest.fixture(scope="module")
def untouched(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same, which no test changes."""
    return begun_in(tmp_path_factory.mktemp("untouched"), photos)[0]


def sigma(*arguments: object) -> str:
    """Run a command in this process, and return what it printed."""
    shown = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return " ".join(shown.output.split())


def test_shares_in_any_order_and_at_once_give_what_a_build_gives(
    photos: Path, begun: tuple[Dataset, DataRecipe], tmp_path: Path
) -> None:
    dataset, made = begun
    steps, whole = order.pipeline(made), build(recipe(photos, tmp_path / "whole", part_rows=2))[0]
    found: list[int] = []
    at_once = [
        threading.Thread(target=lambda place=place: found.append(work(dataset, steps, "caption", Share(place, 3))))
        for place in (2, 0)
    ]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()
    assert len(found) == 2
    step = next(step for step in steps if step.job == "caption")
    assert step.state(dataset.held()) is State.BEGUN
    missing = step.missing(dataset.held())
    assert missing and all(number % 3 == 1 for number in missing)
    assert work(dataset, steps, "caption", Share(1, 3)) == len(missing)
    assert work(dataset, steps, "caption", Share(1, 3)) == 0, "a share that is done is not computed again"
    with pytest.raises(ValueError, match="caption is not done; run sigma build with --until caption"):
        work(dataset, steps, "mix", Share(0, 1))  # its failures are not counted yet
    build(made, upto="caption")
    for place in range(2):
        work(dataset, steps, "mix", Share(place, 2))
    build(made)
    assert content(dataset.root) == content(whole.root)


def test_processes_share_the_lock_and_keep_a_build_out(begun: tuple[Dataset, DataRecipe], photos: Path) -> None:
    dataset, _ = begun
    with dataset.lock(shared=True):
        assert f"{len(dataset.held().paths('listing'))} parts of caption computed" in sigma(
            "work", dataset.root, "caption", "--share", "0/1"
        )
        assert "is writing this dataset" in sigma("build", dataset.recipe)
    with dataset.lock():
        assert "is writing this dataset" in sigma("work", dataset.root, "caption", "--share", "0/1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mix", "--share", "0/2"], "caption is not done; run sigma build with --until caption first"),
        (["select", "--share", "0/2"], "select is not computed part by part; run sigma build"),
        (["ground", "--share", "0/2"], "the recipe has no such job; it has ingest, fingerprint"),
        (["caption", "--share", "2/2"], "--share 2/2: give I/N, from 0/N to N-1/N, such as 3/64"),
        (["caption", "--share", "-1/2"], "--share -1/2: give I/N"),
        (["caption", "--share", "half"], "--share half: give I/N"),
    ],
)
def test_what_is_no_share_of_a_job_is_refused(untouched: Dataset, arguments: list[str], said: str) -> None:
    before = content(untouched.root)
    assert said in sigma("work", untouched.root, *arguments)
    assert content(untouched.root) == before


def test_a_build_runs_until_a_job_or_one_job_only(photos: Path, tmp_path: Path) -> None:
    made = recipe(photos, tmp_path / "ds")
    dataset = Dataset(tmp_path / "ds")
    path = tmp_path / "recipe.yaml"
    path.write_text(made.to_yaml())
    sigma("build", path, "--until", "aesthetic")
    assert dataset.parts("scores") and not dataset.parts("duplicates")
    assert "--only caption: dedup is not done; run sigma build with --until dedup first" in sigma(
        "build", path, "--only", "caption"
    )
    sigma("build", path, "--until", "select")
    sigma("build", path, "--only", "caption")
    assert dataset.held().is_whole("captions") and not dataset.parts("mix")
    assert "--redo select: is not run with --only caption" in sigma(
        "build", path, "--only", "caption", "--redo", "select"
    )
    assert "--until select --only caption: give one of them" in sigma(
        "build", path, "--until", "select", "--only", "caption"
    )
    for option in ("--until", "--only"):
        assert "packing: no such job; there are ingest" in sigma("build", path, option, "packing")
    sigma("build", path)
    sigma("build", path, f"out={tmp_path / 'whole'}")
    assert content(dataset.root) == content(tmp_path / "whole")
