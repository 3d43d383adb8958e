"""Every command that changes a dataset is stopped before each of its changes of the disk, and then run again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from captioning.captioners.attributes import AttributesCaptioner
from captioning.captioners.make import CAPTIONERS
from commands import order
from commands.looking import write_report_page
from curation.upkeep.doctor import check_dataset
from curation.upkeep.find import Wanted
from curation.upkeep.purge import show_and_purge
from curation.upkeep.repair import repair
from engine import catalog
from engine.dataset import Dataset
from schemas.recipe import DataRecipe
from schemas.shard_index import read_index
from schemas.training import TrainingRecipe
from tests.building import LIGHT, Told, build, picture, recipe, rows, write_pictures
from tests.dying import Died, dying_at
from tests.training.encoding import encode
from tests.trees import content

pytestmark = pytest.mark.slow

STRIDE = int(os.environ.get("SIGMA_KILL_STRIDE", "41"))
"""A test stops before some of the changes; `SIGMA_KILL_STRIDE=1` stops before each, which takes five minutes."""


@pytest.fixture(scope="module", autouse=True)
def captioner_beside() -> Iterator[None]:
    with patch.dict(CAPTIONERS, {"endpoint": lambda section: AttributesCaptioner()}):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("whole")
    write_pictures(folder / "photos", [(96, 64)] * 3 + [(64, 96)])
    later = folder / "photos" / ".later.jpg"  # a link leads to it, which nothing can be read from yet
    later.with_name("004.jpg").symlink_to(later)
    beside = {"beside": ["endpoint"], "endpoint": {"url": "http://localhost/v1", "model": "none"}}
    dataset, _ = build(recipe(folder / "photos", folder / "dataset", shard={"max_samples": 2}, caption=beside))
    picture(9).save(later)
    values = {"dataset": str(dataset.root), "out": str(folder / "run"), "text": {"channels": 8, "max_tokens": 8}}
    encode(TrainingRecipe.from_mapping(values | {"stages": [{"name": "one", "resolution": 32, "steps": 1}]}))
    return dataset


def everything(dataset: Dataset) -> dict[str, str]:
    return content(dataset.root, ("tables", "shards", "features"))


def recipe_of(dataset: Dataset) -> DataRecipe:
    return DataRecipe.load(dataset.recipe, [f"out={dataset.root}"])


def mend(dataset: Dataset) -> None:
    made = recipe_of(dataset)
    list(repair(made, [step for step in order.pipeline(made) if step.job not in LIGHT], Told()))


def damage(dataset: Dataset) -> None:
    """A tar is gone, another is cut, so is a part, and a table has one bit flipped."""
    tars = sorted(dataset.shards.glob("*/*.tar"))
    tars[0].unlink()
    for path in (tars[1], dataset.part("scores", 0)):
        path.write_bytes(path.read_bytes()[:-600])
    selection = dataset.part("selection", 0)
    data = bytearray(selection.read_bytes())
    data[-20] ^= 1
    selection.write_bytes(bytes(data))


def take_out(dataset: Dataset) -> None:
    made = recipe_of(dataset)
    steps = [step for step in order.pipeline(made) if step.job not in LIGHT]
    wanted = None
    if (dataset.root / "purged.jsonl").is_file() is False:
        wanted = Wanted(image_ids=(sorted(read_index(dataset.shards)["key"].to_pylist())[0],))
    list(show_and_purge(dataset, steps, wanted, "asked", [], False, made.run))


def redo(job: str) -> Callable[[Dataset], None]:
    return lambda dataset: (build(recipe_of(dataset), redo=[job]), None)[1]


def retry(dataset: Dataset) -> None:
    build(recipe_of(dataset), retry_failed=True)
    assert "unreadable" not in {row["reason"] for row in rows(dataset, "images")}


COMMANDS: dict[str, tuple[Callable[[Dataset], None], Callable[[Dataset], None]]] = {
    "doctor --repair": (damage, mend),
    "purge": (lambda dataset: None, take_out),
    "build --redo clean": (lambda dataset: None, redo("clean")),
    "build --redo shard": (lambda dataset: None, redo("shard")),
    "build --retry-failed": (lambda dataset: None, retry),
    "report": (lambda dataset: None, lambda dataset: (write_report_page(dataset.root), None)[1]),
}


def trial(whole: Dataset, root: Path, command: str) -> Dataset:
    shutil.copytree(whole.root, root)
    dataset = Dataset(root)
    catalog.write_catalog(dataset)
    COMMANDS[command][0](dataset)
    return dataset


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_was_killed_is_finished_by_running_it_again(
    whole: Dataset, tmp_path: Path, command: str
) -> None:
    run = COMMANDS[command][1]
    undisturbed = trial(whole, tmp_path / "undisturbed", command)
    run(undisturbed)
    expected, change, died = everything(undisturbed), 1 + 7 * len(command) % STRIDE, True
    while died:
        dataset = trial(whole, tmp_path / str(change), command)
        died = False
        try:
            with dying_at(change):
                run(dataset)
        except Died:
            died = True
        run(dataset)
        assert everything(dataset) == expected, f"stopped before change {change}"
        assert [finding for finding in check_dataset(dataset.root) if not finding.fine] == []
        shutil.rmtree(dataset.root)
        change += STRIDE


def test_a_build_that_was_killed_before_its_catalog_was_there_writes_it(whole: Dataset, tmp_path: Path) -> None:
    dataset = trial(whole, tmp_path / "dataset", "build --retry-failed")
    with pytest.raises(Died), dying_at(0, only="-catalog.duckdb"):
        retry(dataset)
    retry(dataset)
    assert [finding for finding in check_dataset(dataset.root) if not finding.fine] == []
