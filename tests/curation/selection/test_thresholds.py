from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from curation.selection.thresholds import changed_recipe, compare, rules_on_record
from engine.dataset import Dataset
from schemas.recipe import DataRecipe
from tests.building import build, recipe, rows, write_pictures
from tests.trees import content
from viewer.thresholds import lines, write_page

SIZES = [(96, 64), (90, 60), (60, 90), (30, 20), (45, 30), (200, 40), (64, 64)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("thresholds") / "<b>"
    write_pictures(folder / "photos", SIZES)
    knobs = {"min_short_side_px": 25, "subsets": {"tall": "aspect > 1"}}
    return build(recipe(folder / "photos", folder / "dataset", select=knobs), upto="select")[0]


def recipe_of(dataset: Dataset) -> DataRecipe:
    return DataRecipe.load(dataset.recipe)


@pytest.mark.slow
def test_the_comparison_agrees_with_select_and_changes_nothing(dataset: Dataset, tmp_path: Path) -> None:
    before = content(dataset.root)
    made = recipe_of(dataset)
    changed = changed_recipe(made, ["select.min_short_side_px=61", "select.max_aspect=6"])
    found = compare(dataset, made, changed, num_near=2)
    assert content(dataset.root) == before
    again = recipe(dataset.root.parent / "photos", tmp_path / "again", select=changed.select.resolved())
    kept = {row["row_id"] for row in rows(build(again, upto="select")[0], "selection") if row["kept"]}
    assert (found.kept, found.num_fallen, found.num_returned) == ((5, len(kept)), 3, 0)
    assert kept == {0, 6}
    assert found.counts["rejected by"] == [("kept", 5, 2), ("too_small", 1, 5), ("extreme_aspect", 1, 0)]
    assert found.counts["subset"] == [("tall", 1, 0)]
    assert {name: (was, now) for name, was, now in found.counts["bucket"]} == {
        "0.68": (3, 1),
        "1.0": (1, 1),
        "1.46": (1, 0),
    }
    near = [(picture.row_id, picture.value, picture.kept) for picture in found.near["min_short_side_px"]]
    assert near == [(0, 64, True), (6, 64, True), (1, 60, False), (2, 60, False)]
    assert [picture.kept for picture in found.near["max_aspect"]] == [True, True]
    assert next(lines(found)) == "kept: 5 now, 2 then (-3): 3 would fall, 0 would come in"


@pytest.mark.slow
def test_a_moved_limit_of_a_screen_shows_the_pictures_near_it(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 4)
    made = recipe(tmp_path / "photos", tmp_path / "dataset", screen={"sharpness": True})
    screened, _ = build(made, upto="select")
    sharpness = sorted((row["sharpness"], row["row_id"]) for row in rows(screened, "screens"))
    limit = sharpness[2][0]
    found = compare(screened, made, changed_recipe(made, [f"select.min_sharpness={limit!r}"]), num_near=1)
    assert (found.kept, found.counts["rejected by"]) == ((4, 2), [("kept", 4, 2), ("blurred", 0, 2)])
    near = [(picture.value, picture.row_id, picture.kept) for picture in found.near["min_sharpness"]]
    assert near == [(*sharpness[2], True), (*sharpness[1], False)]


def test_the_page_shows_pictures_and_escapes_names(dataset: Dataset, tmp_path: Path) -> None:
    made = recipe_of(dataset)
    found = compare(dataset, made, changed_recipe(made, ["select.min_short_side_px=61"]), num_near=2)
    named = found.near["min_short_side_px"]
    object.__setattr__(named[0], "name", "<script>alert(1)</script>")
    write_page(dataset, found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,/9j/") == 4
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "grid-of-pictures" in page and "--paper:" in page and "Content-Security-Policy" in page, "the report's dress"
    assert "<dt>kept now</dt><dd>" in page and '<th scope="row"><bdi>too small</bdi></th>' in page


def test_other_knobs_are_refused(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="only thresholds of select"):
        changed_recipe(recipe_of(dataset), ["mix.synthetic_share=0.1"])
    with pytest.raises(ValueError, match=r"select\.min_shrt"):
        changed_recipe(recipe_of(dataset), ["select.min_shrt=1"])


def test_a_dataset_without_a_selection_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos")
    dataset, _ = build(recipe(tmp_path / "photos", tmp_path / "dataset"), upto="dedup")
    made = recipe_of(dataset)
    with pytest.raises(ValueError, match="nothing was selected yet"):
        compare(dataset, made, made)


def test_a_knob_that_is_newer_than_the_record_refused_nothing(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = dataset.record("selection")
    assert record is not None
    older = {name: value for name, value in record.knobs.items() if name != "select.max_transparency"}
    monkeypatch.setattr(Dataset, "record", lambda self, table: replace(record, knobs=older))
    assert rules_on_record(dataset).max_transparency is None
    assert rules_on_record(dataset).min_short_side_px == 25
