from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.shards.check import check_shards, shards_of_index
from curation.shards.writer import PackedImage
from curation.upkeep.doctor import Finding, check_dataset
from curation.upkeep.machine import check_machine
from curation.upkeep.repair import repair
from engine import catalog
from engine.dataset import Dataset, commit_table, row_groups
from engine.runner import PartFailed
from schemas import shard
from schemas.commit import write_bytes
from schemas.recipe import DataRecipe
from schemas.shard_index import INDEX_FILE, read_index
from schemas.tables import SCHEMAS
from tests.building import Told, build, recipe, rows, steps, write_pictures
from tests.flips import FOUND, HARMLESS, REFUSED, flips, outcome
from tests.trees import content

pytestmark = pytest.mark.slow


@pytest.fixture
def dataset(demo: Dataset, copy_of: Callable[[Dataset], Dataset]) -> Dataset:
    copy = copy_of(demo)
    catalog.write_catalog(copy)  # its views name absolute paths
    return copy


def bad(dataset: Dataset) -> list[Finding]:
    return [finding for finding in check_dataset(dataset.root) if not finding.fine]


def recipe_of(dataset: Dataset) -> DataRecipe:
    return DataRecipe.load(dataset.recipe, [f"out={dataset.root}"])


def only(dataset: Dataset) -> Finding:
    found = bad(dataset)
    assert len(found) == 1, found
    return found[0]


def a_tar(dataset: Dataset) -> Path:
    return sorted(dataset.shards.glob("*/*.tar"))[0]


def test_a_whole_dataset_is_fine(demo: Dataset) -> None:
    found = {finding.subject: finding for finding in check_dataset(demo.root)}
    assert all(finding.fine for finding in found.values())
    assert found["images"].text == "2 of 2 parts"
    assert found["selection"].text == "there"
    assert found["shards"].text.endswith("15 samples; wids index there")
    assert found["ledger"].text == "22 rows for 22 inputs"
    off = {"headers", "embeddings", "screens", "grounding", "balance"}  # which no knob of the demo asks for
    assert set(found) == SCHEMAS.keys() - off | {"shards", "ledger"}


def test_a_half_built_dataset_is_fine(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(20, 10)] * 4)
    dataset, _ = build(recipe(tmp_path / "photos", tmp_path / "ds"), upto="select")
    found = {finding.subject: finding.text for finding in check_dataset(dataset.root)}
    assert bad(dataset) == []
    assert (found["captions"], found["samples"]) == ("0 of 2 parts", "0 of 0 parts")
    assert (found["selection"], found["shard_plan"]) == ("there", "not computed yet")


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no dataset here"):
        check_dataset(tmp_path)


# ------------------------------------------------------------------------------------------------ tables


@pytest.mark.parametrize("content", [None, b"", b"images: [", b"\xff\xfe"])
def test_a_recipe_that_is_missing_or_cannot_be_read_is_named(content: bytes | None, dataset: Dataset) -> None:
    dataset.recipe.unlink()
    if content is not None:
        dataset.recipe.write_bytes(content)
    found = only(dataset)
    assert found.subject == "recipe" and str(dataset.recipe) in found.text and "sigma build with" in found.text


@pytest.mark.parametrize("table", ["images", "proxies", "scores", "captions", "nouns", "samples"])
def test_a_truncated_part_is_named(dataset: Dataset, table: str) -> None:
    path = dataset.part(table, 0)
    path.write_bytes(path.read_bytes()[:-20])
    found = only(dataset)
    assert found == Finding(table, f"{path} is damaged (1 damaged): delete it and run sigma build again", fine=False)


@pytest.mark.parametrize("table", ["listing", "images", "captions", "nouns", "selection"])
def test_a_part_in_the_place_of_another_is_named(dataset: Dataset, table: str) -> None:
    path = dataset.part(table, 1)
    path.write_bytes(dataset.part(table, 0).read_bytes())
    found = bad(dataset)
    assert [each.subject for each in found if "rows of another part" in each.text] == [table]
    assert f"{path} holds the rows of another part" in found[0].text


def test_what_cannot_be_read_now_is_not_to_be_deleted_and_stops_nothing(dataset: Dataset) -> None:
    unread, damaged = dataset.part("captions", 0), dataset.part("mix", 1)
    damaged.write_bytes(b"")

    def refusing(path: Path, *columns: Any) -> Iterator[pa.Table]:
        if path == unread:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return row_groups(path, *columns)

    with patch("engine.part_check.row_groups", refusing):
        found = {finding.subject: finding for finding in bad(dataset)}
    assert found.keys() == {"captions", "mix"}
    assert found["captions"].remove == () and f"Input/output error: '{unread}'" in found["captions"].text
    assert found["mix"].remove == (damaged,)


def test_a_damaged_listing_is_not_to_be_deleted(dataset: Dataset) -> None:
    path = dataset.part("listing", 1)
    path.write_bytes(b"")
    found = only(dataset)
    assert (found.subject, found.text) == ("listing", f"{path} is damaged (1 damaged): put it back from a copy")


@pytest.mark.parametrize("table", ["selection", "duplicates", "statistics", "shard_plan"])
def test_a_truncated_reduce_table_is_named(dataset: Dataset, table: str) -> None:
    path = dataset.part(table, 0)
    path.write_bytes(path.read_bytes()[:100])
    found = only(dataset)
    assert (found.subject, found.text) == (table, f"{path} is damaged: delete it and run sigma build again")


def test_a_flipped_byte_in_a_part_is_named(dataset: Dataset) -> None:
    path = dataset.part("proxies", 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert only(dataset).text.startswith(f"{path} is damaged")


def test_what_doctor_says_mends_a_part(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(20, 10)] * 5)
    made = recipe(tmp_path / "photos", tmp_path / "ds")
    dataset, _ = build(made)
    for path in (dataset.part("images", 1), dataset.part("samples", 0), dataset.part("selection", 1)):
        path.write_bytes(path.read_bytes()[:60])
        assert "delete it and run sigma build again" in only(dataset).text
        path.unlink()
        build(made)
        assert bad(dataset) == []


def test_a_missing_part_is_named(dataset: Dataset) -> None:
    dataset.part("scores", 0).unlink()
    assert only(dataset) == Finding("scores", "1 of 2 parts: run sigma build again to finish", fine=False)


def test_a_damaged_or_missing_record_of_an_extra_captioner_is_named(dataset: Dataset) -> None:
    table, record = "captions_beside/endpoint", dataset.record("captions")
    assert record is not None
    dataset.write_record(table, record)
    for name in dataset.held().parts("captions").values():
        dataset.commit_part(table, *name[:2], dataset.read_part("captions", name.number))
    catalog.write_catalog(dataset)
    assert bad(dataset) == []
    path = dataset.record_path(table)
    path.write_text("{")
    assert (only(dataset).subject, only(dataset).text) == (f"record of {table}", f"{path} is damaged")
    path.unlink()
    assert only(dataset).subject == f"record of {table}"
    assert only(dataset).text.startswith(f"{path} is missing: sigma build compares the table with the recipe")


def test_other_columns_are_damage(dataset: Dataset) -> None:
    path = dataset.part("mix", 0)
    pq.write_table(pa.table({"row_id": [1]}), path)
    assert only(dataset).text.startswith(f"{path} is damaged")


def test_a_row_that_is_there_twice_is_found_by_the_ledger(dataset: Dataset) -> None:
    part = dataset.read_part("images", 1)
    commit_table(dataset.part("images", 1), pa.concat_tables([part, part.slice(0, 1)]), SCHEMAS["images"], {})
    found = only(dataset)
    assert found.subject == "ledger"
    assert found.text.endswith("rows for 22 inputs")


# ------------------------------------------------------------------------------------------------ files


def test_half_written_files_are_named_once(dataset: Dataset) -> None:
    stray = a_tar(dataset).with_name(".tmp-4711-0.5-000000.tar")
    stray.write_bytes(b"half")
    found = only(dataset)
    assert (found.subject, found.text) == (
        "half-written files",
        f"1, e.g. {stray}: the next sigma build sweeps them",
    )


def test_a_tar_that_no_table_knows_is_named(dataset: Dataset) -> None:
    stray = a_tar(dataset).with_name("0.5-000099.tar")
    stray.write_bytes(a_tar(dataset).read_bytes())
    found = only(dataset)
    assert (found.subject, found.text) == (
        "unknown shards",
        f"1, e.g. {stray}: no table knows them; delete them",
    )


# ------------------------------------------------------------------------------------------------ shards


def name_of(dataset: Dataset, tar: Path) -> str:
    return str(tar.relative_to(dataset.shards))


def test_a_deleted_shard_is_named(dataset: Dataset) -> None:
    tar = a_tar(dataset)
    tar.unlink()
    found = only(dataset)
    assert (found.subject, found.text) == (
        name_of(dataset, tar),
        "missing; sigma doctor --repair writes it again",
    )


@pytest.mark.parametrize(
    ("keep", "problem"), [(-512, "is cut short"), (-1024, "is cut short"), (700, "does not hold"), (0, "does not hold")]
)
def test_a_truncated_shard_is_named(dataset: Dataset, keep: int, problem: str) -> None:
    tar = a_tar(dataset)
    tar.write_bytes(tar.read_bytes()[:keep])
    found = only(dataset)
    assert found.subject == name_of(dataset, tar)
    assert found.text.startswith(problem)


@pytest.mark.parametrize("member", ["image", "txt", "json"])
@pytest.mark.parametrize("place", [0, 130, 500])
def test_a_flipped_byte_in_a_header_is_named(dataset: Dataset, member: str, place: int) -> None:
    row = read_index(dataset.shards).to_pylist()[1]
    tar = dataset.shards / row["shard"]
    data = bytearray(tar.read_bytes())
    data[row[f"{member}_offset"] - 512 + place] ^= 4
    tar.write_bytes(bytes(data))
    extension = row["image_ext"] if member == "image" else member
    found = only(dataset)
    assert (found.subject, found.text) == (
        row["shard"],
        f"does not hold {row['key']}.{extension} where the index says; sigma doctor --repair writes it again",
    )


def test_a_damaged_json_is_named(dataset: Dataset) -> None:
    row = read_index(dataset.shards).to_pylist()[0]
    tar = dataset.shards / row["shard"]
    data = bytearray(tar.read_bytes())
    data[row["json_offset"]] = 0
    tar.write_bytes(bytes(data))
    assert only(dataset).text.startswith(f"{row['key']}.json is damaged")


def test_a_json_of_another_image_is_named(dataset: Dataset) -> None:
    row = read_index(dataset.shards).to_pylist()[0]
    tar = dataset.shards / row["shard"]
    data = tar.read_bytes().replace(f'"image_id":"{row["key"]}"'.encode(), f'"image_id":"{"0" * 32}"'.encode())
    tar.write_bytes(data)
    assert only(dataset).text.startswith(f"{row['key']}.json speaks of another image")


@pytest.mark.parametrize("damage", ["deleted", "cut short"])
def test_a_damaged_index_is_named(dataset: Dataset, damage: str) -> None:
    path = dataset.shards / "index.parquet"
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:90])
    found = only(dataset)
    assert found.subject == "shards"
    assert found.text.startswith(f"{path}: ")


def test_a_missing_wids_index_is_named(dataset: Dataset) -> None:
    (dataset.shards / "wids.json").unlink()
    assert only(dataset).text.endswith("wids index missing")


def test_a_dataset_card_that_is_missing_or_of_another_dataset_is_named(dataset: Dataset) -> None:
    card = dataset.shards / "README.md"
    whole = card.read_text()
    assert "15 samples" in whole
    card.write_text(whole.replace("15 samples", "16 samples"))
    assert only(dataset).text.endswith("README.md is not the dataset card that belongs here")
    card.unlink()
    assert only(dataset).text.endswith("README.md, the dataset card, is missing")
    build(recipe_of(dataset))
    assert card.read_text() == whole


def test_several_problems_are_all_named(dataset: Dataset) -> None:
    dataset.part("images", 0).write_bytes(b"")
    dataset.part("samples", 0).write_bytes(b"")
    a_tar(dataset).unlink()
    write_bytes(dataset.shards / "1.0" / ".tmp-1-x.tar", b"")
    assert {finding.subject for finding in bad(dataset)} == {
        "images",
        "samples",
        "half-written files",
        name_of(dataset, sorted(dataset.root.glob("shards/*"))[0] / a_name(dataset)),
    }


def a_name(dataset: Dataset) -> str:
    first = sorted({row["shard"] for row in read_index(dataset.shards).to_pylist()})[0]
    return Path(first).name


def test_the_machine_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    found = {finding.subject: finding.text for finding in check_machine()}
    assert found["ray"] == "will join head:6379"
    monkeypatch.delenv("RAY_ADDRESS")
    found = {finding.subject: finding.text for finding in check_machine()}
    assert found["ray"] == "will start a cluster on this machine"
    assert set(found) == {"python", "cores", "memory", "free disk here", "accelerator", "ray", "en_core_web_sm"}


def test_a_flipped_byte_inside_an_image_is_found(dataset: Dataset) -> None:
    row = read_index(dataset.shards).to_pylist()[0]
    path = dataset.shards / row["shard"]
    with path.open("r+b") as tar:
        tar.seek(row["image_offset"] + row["image_size"] // 2)
        byte = tar.read(1)[0]
        tar.seek(-1, 1)
        tar.write(bytes([byte ^ 1]))
    assert only(dataset).subject == row["shard"]
    assert "has other bytes than the original" in only(dataset).text


# ------------------------------------------------------------------------------------------------ every byte


@pytest.mark.meanings
def test_a_flipped_bit_anywhere_in_tables_shards_and_indexes_is_found(dataset: Dataset) -> None:
    """A short run of `benchmarks/bit_flips.py`, which tries thousands."""
    tried = {flip: outcome(dataset.root, *flip[1:]) for flip in flips(dataset.root, 18)}
    assert {flip: found for flip, found in tried.items() if found not in (FOUND, REFUSED, HARMLESS)} == {}
    assert list(tried.values()).count(FOUND) >= 12


def test_a_flipped_bit_in_the_statistics_of_a_table_is_found_and_refused(dataset: Dataset) -> None:
    """The statistics of a footer say which rows may match a filter: a wrong one hides rows from DuckDB and Arrow."""
    path = dataset.parts("selection")[-1]
    data = bytearray(path.read_bytes())
    last = rows(dataset, "selection")[-1]["row_id"]
    place = data.rindex(last.to_bytes(8, "little"))  # the greatest row_id, as the footer has it
    data[place] ^= 4
    path.write_bytes(bytes(data))
    assert "selection" in {finding.subject for finding in bad(dataset)}
    for reads in (
        lambda: dataset.read_table("selection"),
        lambda: catalog.connect(dataset),
        lambda: build(recipe_of(dataset), redo=["mix"]),
    ):
        with pytest.raises((ValueError, PartFailed), match=rf"{path}: damaged \(the footer is not the one"):
            reads()


def test_a_reduce_job_refuses_an_input_with_a_flipped_bit_in_its_pages(dataset: Dataset) -> None:
    """DuckDB compares no checksum of a page: it would select by another value."""
    path = dataset.part("scores", 0)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"scores/part-00000\.\S+: damaged"):
        build(recipe_of(dataset), redo=["select"])


@pytest.fixture(scope="module")
def resized(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("resized")
    write_pictures(folder / "photos", [(96, 64)] * 4 + [(40, 30)])
    built, _ = build(recipe(folder / "photos", folder / "ds", shard={"resize_longest_px": 60}))
    return built


def spans(dataset: Dataset) -> dict[str, list[tuple[Path, int, int]]]:
    """Class of bytes -> (tar, begin, end) of every stretch of it."""
    found: dict[str, list[tuple[Path, int, int]]] = {}
    ends: dict[Path, int] = {}
    for row in read_index(dataset.shards).to_pylist():
        tar = dataset.shards / row["shard"]
        for member in ("image", "txt", "json"):
            begin = row[f"{member}_offset"]
            end = begin + row[f"{member}_size"]
            padded = end + shard.padding(end)
            found.setdefault("header", []).append((tar, begin - shard.BLOCK, begin))
            found.setdefault(member, []).append((tar, begin, end))
            found.setdefault("padding", []).append((tar, end, padded))
            ends[tar] = max(ends.get(tar, 0), padded)
    found["end"] = [(tar, end, tar.stat().st_size) for tar, end in ends.items()]
    assert sum(end - begin for every in found.values() for _, begin, end in every) == sum(
        tar.stat().st_size for tar in ends
    )
    return found


@pytest.mark.parametrize("group_rows", [1, 2, 3, 100])
def test_an_index_is_read_a_shard_at_a_time_however_it_is_stored(
    resized: Dataset, group_rows: int, tmp_path: Path
) -> None:
    index = read_index(resized.shards)
    pq.write_table(index, tmp_path / INDEX_FILE, row_group_size=group_rows)
    shards = list(shards_of_index(tmp_path / INDEX_FILE))
    assert [len({*rows["shard"].to_pylist()}) for rows in shards] == [1] * len(index["shard"].unique())
    assert pa.concat_tables(shards).equals(index)


@pytest.mark.parametrize(
    ("column", "value"),
    [(column, value) for column in ("image_offset", "txt_offset", "json_size") for value in (0, 100, -1, 2**62)]
    + [("key", "a.b"), ("key", "k" * 200), ("image_ext", "")],
)
def test_what_no_tar_could_hold_is_a_finding(dataset: Dataset, column: str, value: int | str) -> None:
    path = dataset.shards / INDEX_FILE
    table = pq.read_table(path)
    field = table.schema.field(column)
    values = pa.array([value, *table[column].to_pylist()[1:]], field.type)
    table = table.set_column(table.schema.get_field_index(column), field, values)
    commit_table(path, table, table.schema, {})
    shard_name = table["shard"][0].as_py()
    assert [
        found.text for found in bad(dataset) if "where the index says" in found.text and shard_name == found.subject
    ]


@pytest.mark.parametrize("kind", ["header", "image", "txt", "json", "padding", "end"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), which=st.integers(0, 10**6), bit=st.integers(0, 7))
@pytest.mark.meanings
def test_a_flipped_bit_anywhere_in_a_tar_is_found(
    resized: Dataset, kind: str, place: float, which: int, bit: int
) -> None:
    stretches = [span for span in spans(resized)[kind] if span[1] < span[2]]
    tar, begin, end = stretches[which % len(stretches)]
    whole = tar.read_bytes()
    data = bytearray(whole)
    data[begin + int(place * (end - begin))] ^= 1 << bit
    tar.write_bytes(bytes(data))
    try:
        index = shards_of_index(resized.shards / INDEX_FILE)
        found = list(check_shards(resized, index, 1, lambda rows: None))
    finally:
        tar.write_bytes(whole)
    assert [checked.shard for checked in found if checked.problem] == [str(tar.relative_to(resized.shards))]


def test_a_re_encoded_image_that_changed_is_written_again_alone(resized: Dataset, copy_of: Any) -> None:
    dataset = copy_of(resized)
    whole = content(dataset.root)
    row = next(row for row in read_index(dataset.shards).to_pylist() if row["width"] == 60)
    tar = dataset.shards / row["shard"]
    data = bytearray(tar.read_bytes())
    data[row["image_offset"] + row["image_size"] // 2] ^= 1
    inodes = {path: path.stat().st_ino for path in dataset.shards.glob("*/*.tar")}
    tar.write_bytes(bytes(data))
    [finding] = [finding for finding in bad(dataset) if finding.subject == row["shard"]]
    assert "has other bytes than were packed" in finding.text
    made = DataRecipe.load(dataset.recipe, [f"out={dataset.root}"])
    list(repair(made, steps(made), Told()))
    assert bad(dataset) == []
    assert {path: path.stat().st_ino for path in inodes} == inodes | {tar: tar.stat().st_ino}
    assert content(dataset.root) == whole


def test_a_caption_that_no_plan_knows_is_compared_with_what_was_packed(dataset: Dataset) -> None:
    row = read_index(dataset.shards).to_pylist()[0]
    tar = dataset.shards / row["shard"]
    data = bytearray(tar.read_bytes())
    data[row["txt_offset"]] ^= 1
    tar.write_bytes(bytes(data))
    assert only(dataset).text.startswith(f"{row['key']}.txt is not the caption of the plan")
    dataset.part("shard_plan", 0).unlink()
    (text,) = (found.text for found in bad(dataset) if found.subject == row["shard"])
    assert text.startswith(f"does not hold the picture and captions of {row['key']} that were packed")


def test_shards_from_before_checksums_are_told_once_and_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_checksum(data: bytes, extension: str, width: int, height: int) -> PackedImage:
        return PackedImage(data, extension, width, height, resized=True)

    monkeypatch.setattr("curation.shards.writer.re_encoded", without_checksum)  # as it was written then
    write_pictures(tmp_path / "photos", [(96, 64)] * 3)
    dataset, _ = build(recipe(tmp_path / "photos", tmp_path / "ds", shard={"resize_longest_px": 60}))
    told = [finding for finding in check_dataset(dataset.root) if "before checksums" in finding.text]
    assert bad(dataset) == []
    [finding] = told
    assert finding.text.endswith("; 3 re-encoded images not checked: written before checksums")
