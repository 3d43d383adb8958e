"""Which inputs a sample holds, and that it leaves everything else alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from curation.forecast.sample import sampled, shares
from curation.ingest.takedown_log import TakedownEntry, log_path, read_log, write_log
from engine.dataset import Dataset
from schemas.recipe import DataRecipe
from tests.building import build, recipe, rows, write_pictures
from tests.trees import content


def members(data: DataRecipe, size: int) -> list[str]:
    with sampled(data, size) as sample:
        return [row["member"] for row in rows(sample.dataset, "listing")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_pictures(folder, [(24, 16)] * 40)
    return folder


def test_the_same_recipe_and_seed_give_the_same_sample(photos: Path, tmp_path: Path) -> None:
    first = members(recipe(photos, tmp_path / "out"), 10)
    assert len(set(first)) == 10
    assert members(recipe(photos, tmp_path / "out", part_rows=7), 10) == first
    assert members(recipe(photos, tmp_path / "out", seed=1), 10) != first


def test_it_depends_on_names_and_not_on_order(photos: Path, tmp_path: Path) -> None:
    first = members(recipe(photos, tmp_path / "out"), 10)
    moved = tmp_path / photos.name
    shutil.copytree(photos, moved)
    for name in {path.name for path in moved.glob("*.jpg")} - set(first):
        (moved / name).unlink()
        break
    assert members(recipe(moved, tmp_path / "out"), 10) == first


def test_sources_are_drawn_from_in_proportion(photos: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "few", [(24, 16)] * 10)
    data = recipe(None, tmp_path / "out", sources=[{"path": str(photos)}, {"path": str(tmp_path / "few")}])
    with sampled(data, 20) as sample:
        assert sample.by_source == {photos.name: (40, 16), "few": (10, 4)}
        assert [row["row_id"] for row in rows(sample.dataset, "listing")] == list(range(20))
        assert (sample.num_inputs, sample.num_sampled) == (50, 20)


def test_shares_add_up() -> None:
    assert shares([40, 10], 20) == [16, 4]
    assert shares([1, 1, 1], 2) == [1, 1, 0]
    assert shares([3, 0, 5], 100) == [3, 0, 5]


@pytest.mark.slow
def test_a_listing_that_is_there_is_used_and_nothing_changes(photos: Path, tmp_path: Path) -> None:
    data = recipe(photos, tmp_path / "out")
    fresh = members(data, 10)
    built, _ = build(data, "ingest")
    before = content(built.root)
    with sampled(data, 10) as sample:
        assert sample.listing_s == 0
        assert [row["member"] for row in rows(sample.dataset, "listing")] == fresh
    assert content(built.root) == before


def test_out_is_not_even_made(photos: Path, tmp_path: Path) -> None:
    with sampled(recipe(photos, tmp_path / "out"), 10) as sample:
        folder = sample.dataset.root
        assert folder.is_dir()
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_kept_sample_is_a_dataset_that_stays(photos: Path, tmp_path: Path) -> None:
    with sampled(recipe(photos, tmp_path / "out"), 5, tmp_path / "kept"):
        pass
    assert len(rows(Dataset(tmp_path / "kept"), "listing")) == 5
    with (
        pytest.raises(ValueError, match="there is something already"),
        sampled(recipe(photos, tmp_path / "out"), 5, tmp_path / "kept"),
    ):
        pass
    with (
        pytest.raises(ValueError, match="which a forecast leaves alone"),
        sampled(recipe(photos, tmp_path / "out"), 5, tmp_path / "out" / "kept"),
    ):
        pass
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_was_taken_out_is_not_let_in(photos: Path, tmp_path: Path) -> None:
    data = recipe(photos, tmp_path / "out")
    built, _ = build(data, "ingest")
    listed = rows(built, "listing")
    write_log(
        built, [TakedownEntry("url=a", "asked", "then", row_id=row["row_id"], finished=True) for row in listed[:30]]
    )
    with sampled(data, 20) as sample:
        ours = {row["row_id"]: row["member"] for row in rows(sample.dataset, "listing")}
        withheld = {ours[entry.row_id] for entry in read_log(sample.dataset) if entry.row_id is not None}
    assert withheld == set(ours.values()) & {row["member"] for row in listed[:30]}
    assert log_path(built).is_file()


@pytest.mark.parametrize(
    ("size", "change", "why"),
    [
        (0, {}, "--sample 0: look at one input at least"),
        (5, {"part_rows": 9}, "was made with part_rows=3, the recipe says 9"),
    ],
)
def test_refusals(photos: Path, tmp_path: Path, size: int, change: dict[str, int], why: str) -> None:
    build(recipe(photos, tmp_path / "out"), "ingest")
    with pytest.raises(ValueError, match=why), sampled(recipe(photos, tmp_path / "out", **change), size):
        pass


def test_a_url_list_that_was_not_fetched_is_refused(tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_text("http://127.0.0.1:9/a.jpg\n")
    data = recipe(None, tmp_path / "out", sources=[{"kind": "urls", "path": str(tmp_path / "urls.txt")}])
    with pytest.raises(ValueError, match="run sigma ingest first"), sampled(data, 5):
        pass


def test_a_folder_of_other_things_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("mine")
    with (
        pytest.raises(ValueError, match="holds other files and no dataset"),
        sampled(recipe(photos, tmp_path / "out"), 5),
    ):
        pass
