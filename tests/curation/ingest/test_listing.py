from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.ingest import listing
from curation.ingest.listing import Listed, is_listed, update_listing
from curation.sources import Item
from curation.upkeep.doctor import check_dataset
from engine import catalog
from engine.dataset import Dataset
from engine.ledger import ledger_counts
from engine.runner import LocalRunner
from schemas.recipe import DataRecipe
from tests.building import build, computed, put, recipe, rows, write_pictures
from tests.trees import content


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    for number, name in enumerate("abc"):
        write_pictures(tmp_path / name, [(20, 10)] * (3 + number), first_seed=10 * number)
    return [tmp_path / name for name in "abc"]


def from_folders(out: Path, *folders: Path, part_rows: int = 2, **names: str) -> DataRecipe:
    sources: list[dict[str, Any]] = [{"path": str(folder), "name": names.get(folder.name, "")} for folder in folders]
    return recipe(None, out, sources=sources, part_rows=part_rows)


def listed(made: DataRecipe) -> tuple[Dataset, Listed]:
    dataset = Dataset(made.out_path())
    return dataset, update_listing(dataset.held(), made)


def test_every_input_has_an_ordinal_and_a_part(tmp_path: Path, folders: list[Path]) -> None:
    dataset, found = listed(from_folders(tmp_path / "ds", *folders, b="second"))
    assert (found.num_inputs, found.num_new) == (12, 12)
    assert found.ignored == {"jsonl (captions)": 3}
    assert [dataset.read_part("listing", n).num_rows for n in range(7)] == [2, 1, 2, 2, 2, 2, 1]
    listing = rows(dataset, "listing")
    assert [row["row_id"] for row in listing] == list(range(12))
    assert [(row["source"], row["source_name"], row["member"]) for row in listing[2:5]] == [
        (str(folders[0]), "a", "002.jpg"),
        (str(folders[1]), "second", "000.jpg"),
        (str(folders[1]), "second", "001.jpg"),
    ]
    assert listing[3]["raw_caption"] == "Picture number 000."
    assert listing[3]["num_bytes"] == (folders[1] / "000.jpg").stat().st_size


class Hearing(LocalRunner):
    """Remembers the parts that it is told to expect, and how many were committed before."""

    def __init__(self) -> None:
        super().__init__()
        self.expected: list[tuple[int, int]] = []

    def expect(self, dataset: Dataset, num_parts: int) -> None:
        self.expected.append((num_parts, len(dataset.parts("listing"))))


@pytest.mark.parametrize("num_files", [3, 1100])
def test_the_runner_hears_of_parts_before_they_are_listed(tmp_path: Path, num_files: int) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(num_files):
        (tmp_path / "photos" / f"{number:04d}.jpg").touch()
    made, runner = recipe(tmp_path / "photos", tmp_path / "ds", part_rows=1000), Hearing()
    dataset = Dataset(made.out_path())
    update_listing(dataset.held(), made, lambda: runner)
    num_parts = len(dataset.parts("listing"))
    assert num_parts == (1 if num_files == 3 else 16)
    assert runner.expected == [(num_parts, 0)]


def test_a_second_look_lists_nothing(tmp_path: Path, folders: list[Path]) -> None:
    made = from_folders(tmp_path / "ds", *folders)
    assert not is_listed(Dataset(made.out_path()).held(), made)
    dataset, _ = listed(made)
    before = content(dataset.root)
    write_pictures(folders[0], [(20, 10)] * 9, first_seed=90)  # the listing was taken: it is not taken again
    assert is_listed(dataset.held(), made)
    _, again = listed(made)
    assert (again.num_inputs, again.num_new, again.ignored) == (12, 0, {"jsonl (captions)": 3})
    assert content(dataset.root) == before


def test_an_added_source_appends_and_renumbers_nothing(tmp_path: Path, folders: list[Path]) -> None:
    dataset, _ = listed(from_folders(tmp_path / "ds", *folders[:2]))
    before = content(dataset.root)
    _, found = listed(from_folders(tmp_path / "ds", *folders))
    assert (found.num_inputs, found.num_new) == (12, 5)
    after = content(dataset.root)
    parts = {name: digest for name, digest in before.items() if name.endswith(".parquet")}
    assert parts.items() <= after.items()
    once, _ = listed(from_folders(tmp_path / "once", *folders))
    assert content(once.root) == after


@pytest.mark.slow
def test_an_added_source_is_all_that_is_read(tmp_path: Path, folders: list[Path]) -> None:
    dataset, _ = build(from_folders(tmp_path / "ds", *folders[:2]), upto="aesthetic")
    tables = ("images", "proxies", "fingerprints", "scores")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for table in tables for path in dataset.parts(table)}
    _, told = build(from_folders(tmp_path / "ds", *folders), upto="aesthetic")
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    assert computed(told) == {"images": 3, "fingerprints": 3, "scores": 3}
    once, _ = build(from_folders(tmp_path / "once", *folders), upto="aesthetic")
    assert content(once.root) == content(dataset.root)


def refusal(made: DataRecipe) -> str:
    dataset = Dataset(made.out_path())
    with pytest.raises(ValueError) as refused:
        is_listed(dataset.held(), made)
    with pytest.raises(ValueError) as again:
        update_listing(dataset.held(), made)
    assert str(again.value) == str(refused.value)
    return str(refused.value)


def test_another_folder_in_its_place_is_refused(tmp_path: Path, folders: list[Path]) -> None:
    out = tmp_path / "ds"
    dataset, _ = listed(from_folders(out, *folders[:2]))
    before = content(dataset.root)
    a, b, c = folders
    assert refusal(from_folders(out, b, a)).startswith(f"{out}: was made from {a}, the recipe has {b} in its place; ")
    assert f"was made from {b}, the recipe has {c} in its place" in refusal(from_folders(out, a, c))
    assert f"was made from {b}, the recipe has nothing in its place" in refusal(from_folders(out, a))
    assert "sources may be added at the end, never changed" in refusal(from_folders(out, c))
    assert content(dataset.root) == before


def test_another_name_of_a_source_is_refused(tmp_path: Path, folders: list[Path]) -> None:
    listed(from_folders(tmp_path / "ds", *folders, b="holiday"))
    assert "was listed under the name 'holiday', the recipe says 'trip'" in refusal(
        from_folders(tmp_path / "ds", *folders, b="trip")
    )


def test_parts_of_another_size_are_refused(tmp_path: Path, folders: list[Path]) -> None:
    listed(from_folders(tmp_path / "ds", *folders))
    assert "was made with part_rows=2, the recipe says 3; parts are never cut anew" in refusal(
        from_folders(tmp_path / "ds", *folders, part_rows=3)
    )


def test_a_listing_that_lost_a_part_is_refused(tmp_path: Path, folders: list[Path]) -> None:
    """Without this, the inputs of the last part would be gone and the ledger would add up all the same."""
    made = from_folders(tmp_path / "ds", *folders)
    dataset, _ = listed(made)
    for number in (6, 0):
        part = dataset.part("listing", number)
        data = part.read_bytes()
        part.unlink()
        place = dataset.folder("listing") / f"part-{number:05d}"
        assert refusal(made).startswith(f"{place}: missing; a listing is taken once")
        part.write_bytes(data)
    part.write_bytes(data[:50])
    with (
        pytest.raises(ValueError, match=rf"{part}: damaged .*; put it back from a copy"),
        catalog.connect(dataset) as connection,
    ):
        ledger_counts(connection)


def test_the_files_of_a_killed_listing_are_removed(tmp_path: Path, folders: list[Path]) -> None:
    """Parts are written before the record: a kill between the two leaves parts that no record knows."""
    made = from_folders(tmp_path / "ds", *folders)
    undisturbed, _ = listed(from_folders(tmp_path / "once", *folders))
    dataset, _ = listed(from_folders(tmp_path / "ds", folders[0]))
    record = dataset.record_path("listing").read_bytes()
    listed(made)
    dataset.record_path("listing").write_bytes(record)
    stray = put(dataset, "listing", 9, dataset.read_part("listing", 1))
    _, found = listed(made)
    assert not stray.exists()
    assert found.num_inputs == 12
    assert content(dataset.root) == content(undisturbed.root)


def test_the_files_of_a_killed_listing_of_a_shrunken_folder_are_removed(tmp_path: Path, folders: list[Path]) -> None:
    dataset, _ = listed(from_folders(tmp_path / "ds", folders[2]))
    dataset.record_path("listing").unlink()
    for name in ("001.jpg", "002.jpg", "003.jpg", "004.jpg"):
        (folders[2] / name).unlink()
    _, found = listed(from_folders(tmp_path / "ds", folders[2]))
    assert (found.num_inputs, len(dataset.parts("listing"))) == (1, 1)


def test_a_source_without_an_image_keeps_the_listing(tmp_path: Path, folders: list[Path]) -> None:
    (tmp_path / "empty").mkdir()
    made = from_folders(tmp_path / "ds", folders[0], tmp_path / "empty")
    with pytest.raises(ValueError, match="empty: holds no image"):
        update_listing(Dataset(made.out_path()).held(), made)
    assert is_listed(Dataset(made.out_path()).held(), from_folders(tmp_path / "ds", folders[0]))


def test_a_source_of_any_kind_without_an_image_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "words.tar", "w") as archive:
        archive.add(__file__, "words.txt")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "none.parquet")
    for source, why in (
        ({"kind": "webdataset", "urls": str(tmp_path)}, "holds no image (not counted: 1 txt); "),
        ({"kind": "table", "path": str(tmp_path), "columns": {"bytes": "image"}}, "holds no image; "),
    ):
        with pytest.raises(ValueError, match=re.escape(why)):
            listed(recipe(None, tmp_path / "ds", sources=[source]))


def test_other_options_of_a_listed_source_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", [(20, 10)] * 2)
    (tmp_path / "in" / "list.csv").write_text("file,words,more\n000.jpg,a,b\n001.jpg,c,d\n")

    def made(kind: str = "table", **columns: str) -> DataRecipe:
        source = {"kind": kind, "path": str(tmp_path / "in" / "list.csv"), "columns": {"path": "file"} | columns}
        return recipe(None, tmp_path / "ds", sources=[source])

    dataset, _ = listed(made(caption="words"))
    assert [row["raw_caption"] for row in rows(dataset, "listing")] == ["a", "c"]
    assert is_listed(dataset.held(), made(caption="words"))
    assert "list.csv was listed with columns={" in refusal(made(caption="more"))
    folder = recipe(None, tmp_path / "ds", sources=[{"path": str(tmp_path / "in" / "list.csv")}])
    assert "was made from table " in refusal(folder)


@pytest.mark.slow
def test_parts_that_were_listed_before_a_column_was_added_are_as_good(tmp_path: Path, folders: list[Path]) -> None:
    made = from_folders(tmp_path / "ds", folders[0])
    dataset, _ = listed(made)
    for path in dataset.parts("listing"):
        old = pq.read_table(path).drop_columns(["reason", "detail", "other_captions"])
        pq.write_table(old.replace_schema_metadata(None), path)
    more = from_folders(tmp_path / "ds", *folders[:2])
    built, _ = build(more, upto="ingest")
    assert [row["reason"] for row in rows(built, "images")] == [None] * 7
    assert all(finding.fine for finding in check_dataset(built.root))


def cut(items: list[Item], most: int) -> list[list[str]]:
    """The members of each part."""
    return [part["member"].to_pylist() for part in listing._cut(listing.rows_of(items, "/", "x"), most)]


@pytest.mark.parametrize(
    ("num", "most", "sizes"),
    [
        (0, 4096, []),
        (20, 4096, [20]),
        (32, 4096, [32]),
        (100, 4096, [32, 32, 32, 4]),
        (1000, 4096, [63] * 15 + [55]),
        (16 * 40, 4096, [40] * 16),
        (5000, 4096, [313] * 15 + [305]),
        (100, 10, [10] * 10),
        (160, 10, [10] * 16),
        (165, 10, [10] * 16 + [5]),
    ],
)
def test_a_source_of_few_inputs_is_cut_so_that_all_workers_have_a_part(num: int, most: int, sizes: list[int]) -> None:
    items = [Item(f"{number}.jpg", num_bytes=1, source="/") for number in range(num)]
    parts = cut(items, most)
    assert [len(part) for part in parts] == sizes
    assert [member for part in parts for member in part] == [item.member for item in items]


def test_a_source_of_more_than_is_held_at_first_has_parts_of_the_size_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "FEW_ITEMS", 50)
    items = [Item(f"{number}.jpg", num_bytes=1, source="/") for number in range(51)]
    assert [len(part) for part in cut(items, 40)] == [40, 11]
    assert [len(part) for part in cut(items[:50], 40)] == [32, 18]


def test_images_takes_a_list_of_folders_and_one_more_later(tmp_path: Path, folders: list[Path]) -> None:
    def made(*paths: Path) -> DataRecipe:
        text = f"images=[{', '.join(map(str, paths))}]" if len(paths) > 1 else f"images={paths[0]}"
        (tmp_path / "recipe.yaml").write_text(f"out: {tmp_path / 'ds'}\npart_rows: 3\nrun: {{runner: local}}\n")
        return DataRecipe.load(tmp_path / "recipe.yaml", [text])

    dataset, _ = listed(made(folders[0]))
    before = rows(dataset, "listing")
    listed(made(*folders))
    found = rows(dataset, "listing")
    assert found[: len(before)] == before
    assert list(dict.fromkeys(row["source"] for row in found)) == [str(folder) for folder in folders]
    with pytest.raises(ValueError, match="the same folder is named twice"):
        made(folders[0], folders[0])


def test_the_recipe_of_a_dataset_is_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "in", [(20, 10)] * 2)
    monkeypatch.chdir(tmp_path)
    one, _ = build(recipe(Path("in"), tmp_path / "one"), upto="ingest")
    two, _ = build(recipe(None, tmp_path / "two", sources=[{"path": "in"}]), upto="ingest")
    monkeypatch.chdir("/")
    assert DataRecipe.load(one.recipe).images == str(tmp_path / "in")
    for dataset in (one, two):
        assert DataRecipe.load(dataset.recipe).all_sources()[0].location() == str(tmp_path / "in")
